"""Combinatorial cropping: subsets of classes, their masks and windows, and batches of them."""

from itertools import pairwise

import numpy as np
import pytest

from unpool.data.crops import WindowCrop
from unpool.data.datasets import read_sample
from unpool.data.subsets import (
    binary_labels,
    draw_subsets,
    draw_weak,
    flags,
    stack,
    subset_windows,
    subsets,
)
from unpool.data.weak import WeakImage
from unpool.errors import DataError

CLASSES = 8  # of the scene


def test_subsets_of_three_classes():
    labels = np.array([[0, 2, 5, 7, 255]], np.uint8)
    found = list(subsets(labels))
    assert len(found) == len(set(found)) == 2**3 - 1
    assert {label for subset in found for label in subset} == {2, 5, 7}
    assert [len(subset) for subset in found] == [1, 1, 1, 2, 2, 2, 3]
    assert len(list(subsets(labels, largest=1))) == 3
    assert not list(subsets(np.array([[0, 255]], np.uint8)))


def test_labels_become_binary():
    labels = np.array([[0, 3, 7, 255]], np.uint8)
    assert binary_labels(labels, (7,)).tolist() == [[0, 0, 1, 255]]
    assert binary_labels(labels, (3, 7)).tolist() == [[0, 1, 1, 255]]
    assert binary_labels(labels, ()).tolist() == [[0, 0, 0, 255]]


def overlaps(box, mask, threshold):
    """By counting pixels."""
    x0, y0, x1, y1 = box
    inside = np.zeros(mask.shape, bool)
    inside[y0:y1, x0:x1] = True
    y, x = mask.nonzero()
    tight = np.zeros(mask.shape, bool)
    tight[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
    iou = (inside & tight).sum() / (inside | tight).sum()
    return iou >= threshold or (inside & mask).sum() >= threshold * mask.sum()


def test_windows_are_around_proposals_that_overlap(scene):
    random = np.random.default_rng(0)
    corners = random.integers(0, (60, 40), (80, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1) + 1], 1)
    _, labels = read_sample(scene.samples[0], CLASSES)
    windows = subset_windows(scene, [boxes], most=100, enlarge=1.0)
    assert list(dict.fromkeys(window.subset for window in windows)) == [(1,), (2,), (1, 2)]
    for subset in subsets(labels):
        own = [window.box for window in windows if window.subset == subset]
        mask = np.isin(labels, subset)
        kept = [box for box in boxes.tolist() if overlaps(box, mask, 0.5)]
        assert own[0] == (0, 0, 60, 60)  # the whole image
        assert 0 < len(kept) == len(own) - 1 < len(boxes)
        for (x0, y0, x1, y1), (a, b, c, d) in zip(kept, own[1:], strict=True):
            assert c - a == d - b == max(x1 - x0, y1 - y0)
            assert abs(a + c - x0 - x1) + abs(b + d - y0 - y1) <= 2
    few = subset_windows(scene, [boxes], most=2)
    assert len(few) == 3 * 3
    assert [w.subset for w in subset_windows(scene, [boxes[:0]], largest=1)] == [(1,), (2,)]


def test_masks_without_objects(scene):
    only = scene._replace(samples=[])
    with pytest.raises(DataError, match=r"without objects.*label them"):
        subset_windows(only, [])


def test_crops_have_the_labels_of_their_subset(scene):
    windows = subset_windows(scene, [np.zeros((0, 4), np.int64)])
    crop = WindowCrop(60, 60, flip=False)
    draw = draw_subsets(windows, CLASSES, crop, seed=3)
    examples = [draw(place) for place in range(6)]
    _, labels = read_sample(scene.samples[0], CLASSES)
    for example in examples:
        subset = (example.shown.nonzero()[0] + 1).tolist()
        expected = np.where(np.isin(labels, subset), 1, 0)
        expected[labels == 255] = 255
        assert np.array_equal(example.labels[:40], expected)
        assert (example.labels[40:] == 255).all()  # below the image
        assert not example.image[40:].any()
    assert {tuple(e.shown) for e in examples} == {tuple(flags(w.subset, CLASSES)) for w in windows}
    batch = stack(examples)
    assert batch.images.shape == (6, 60, 60, 3)
    assert batch.labels.shape == (6, 60, 60)
    assert batch.shown.shape == (6, CLASSES - 1)


def test_weak_examples_have_no_labels(scene):
    images = [
        WeakImage("a", scene.samples[0].image, (1, 2)),
        WeakImage("b", scene.samples[0].image, ()),
    ]
    draw = draw_weak(images, CLASSES, WindowCrop(32, 40, color=0.2), seed=0)
    batch = stack([draw(place) for place in range(4)])
    assert batch.labels is None
    assert batch.images.shape == (4, 32, 32, 3)
    assert sorted(batch.shown.sum(1).tolist()) == [0, 0, 2, 2]
    assert any((a != b).any() for a, b in pairwise(batch.images))
    again = draw(1)
    assert np.array_equal(again.image, batch.images[1])
