"""Labels of large images against interpolation by torch, all at once."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unpool.errors import ShapeError
from unpool.vision.sizes import LARGEST, labels_at, reduced, reduced_size, resize


@pytest.mark.parametrize("size", [(1, 1), (300, 400), (1448, 1448), (2, 10**6)])
def test_what_is_small_enough_stays(size):
    assert reduced_size(size) == size


@pytest.mark.parametrize("size", [(4000, 6000), (2049, 2048), (1, 10**7), (10**5, 50)])
def test_what_is_too_large_keeps_its_shape(size):
    height, width = reduced_size(size)
    assert height * width <= LARGEST
    if min(height, width) > 100:
        assert height * width > 0.99 * LARGEST
        assert abs(height / width / (size[0] / size[1]) - 1) < 0.01


def test_small_images_are_not_copied():
    image = np.zeros((30, 40, 3), np.uint8)
    assert reduced(image) is image
    assert reduced(image, 100).shape == (8, 11, 3)


@pytest.mark.parametrize("size", [(57, 83), (600, 41), (9, 7)])
def test_labels_are_those_of_interpolated_scores(size):
    random = np.random.default_rng(0)
    scores = cv2.GaussianBlur(random.normal(size=(9, 7, 5)).astype(np.float32), (3, 3), 1)
    scores = np.ascontiguousarray(scores.transpose(2, 0, 1))
    large = F.interpolate(torch.from_numpy(scores)[None], size, mode="bilinear")[0]
    best = large.topk(2, 0).values
    clear = (best[0] - best[1] > 0.02).numpy()  # OpenCV counts in 32nds of a pixel
    labels = labels_at(scores, size)
    assert clear.mean() > 0.9
    assert labels.dtype == np.uint8
    assert np.array_equal(labels[clear], large.argmax(0).numpy()[clear])


def test_refuses_scores_without_classes():
    with pytest.raises(ShapeError, match="got scores of"):
        labels_at(np.zeros((4, 5), np.float32), (8, 10))


def test_resizing_keeps_the_aspect_ratio_and_a_least_side():
    image = np.random.default_rng(0).integers(0, 256, (30, 60, 3), np.uint8)
    assert resize(image, 20).shape == (10, 20, 3)
    assert resize(image[:2], 20, least=8).shape == (8, 20, 3)
    assert (resize(image, 60) == image).all()
