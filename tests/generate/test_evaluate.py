"""Errors of generated views by hand, and the sheet of both."""

import numpy as np
import pytest
import torch

from unpool.generate.batches import Views
from unpool.generate.evaluate import compare, measure
from unpool.generate.train import generation_loss
from unpool.models import GenerativeNet


def black_views(count):
    images = np.zeros((count, 16, 16, 4), np.uint8)
    return Views(images, np.arange(count), np.zeros(count), np.full(count, 20.0))


def test_measure_by_hand():
    """Error only where the true mask is; one of three pixels of the union is in both masks."""
    views = black_views(1)
    views.images[0, 0, :2] = [255, 255, 255, 255]

    class Constant(GenerativeNet):
        def forward(self, style, view, transformation):
            rgb, mask = torch.full((1, 3, 16, 16), 0.5), torch.zeros(1, 1, 16, 16)
            rgb[:, 0, 0, 1] = 3  # clipped to 1
            mask[:, :, 0, 1:3] = 0.9
            return rgb, mask

    mse, iou, mean = measure(Constant(2, 16, code=2, shared=2), views)
    assert mse == pytest.approx((5 * 0.25 + 0) / 6)
    assert (iou, mean) == pytest.approx((1 / 3, 1 / 3))


def test_large_objects_dominate_one_iou_only():
    """Masks of 1 and 9 pixels; the first is generated twice as large, the second exactly."""
    views = black_views(2)
    views.images[0, 0, 0, 3] = 255
    views.images[1, 0, :9, 3] = 255

    class Constant(GenerativeNet):
        def forward(self, style, view, transformation):
            mask = torch.zeros(2, 1, 16, 16)
            mask[0, :, 0, :2] = mask[1, :, 0, :9] = 1
            return torch.zeros(2, 3, 16, 16), mask

    _, iou, mean = measure(Constant(2, 16, code=2, shared=2), views)
    assert (iou, mean) == pytest.approx((10 / 11, (1 / 2 + 1) / 2))


def test_the_sheet_shows_rendered_above_generated_views():
    views = black_views(2)
    views.images[1] = [10, 20, 30, 255]

    class Half(GenerativeNet):
        def forward(self, style, view, transformation):
            return torch.full((2, 3, 16, 16), 0.2), torch.full((2, 1, 16, 16), 0.5)

    sheet = compare(Half(2, 16, code=2, shared=2), views)
    assert sheet.shape == (2 * 16, 2 * 16, 3)
    assert sheet[0, 0].tolist() == [255] * 3  # empty, on white
    assert sheet[0, -1].tolist() == [10, 20, 30]
    assert sheet[-1, 0].tolist() == [round((0.2 * 0.5 + 0.5) * 255)] * 3


def test_overlap_by_hand():
    """Of hard masks it is the IoU; of soft ones, products and sums."""
    targets, mask = torch.zeros(2, 4, 2, 2), torch.zeros(2, 1, 2, 2)
    targets[0, 3, 0] = 1  # two pixels, of which one is drawn, and one beside
    mask[0, 0, :, 0] = 1
    targets[1, 3], mask[1] = 0.5, 0.5  # 4 * 0.25 of 4 * 0.75
    found = generation_loss(torch.zeros(2, 3, 2, 2), mask, targets, 0, 0, overlap_weight=6)
    assert float(found) == pytest.approx(6 * (1 - 1 / 3 + 1 - 1 / 3) / 4)


def test_overlap_of_nothing_is_finite():
    mask = torch.zeros(1, 1, 2, 2, requires_grad=True)
    nothing = torch.zeros(1, 4, 2, 2)
    generation_loss(nothing[:, :3], mask, nothing, overlap_weight=1).backward()
    assert mask.grad.isfinite().all()
