"""Soft labels: cropped like labels, not pasted over, stacked in batches."""

import numpy as np
import pytest

from tests.data.test_crops import colored, data_set, interior
from unpool.data import VOID
from unpool.data.crops import View, Views, WindowCrop, batches, draw_views, find_paster


def one_hot(labels, scale=1):
    """Soft labels (8, h, w) that are sure of class ids (H, W), at a coarser grid."""
    grid = labels[scale // 2 :: scale, scale // 2 :: scale]
    return np.where(np.arange(8)[:, None, None] == grid, 9, -9).astype(np.float32)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("cut", [Views(64, (60, 140), color=0), WindowCrop(48, 60)])
def test_soft_labels_are_cropped_like_labels(seed, cut):
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 8, (5, 6)), np.ones((16, 16), int)).astype(np.uint8)
    box = (-10, 5, 60, 75)
    extra = () if isinstance(cut, Views) else (box,)
    for scale in (1, 4):
        soft = one_hot(labels, scale)
        view = cut.draw(colored(labels), labels, *extra, np.random.default_rng(seed), soft)
        assert view.soft.shape == (8, cut.side, cut.side)
        known = np.isfinite(view.soft).all(0)
        assert np.array_equal(known, view.labels != VOID)  # NaN outside the image
        sure = known & interior(view.labels, 5)
        assert sure.any()
        assert np.array_equal(view.soft.argmax(0)[sure], view.labels[sure])


def test_soft_labels_say_nothing_of_pasted_objects(flat):
    paster = find_paster(flat, most=3)
    ground = np.zeros((64, 64), np.uint8)
    for seed in range(5):
        view = View(colored(ground), ground, one_hot(ground))
        pasted = paster.paste(view, np.random.default_rng(seed))
        assert np.array_equal(np.isnan(pasted.soft).all(0), pasted.labels != 0)
        assert np.isfinite(view.soft).all()


def test_batches_have_soft_labels_at_every_eighth_pixel(tmp_path):
    data = data_set(tmp_path, 3)
    np.save(tmp_path / "1.npy", np.random.default_rng(0).normal(size=(8, 3, 4)).astype(np.float16))
    data.samples[1] = data.samples[1]._replace(soft=tmp_path / "1.npy")
    draw = draw_views(data, Views(side=16, long_side=(16, 16)))
    stream = batches(draw, 3)
    batch = next(stream)
    stream.close()
    assert batch.soft.shape == (3, 8, 2, 2)
    for place in range(3):
        view = draw(place)
        if view.soft is None:
            assert np.isnan(batch.soft[place]).all()
        else:
            np.testing.assert_array_equal(batch.soft[place], view.soft[:, 4::8, 4::8])
    assert sum(draw(place).soft is not None for place in range(3)) == 1
