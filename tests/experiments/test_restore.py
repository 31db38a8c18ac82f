"""The tables of restoration, on small images."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from experiments import restore
from experiments.restore import Case, blurred, columns, main
from unpool.vision.psf import find_psf


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two images with two PSFs, and a protocol of small images."""
    monkeypatch.setattr(restore, "SIDE", 64)
    monkeypatch.setattr(restore, "OWN", ("camera", "moon"))
    noise = np.random.default_rng(0)
    for i in (1, 2):
        image = np.kron(noise.integers(0, 255, (8, 8)), np.ones((8, 8))).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / f"im_{i}.png")
    np.savez(tmp_path / "kernels.npz", a1=np.ones((3, 5)) / 15, a2=np.eye(5) / 5)
    return tmp_path


def test_the_blurred_image_shows_the_middle_of_the_sharp_one():
    sharp = np.random.default_rng(0).random((20, 30))
    psf = find_psf([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    y, truth = blurred(Case("", "", sharp, psf, 0.0, 0))
    np.testing.assert_allclose(y, truth)


def test_tables_are_continued_and_printed(folder, monkeypatch):
    args = [str(folder), "--kernels", str(folder), "--edges", "-o", str(folder / "out")]
    first = CliRunner().invoke(main, args, catch_exceptions=False).output
    rows = {line.split("|")[1].strip() for line in first.splitlines() if line.startswith("|")}
    assert {"shake, 0.002", "disk:3.5, 0.01", "a1", "a2", "all of a", "tv", "rl"} <= rows
    stored = json.loads((folder / "out" / "restore.json").read_text())["results"]
    assert len(stored) == 6 * 4 + 2 * 2
    assert set(stored["a1: im_1"]) == set(columns())
    both = [stored[f"a1: im_{i}"]["tv"][0] for i in (1, 2)]
    assert f"{np.mean(both):.2f} / " in next(li for li in first.splitlines() if "| a1 |" in li)
    monkeypatch.setattr(restore, "run", None)  # nothing is restored twice
    assert CliRunner().invoke(main, args, catch_exceptions=False).output == first
