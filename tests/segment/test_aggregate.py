"""Aggregation against the formulas of the paper, pixel by pixel."""

import numpy as np
import pytest

from unpool.errors import OptionError
from unpool.segment.aggregate import Aggregate
from unpool.vision.boxes import Crop


@pytest.fixture
def crops():
    """Squares of their own size, so that nothing is resized; some reach beyond the image."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(6):
        side = int(rng.integers(3, 9))
        x, y = rng.integers(-3, 10, 2).tolist()
        scores = rng.normal(size=(3, side, side)).astype(np.float32)
        found.append((Crop((x, y, x + side, y + side), side), scores))
    return found


def values_at(crops, y, x):
    for crop, scores in crops:
        x0, y0, x1, y1 = crop.box
        if x0 <= x < x1 and y0 <= y < y1:
            yield scores[:, y - y0, x - x0]


@pytest.mark.parametrize("how", ["max", "mean"])
def test_every_pixel_has_the_maximum_or_the_mean_of_its_crops(crops, how):
    merged = Aggregate(3, (10, 12), how)
    for crop, scores in crops:
        merged.add(crop, scores)
    for y in range(10):
        for x in range(12):
            values = list(values_at(crops, y, x))
            wanted = np.zeros(3)
            if values:
                wanted = np.max([*values, wanted], 0) if how == "max" else np.mean(values, 0)
            np.testing.assert_allclose(merged.logits[:, y, x], wanted, atol=1e-6)


@pytest.mark.parametrize("how", ["max", "mean"])
def test_the_order_of_the_crops_does_not_matter(crops, how):
    merged = [Aggregate(3, (10, 12), how) for _ in range(2)]
    for one, order in zip(merged, (crops, crops[::-1]), strict=True):
        for crop, scores in order:
            one.add(crop, scores)
    np.testing.assert_allclose(merged[0].logits, merged[1].logits, atol=1e-6)


def test_scores_so_far_stay_as_they_were(crops):
    merged = Aggregate(3, (10, 12))
    merged.add(*crops[0])
    before = merged.logits
    kept = before.copy()
    merged.add(*crops[1])
    np.testing.assert_array_equal(before, kept)


def test_other_aggregations_are_refused():
    with pytest.raises(OptionError, match="got aggregation 'sum'; the choices are max, mean"):
        Aggregate(3, (4, 4), "sum")
