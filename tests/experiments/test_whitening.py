"""Batch norm against network deconvolution, on a few images."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from experiments import whitening
from experiments.whitening import Task, crops, digits, main, run
from unpool.vision.images import write_mask


@pytest.fixture
def tiny():
    """Two kinds of stripes."""
    generator = torch.Generator().manual_seed(0)
    images = 30 * torch.randn(96, 3, 8, 8, generator=generator)
    labels = torch.arange(96) % 2
    images[labels == 0, :, ::2] += 60
    images[labels == 1, :, :, ::2] += 60
    halves = (images[:64], labels[:64]), (images[64:], labels[64:])
    return Task(*halves, 2, ((1, 4), (1, 4)), 2, (0.02,))


@pytest.mark.parametrize("norm", [None, "batch", "deconv"])
def test_accuracies_are_those_of_each_epoch(tiny, norm):
    found = run(tiny, norm, 0.02, 0)
    assert len(found["accuracies"]) == 2
    assert all(0 <= value <= 100 for value in [*found["accuracies"], found["anew"]])
    again = run(tiny, norm, 0.02, 0)
    assert (again["accuracies"], again["anew"]) == (found["accuracies"], found["anew"])


def test_a_table_is_continued_and_printed(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(whitening, "digits", lambda: tiny)
    runner, args = CliRunner(), ["--seeds", "2", "-o", str(tmp_path)]
    first = runner.invoke(main, args, catch_exceptions=False)
    rows = [line for line in first.output.splitlines() if line.startswith("| digits")]
    assert [row.split(",")[1] for row in rows] == [" nothing", " batch", " deconv"] * 2
    stored = (tmp_path / "whitening.json").read_text()
    assert len(json.loads(stored)["results"]) == 12
    monkeypatch.setattr(whitening, "run", None)  # nothing is trained twice
    again = runner.invoke(main, args, catch_exceptions=False)
    assert [line for line in again.output.splitlines() if line in rows] == rows


def test_digits_are_all_there():
    pytest.importorskip("sklearn")
    task = digits()
    assert task.train[0].shape == (1297, 3, 16, 16)
    assert len(task.test[1]) == 500
    assert task.train[1].unique().tolist() == list(range(10))
    assert task.train[0][:, 1].max() == pytest.approx(255 - 116.66877, abs=1e-3)


@pytest.mark.slow
def test_network_deconvolution_learns_digits_in_an_epoch():
    pytest.importorskip("sklearn")
    first = {norm: run(digits(), norm, 0.05, 1)["accuracies"][0] for norm in ("batch", "deconv")}
    assert first["deconv"] >= 95
    assert first["deconv"] >= first["batch"] + 8


def test_crops_are_the_objects(tmp_path):
    for split, count in (("train", 3), ("val", 1)):
        names = []
        for i in range(count):
            image, labels = np.zeros((40, 50, 3), np.uint8), np.zeros((40, 50), np.uint8)
            image[5:35, 10:30], labels[5:35, 10:30] = (250, 0, 0), 2
            names.append(f"{split}{i}")
            for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
                (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / f"JPEGImages/{names[-1]}.png")
            write_mask(tmp_path / f"SegmentationClass/{names[-1]}.png", labels)
            write_mask(tmp_path / f"SegmentationObject/{names[-1]}.png", labels // 2)
        (tmp_path / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))
    (tmp_path / "classes.txt").write_text("background\ncup\nsquare\n")
    task = crops(tmp_path)
    assert (task.train[0].shape, task.test[0].shape) == ((3, 3, 32, 32), (1, 3, 32, 32))
    assert task.train[0][0, 2].allclose(torch.tensor(250 - 122.67891))  # red, all of it
    assert task.classes == 1
