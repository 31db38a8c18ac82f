"""The tables of restoration, on small images."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from experiments import restore
from experiments.restore import CLASSICAL, Case, blurred, main
from unpool.models import save_pretrained
from unpool.models.deblur import IRDNet
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
    monkeypatch.setattr(restore, "list_pretrained", list)
    args = [str(folder), "--kernels", str(folder), "--edges", "-o", str(folder / "out")]
    first = CliRunner().invoke(main, args, catch_exceptions=False).output
    rows = {line.split("|")[1].strip() for line in first.splitlines() if line.startswith("|")}
    assert {"shake, 0.002", "disk:3.5, 0.01", "a1", "a2", "all of a", "tv", "rl"} <= rows
    stored = json.loads((folder / "out" / "restore.json").read_text())["results"]
    assert len(stored) == 6 * 4 + 2 * 2
    assert set(stored["a1: im_1"]) == {"blurred", *CLASSICAL}
    both = [stored[f"a1: im_{i}"]["tv"][0] for i in (1, 2)]
    assert f"{np.mean(both):.2f} / " in next(li for li in first.splitlines() if "| a1 |" in li)
    monkeypatch.setattr(restore, "run", None)  # nothing is restored twice
    assert CliRunner().invoke(main, args, catch_exceptions=False).output == first


def test_tuned_values_and_a_network(folder, monkeypatch):
    """The best of the values is that of the stored results, and no worse than the chosen one."""
    monkeypatch.setattr(restore, "FACTORS", (0.5, 1))
    net = IRDNet(width=4, blocks=1, steps=(1, 16))
    save_pretrained(net, folder / "net", {})
    args = [str(folder), "--tuned", "--only", "tikhonov", "-o", str(folder / "out")]
    args += ["--weights", str(folder / "net")]
    lines = CliRunner().invoke(main, args, catch_exceptions=False).output.splitlines()
    assert lines[0] == "| PSF | cases | blurred | tikhonov | given |"
    stored = json.loads((folder / "out" / "restore.json").read_text())["results"]
    of_row = [result for label, result in stored.items() if label.startswith("disk")]
    tried = [name for name in of_row[0] if name.startswith("tikhonov, balance")]
    assert len(tried) == 2
    best = max(np.mean([result[name][0] for result in of_row]) for name in tried)
    cells = [line.split("|")[2] for line in lines if "disk" in line]
    assert cells[1].startswith(f" {best:.2f} / ")
    nets = [name for name in of_row[0] if name.startswith("given ")]
    assert f"{np.mean([r[nets[0]][0] for r in of_row]):.2f} / " in "".join(lines)
