"""Occlusion of segmentations, against a loop, and where the answer is known."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from unpool import Segmenter
from unpool.errors import OptionError, ShapeError
from unpool.models import DeconvNet
from unpool.visualize import occlude_region


class Neighbors(nn.Module):
    """Class 1 where a bright mark is within two pixels, class 2 in the last column."""

    def forward(self, x):
        near = nn.functional.max_pool2d(x[:, :1], 5, 1, 2)
        right = torch.zeros_like(near)
        right[..., -1] = 3
        return torch.cat([torch.full_like(near, 0.5), near, right], 1)


@pytest.fixture
def image():
    image = torch.zeros(1, 3, 12, 12)
    image[0, 0, 5, 5] = 1
    return image


def test_hiding_the_mark_hides_the_object(image):
    found = occlude_region(Neighbors(), image, window=3, stride=3)
    assert found.target == 1
    assert (found.labels == 1).sum() == 25
    wanted = torch.ones(4, 4, dtype=torch.float64)
    wanted[1, 1] = 0  # rows and columns 3 to 5 hide the mark; the rest of the object goes too
    assert torch.equal(found.iou, wanted)
    assert (found.drop > 0).sum() == 9
    assert found.to_dict()["lowest_box"] == [3, 3, 6, 6]


def test_a_region_that_is_hidden_whole_has_no_iou(image, tmp_path):
    found = occlude_region(Neighbors(), image, window=9, stride=9)
    assert math.isnan(found.iou[0, 0])
    assert found.iou.flatten()[1:].tolist() == [1, 1, 1]
    photo = np.zeros((12, 12, 3), np.uint8)
    figure, facts = found.save(tmp_path / "a", photo, ["nothing", "mark"])
    record = json.loads(facts.read_text())
    assert (record["iou"], record["lowest"]) == ([[None, 1.0], [1.0, 1.0]], 1.0)
    assert figure.exists()
    assert found.panels(photo, ["nothing", "mark"])[2][1].startswith("IoU of mark")


def test_of_a_segmenter_against_a_loop(filled):
    net = filled(DeconvNet(3, ((1, 4), (1, 6)), None, 32))
    options = {"long_side": 32, "device": "cpu", "precision": "fp32"}
    segmenter = Segmenter(net, ["a", "b", "c"], **options)
    photo = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    before = segmenter(photo).labels
    assert len(set(np.unique(before)) - {0}) >= 1
    found = occlude_region(segmenter, photo, window=(8, 12), stride=(8, 10))
    assert found.target == 1 + int(np.argmax(np.bincount(before.ravel(), minlength=3)[1:]))
    assert np.array_equal(found.labels, before)
    for iou, (x0, y0, x1, y1) in zip(found.iou.flatten(), found.windows.boxes(), strict=True):
        hidden = photo.copy()
        hidden[y0:y1, x0:x1] = (123, 117, 104)  # RGB
        after = segmenter(hidden).labels
        outside = np.ones(before.shape, bool)
        outside[y0:y1, x0:x1] = False
        a, b = (before == found.target)[outside], (after == found.target)[outside]
        assert float(iou) == pytest.approx((a & b).sum() / (a | b).sum())
    choosy = Segmenter(
        net, ["a", "b", "c"], presence_threshold=1, **options
    )  # what the network says, counts
    again = occlude_region(choosy, photo, window=(8, 12), stride=(8, 10))
    assert torch.equal(again.iou, found.iou)
    tensors = occlude_region(net, torch.randn(1, 3, 32, 32), window=16, target=None)
    assert tensors.iou.shape == (3, 3)


def test_invalid_arguments(image):
    model = Neighbors()
    with pytest.raises(OptionError, match="class 7 is not found; it has 1, 2"):
        occlude_region(model, image, target=7)
    with pytest.raises(OptionError, match="an object is not found; it has nothing but the back"):
        occlude_region(nn.Conv2d(3, 1, 1), image)
    with pytest.raises(ShapeError, match=r"gives \(1, 4, 10, 10\) for .*use occlude for"):
        occlude_region(nn.Conv2d(3, 4, 3), image)
    with pytest.raises(ShapeError, match="got an array for a model"):
        occlude_region(model, np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(OptionError, match="batch=0"):
        occlude_region(model, image, batch=0)
    segmenter = Segmenter(DeconvNet(2, ((1, 4),), None, 32), ["a", "b"])
    with pytest.raises(ShapeError, match="got a tensor for a Segmenter"):
        occlude_region(segmenter, image)


def test_progress(image):
    calls = []
    occlude_region(Neighbors(), image, window=6, batch=4, progress=lambda *now: calls.append(now))
    assert calls == [(done, 9, "occluding") for done in (4, 8, 9)]


def test_classes_above_255(image):
    class Shifted(nn.Module):
        def forward(self, x):
            scores = Neighbors()(x)
            return torch.cat([scores[:, :1], torch.zeros(len(x), 260, 12, 12), scores[:, 1:]], 1)

    found = occlude_region(Shifted(), image, window=6)
    assert found.target == 261
    assert set(np.unique(found.labels)) == {0, 261, 262}
    assert occlude_region(Shifted(), image, target=262, window=12).target == 262
    with pytest.raises(OptionError, match="class 5 is not found; it has 261, 262"):
        occlude_region(Shifted(), image, target=5)
    photo = np.zeros((12, 12, 3), np.uint8)
    assert found.panels(photo)[1][0].shape == photo.shape
    assert found.panels(photo)[2][1].startswith("IoU of class 261")
