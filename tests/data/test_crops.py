from pathlib import Path

import numpy as np
import pytest

from unpool.data import VOID, DataSet, Sample
from unpool.data.crops import (
    Cut,
    Views,
    _recolor,
    class_balance,
    draw_windows,
    take_turns,
)
from unpool.data.windows import Window, object_windows
from unpool.errors import DataError
from unpool.vision.images import write_image, write_mask

CLASSES = ["background", *(f"class {i}" for i in range(1, 8))]


def colored(labels: np.ndarray) -> np.ndarray:
    """The image that tells its labels: 30 times the class, in three mixtures."""
    return np.stack([30 * labels, 210 - 30 * labels, 30 * (labels % 4)], axis=2).astype(np.uint8)


def interior(labels: np.ndarray, width: int) -> np.ndarray:
    """Where all labels as far as `width` around are equal."""
    padded = np.pad(labels, width, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (2 * width + 1,) * 2)
    return around.min((2, 3)) == around.max((2, 3))


def data_set(root: Path, count: int) -> DataSet:
    """Images of one color: that of number i is i in red, and its mask i."""
    samples = []
    for i in range(count):
        sample = Sample(str(i), root / f"images/{i}.png", root / f"masks/{i}.png")
        write_image(sample.image, np.full((9, 12 - i, 3), i, np.uint8))
        write_mask(sample.mask, np.full((9, 12 - i), i))
        samples.append(sample)
    return DataSet(root, "train", samples, CLASSES)


# views


@pytest.mark.parametrize("seed", range(20))
def test_a_view_takes_image_and_labels_from_the_same_places(seed):
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 8, (5, 6)), np.ones((8, 8), int)).astype(np.uint8)
    views = Views(side=64, long_side=(60, 140), color=0)  # enlarged, up to 3 times
    view, seen = views.draw(colored(labels), labels, rng)
    assert view.shape == (64, 64, 3)
    assert seen.shape == (64, 64)
    certain = interior(seen, 3) & (seen != VOID)
    assert certain.sum() > 300
    np.testing.assert_array_equal(view[certain], colored(seen)[certain])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_edges_of_image_and_labels_coincide(seed, turned):
    stripes = np.repeat(np.arange(16) % 2, 4).astype(np.uint8)
    labels = np.tile(stripes, (64, 1))
    labels = np.ascontiguousarray(labels.T) if turned else labels
    image = np.repeat(200 * labels[..., None], 3, axis=2)
    views = Views(side=48, long_side=(96, 160), color=0)  # always within the image
    view, seen = views.draw(image, labels, np.random.default_rng(seed))
    level = view[..., 0].astype(int) - 100  # 0 on the very edge
    clear = abs(level) > 2
    assert clear.mean() > 0.8
    np.testing.assert_array_equal((level > 0)[clear], seen[clear] == 1)


def test_half_of_the_views_are_flipped_and_none_without_flip():
    labels = np.zeros((8, 8), np.uint8)
    labels[:, 4:] = 1
    views = Views(side=8, long_side=(8, 8), aspect=0, color=0)
    for flip, low, high in [(True, 70, 130), (False, 0, 0)]:
        rng = np.random.default_rng(0)
        drawn = [views._replace(flip=flip).draw(colored(labels), labels, rng) for _ in range(200)]
        for view, seen in drawn:
            np.testing.assert_array_equal(view, colored(seen))
        assert low <= sum(seen[0, 0] == 1 for _, seen in drawn) <= high


@pytest.mark.parametrize("color", [0, 0.5])
def test_outside_the_image_is_0_and_void(color):
    image, labels = np.full((20, 10, 3), 150, np.uint8), np.full((20, 10), 3, np.uint8)
    views = Views(side=32, long_side=(24, 24), aspect=0, color=color)
    for seed in range(10):
        view, seen = views.draw(image, labels, np.random.default_rng(seed))
        assert not view[seen == VOID].any()
        assert view[interior(seen, 2) & (seen == 3)].all()
        assert (seen == 3).sum() == pytest.approx(24 * 12, rel=0.15)


def test_an_image_shrunk_to_nothing_is_all_void():
    image, labels = np.ones((1, 400, 3), np.uint8), np.ones((1, 400), np.uint8)
    views = Views(side=8, long_side=(8, 8))
    for seed in range(10):
        view, seen = views.draw(image, labels, np.random.default_rng(seed))
        assert not view[seen == VOID].any()


