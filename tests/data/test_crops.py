import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

from unpool.data import VOID, Batch, DataSet, Sample, Views, batches, class_balance
from unpool.data.crops import _recolor
from unpool.errors import DataError, ImageError
from unpool.vision.images import write_image, write_mask

CLASSES = ["background", *(f"class {i}" for i in range(1, 8))]
SMALL = Views(side=8, long_side=(8, 16))


def colored(labels: np.ndarray) -> np.ndarray:
    """The picture that tells its labels: 30 times the class, in three mixtures."""
    return np.stack([30 * labels, 210 - 30 * labels, 30 * (labels % 4)], axis=2).astype(np.uint8)


def interior(labels: np.ndarray, width: int) -> np.ndarray:
    """Where all labels as far as `width` around are equal."""
    padded = np.pad(labels, width, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (2 * width + 1,) * 2)
    return around.min((2, 3)) == around.max((2, 3))


def data_set(root: Path, count: int) -> DataSet:
    """Pictures of one color: that of number i is i in red, and its mask i."""
    samples = []
    for i in range(count):
        sample = Sample(str(i), root / f"images/{i}.png", root / f"masks/{i}.png")
        write_image(sample.image, np.full((9, 12 - i, 3), i, np.uint8))
        write_mask(sample.mask, np.full((9, 12 - i), i))
        samples.append(sample)
    return DataSet(root, "train", samples, CLASSES)


def take(n: int, *arguments: object, **options: object) -> list[Batch]:
    stream = batches(*arguments, **options)
    found = list(itertools.islice(stream, n))
    stream.close()
    return found


# views


@pytest.mark.parametrize("seed", range(20))
def test_a_view_takes_picture_and_labels_from_the_same_places(seed):
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
def test_edges_of_picture_and_labels_coincide(seed, turned):
    stripes = np.repeat(np.arange(16) % 2, 4).astype(np.uint8)
    labels = np.tile(stripes, (64, 1))
    labels = np.ascontiguousarray(labels.T) if turned else labels
    image = np.repeat(200 * labels[..., None], 3, axis=2)
    views = Views(side=48, long_side=(96, 160), color=0)  # always within the picture
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
def test_outside_the_picture_is_0_and_void(color):
    image, labels = np.full((20, 10, 3), 150, np.uint8), np.full((20, 10), 3, np.uint8)
    views = Views(side=32, long_side=(24, 24), aspect=0, color=color)
    for seed in range(10):
        view, seen = views.draw(image, labels, np.random.default_rng(seed))
        assert not view[seen == VOID].any()
        assert view[interior(seen, 2) & (seen == 3)].all()
        assert (seen == 3).sum() == pytest.approx(24 * 12, rel=0.15)


def test_a_picture_shrunk_to_nothing_is_all_void():
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


# batches


def test_every_picture_comes_once_in_each_round(tmp_path):
    data = data_set(tmp_path, 7)
    found = take(7, data, SMALL, 3, seed=5)
    assert {batch.images.shape for batch in found} == {(3, 8, 8, 3)}
    pictures = [int(labels[labels != VOID][0]) for batch in found for labels in batch.labels]
    rounds = [pictures[i : i + 7] for i in (0, 7, 14)]
    assert all(sorted(order) == list(range(7)) for order in rounds)
    assert len({tuple(order) for order in rounds}) == 3


def test_a_batch_depends_on_seed_and_number_alone(tmp_path):
    data = data_set(tmp_path, 5)
    whole = take(9, data, SMALL, 4, seed=1)
    for start in (1, 5):
        for once, again in zip(
            whole[start:], take(9 - start, data, SMALL, 4, 1, start), strict=True
        ):
            np.testing.assert_array_equal(once.images, again.images)
            np.testing.assert_array_equal(once.labels, again.labels)
    other = take(9, data, SMALL, 4, seed=2)
    assert any((a.images != b.images).any() for a, b in zip(whole, other, strict=True))


def test_views_of_one_picture_differ_from_round_to_round(tmp_path):
    write_image(
        tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    )
    write_mask(tmp_path / "a.png.png", np.zeros((16, 16), int))
    sample = Sample("a", tmp_path / "a.png", tmp_path / "a.png.png")
    one = DataSet(tmp_path, "train", [sample], CLASSES)
    first, second = take(2, one, SMALL, 1)
    assert (first.images != second.images).any()


def test_an_unusable_file_is_named_when_its_turn_comes(tmp_path):
    data = data_set(tmp_path, 4)
    broken = data.samples[2].image
    broken.write_bytes(broken.read_bytes()[:50])
    before = set(threading.enumerate())
    with pytest.raises(ImageError, match=r"2\.png: is broken or cut short"):
        take(4, data, SMALL, 1)
    assert set(threading.enumerate()) <= before


def test_ids_of_no_class_are_named_too(tmp_path):
    data = data_set(tmp_path, 4)._replace(classes=CLASSES[:3])
    with pytest.raises(DataError, match=r"3\.png has the ids 3; wanted 0 to 2"):
        take(4, data, SMALL, 1)


def test_a_stream_that_is_closed_or_dropped_leaves_no_thread(tmp_path):
    data = data_set(tmp_path, 3)
    before = set(threading.enumerate())
    stream = batches(data, SMALL, 2)
    next(stream)
    assert set(threading.enumerate()) - before
    stream.close()
    assert set(threading.enumerate()) <= before
    next(batches(data, SMALL, 2))
    assert set(threading.enumerate()) <= before


# balance


def test_a_picture_with_a_rare_class_weighs_more(tmp_path):
    data = data_set(tmp_path, 4)
    for sample, ids in zip(data.samples, [(0, 0), (0, 1), (0, 255), (0, 1)], strict=True):
        write_mask(sample.mask, np.resize(ids, (9, 12 - int(sample.name))))
    np.testing.assert_allclose(class_balance(data, 0.75), [1, 1.5**0.5, 1, 1.5**0.5])
    np.testing.assert_array_equal(class_balance(data, 0), np.ones(4))


def test_pictures_are_drawn_as_often_as_they_weigh(tmp_path):
    data, weights = data_set(tmp_path, 4), np.array([1.0, 0, 3, 0])
    found = take(40, data, SMALL, 5, weights=weights)
    pictures = [int(labels[labels != VOID][0]) for batch in found for labels in batch.labels]
    assert set(pictures) == {0, 2}
    assert 0.65 < np.mean(np.equal(pictures, 2)) < 0.85
    again = take(2, data, SMALL, 5, start=38, weights=weights)
    for once, twice in zip(found[38:], again, strict=True):
        np.testing.assert_array_equal(once.images, twice.images)
