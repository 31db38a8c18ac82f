"""The comparison of DecoupledNet with the masks alone, on tiny networks."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from experiments import decoupled
from unpool.data import open_data
from unpool.models import DecoupledNet
from unpool.recipes.segment import Phase
from unpool.vision.images import write_image, write_mask

TRUNK = ((1, 6), (1, 8))


@pytest.fixture
def small(monkeypatch):
    """Recipes of a few steps."""
    sizes = {"trunk": TRUNK, "size": 32, "batch": 2, "statistics_passes": 2, "validate_every": 2}
    ours = dataclasses.replace(
        *(decoupled.OURS,), code=8, seg_code=8, enlarged=36, window=3, stages=1,
        classify_steps=2, segment_steps=2, **sizes,
    )  # fmt: skip
    phases = (Phase("coarse", 1, 2, 1e-3), Phase("fine", 2, 2, 1e-3, 1e-3))
    alone = dataclasses.replace(
        *(decoupled.ALONE,), code=8, phases=phases, crop_long_side=(32, 64), **sizes
    )
    monkeypatch.setattr(decoupled, "OURS", ours)
    monkeypatch.setattr(decoupled, "ALONE", alone)


@pytest.fixture
def voc(tmp_path):
    """Six images of train and two of val, each with a square of one of two classes."""
    root = tmp_path / "voc"
    for i in range(8):
        labels = np.zeros((40, 52), np.uint8)
        labels[5:25, 10:30] = 1 + i % 2
        write_mask(root / f"SegmentationClass/{i}.png", labels)
        write_image(root / f"JPEGImages/{i}.png", 60 * labels[..., None].repeat(3, 2) + 60)
    (root / "classes.txt").write_text("background\none\ntwo")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n2\n3\n4\n5\n")
    (lists / "val.txt").write_text("6\n7\n")
    return root


def test_both_learn_from_the_same_masks(small, voc, tmp_path):
    net = DecoupledNet(3, TRUNK, 8, 8, 32, 3)
    layers = [m for m in net.trunk.modules() if isinstance(m, torch.nn.Conv2d)]
    weights = {
        f"features.{i}.{part}": value
        for i, layer in enumerate(layers)
        for part, value in layer.state_dict().items()
    }
    torch.save(weights, tmp_path / "vgg.pth")
    out = tmp_path / "out"
    given = ["--data", str(voc), "--trunk-weights", str(tmp_path / "vgg.pth"), "-o", str(out)]
    given += ["--strong", "1", "--seeds", "2"]
    first = CliRunner().invoke(decoupled.main, given, catch_exceptions=False)
    assert first.exit_code == 0
    assert first.stdout.count("| 1 |") == 3
    runs = {path.name for path in out.iterdir()} - {"data", "table.md", "table.json"}
    assert runs == {"decoupled-1-0", "decoupled-1-1", "alone-1-0", "alone-1-1"}
    for seed in (0, 1):
        alone = open_data(out / f"data/strong-1-{seed}", f"strong-1-{seed}")
        assert len(alone.samples) == 2
        card = json.loads((out / f"decoupled-1-{seed}/weights/card.json").read_text())
        assert "masks of 2 of them" in card["data"]
    found = json.loads((out / "table.json").read_text())
    assert [len(values) for values in found["1"].values()] == [2, 2]
    written = (out / "alone-1-0/weights/model.safetensors").stat().st_mtime_ns
    again = CliRunner().invoke(decoupled.main, given, catch_exceptions=False)
    assert again.stdout == first.stdout
    assert (out / "alone-1-0/weights/model.safetensors").stat().st_mtime_ns == written