def test_colors_change_within_range_and_labels_do_not():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 8, (32, 32), dtype=np.uint8)
    plain, vivid = (Views(side=32, color=color) for color in (0, 0.3))
    for seed in range(10):
        views = [v.draw(image, labels, np.random.default_rng(seed)) for v in (plain, vivid)]
        np.testing.assert_array_equal(views[0][1], views[1][1])
        assert views[1][0].dtype == np.uint8
        assert (views[0][0] != views[1][0]).any()


def test_colors_stay_as_they_are_at_strength_0():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    inside = np.ones((16, 16), bool)
    np.testing.assert_array_equal(_recolor(image, inside, 0, np.random.default_rng(0)), image)


def test_colors_are_cut_off_at_black_and_white():
    """Contrast about the middle: white gets no darker, and black no lighter, by wrapping around."""
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2] = 255
    for seed in range(20):
        changed = _recolor(image, np.ones((4, 4), bool), 0.3, np.random.default_rng(seed))
        assert changed[:2].min() > 100
        assert changed[2:].max() < 100


def test_one_gray_gets_only_brighter_or_darker():
    gray, inside = np.full((4, 4, 3), 100, np.uint8), np.ones((4, 4), bool)
    for seed in range(20):
        changed = _recolor(gray, inside, 0.2, np.random.default_rng(seed))
        assert 80 <= changed.min() == changed.max() <= 120


# windows


def test_in_stage_1_only_the_object_keeps_its_class(scene):
    bar, _ = object_windows(scene)
    draw = draw_windows([bar], 8, Cut(36, 36, flip=False))
    image, labels = draw(0)
    assert set(np.unique(labels)) == {0, 1, VOID}
    assert (labels == 1).sum() == 300
    assert (labels[:, :5] == VOID).all()  # beyond the image
    assert not image[:, :5].any()
    block = (image == 60).all(2)
    assert block.any()
    assert not labels[block].any()  # it is seen, and called background


def test_a_crop_is_a_part_of_the_enlarged_window(scene):
    """Of 40 pixels 36 are taken, anywhere: 0..4 are the offsets, each as often."""
    image = np.zeros((40, 40, 3), np.uint8)
    image[..., 0] = np.arange(40)
    image[..., 1] = np.arange(40)[:, None]
    cut, seen = Cut(36, 40, flip=False), []
    for seed in range(300):
        found, _ = cut.draw(image, image[..., 0], (0, 0, 40, 40), np.random.default_rng(seed))
        assert found.shape == (36, 36, 3)
        seen.append(tuple(found[0, 0, :2].tolist()))
        assert tuple((found[-1, -1, :2] - found[0, 0, :2]).tolist()) == (35, 35)
    assert {x for x, _ in seen} == {y for _, y in seen} == set(range(5))


def test_every_window_comes_once_in_each_round_and_half_are_flipped(scene):
    windows = [Window(scene.samples[0], (i, 0, i + 36, 36)) for i in range(20)]
    draw = draw_windows(windows, 8, Cut(36, 36), seed=3)
    first = [draw(place)[1] for place in range(20)]
    straight = [draw_windows([w], 8, Cut(36, 36, flip=False))(0)[1] for w in windows]
    found = [i for i, s in enumerate(straight) for f in first if np.array_equal(f, s)]
    flipped = [i for i, s in enumerate(straight) for f in first if np.array_equal(f, s[:, ::-1])]
    assert sorted(found + flipped) == list(range(20))
    assert 3 <= len(flipped) <= 17
    again = draw_windows(windows, 8, Cut(36, 36), seed=3)
    np.testing.assert_array_equal(again(7)[0], draw(7)[0])


def test_sources_take_turns():
    draw = take_turns([lambda place: ("a", place), lambda place: ("b", place)])
    assert [draw(place) for place in range(4)] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_no_window_at_all_is_told():
    with pytest.raises(DataError, match="got no window to learn from"):
        draw_windows([], 8, Cut())


# balance


def test_an_image_with_a_rare_class_weighs_more(tmp_path):
    data = data_set(tmp_path, 4)
    for sample, ids in zip(data.samples, [(0, 0), (0, 1), (0, 255), (0, 1)], strict=True):
        write_mask(sample.mask, np.resize(ids, (9, 12 - int(sample.name))))
    np.testing.assert_allclose(class_balance(data, 0.75), [1, 1.5**0.5, 1, 1.5**0.5])
    np.testing.assert_array_equal(class_balance(data, 0), np.ones(4))
