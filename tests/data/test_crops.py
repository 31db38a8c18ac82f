import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

from unpool.data import VOID, DataSet, Sample, read_sample
from unpool.data.crops import (
    Batch,
    View,
    Views,
    WholeImages,
    WindowCrop,
    _recolor,
    batches,
    draw_views,
    draw_windows,
    find_paster,
    interleave,
)
from unpool.data.windows import Window, object_windows
from unpool.errors import DataError, ImageError
from unpool.vision.images import write_image, write_mask

CLASSES = ["background", *(f"class {i}" for i in range(1, 8))]
SMALL = Views(side=8, long_side=(8, 16))


def colored(labels: np.ndarray) -> np.ndarray:
    """An image whose colors identify the class: three functions of it."""
    return np.stack([30 * labels, 210 - 30 * labels, 30 * (labels % 4)], axis=2).astype(np.uint8)


def interior(labels: np.ndarray, width: int) -> np.ndarray:
    """Where all labels within `width` pixels are equal."""
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
    view, seen, _ = views.draw(colored(labels), labels, rng)
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
    view, seen, _ = views.draw(image, labels, np.random.default_rng(seed))
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
        found = [views._replace(flip=flip).draw(colored(labels), labels, rng) for _ in range(200)]
        for view, seen, _ in found:
            np.testing.assert_array_equal(view, colored(seen))
        assert low <= sum(seen[0, 0] == 1 for _, seen, _ in found) <= high


@pytest.mark.parametrize("size", [(50, 70), (20, 70), (20, 10)])
def test_views_without_a_long_side_are_parts_of_the_image(size):
    """And of a padded one if it is smaller, as in the released DeepLab."""
    rng = np.random.default_rng(0)
    image, labels = rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 9, size, np.uint8)
    views = Views(32, None, flip=False, color=0, fill=(1, 2, 3))
    padded = np.full((max(size[0], 32), max(size[1], 32), 4), (1, 2, 3, VOID), np.uint8)
    padded[: size[0], : size[1]] = np.dstack([image, labels])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (32, 32), (0, 1))
    seen = set()
    for seed in range(40):
        found = np.dstack(views.draw(image, labels, np.random.default_rng(seed))[:2])
        equal = (windows == found.transpose(2, 0, 1)).all((2, 3, 4))
        assert equal.sum() == 1
        seen.add(tuple(np.argwhere(equal)[0]))
    places = equal.size
    assert len(seen) == 1 if places == 1 else len(seen) > 10


@pytest.mark.parametrize("color", [0, 0.5])
def test_outside_the_image_is_0_and_void(color):
    image, labels = np.full((20, 10, 3), 150, np.uint8), np.full((20, 10), 3, np.uint8)
    views = Views(side=32, long_side=(24, 24), aspect=0, color=color)
    for seed in range(10):
        view, seen, _ = views.draw(image, labels, np.random.default_rng(seed))
        assert not view[seen == VOID].any()
        assert view[interior(seen, 2) & (seen == 3)].all()
        assert (seen == 3).sum() == pytest.approx(24 * 12, rel=0.15)


def test_an_image_shrunk_to_nothing_is_all_void():
    image, labels = np.ones((1, 400, 3), np.uint8), np.ones((1, 400), np.uint8)
    views = Views(side=8, long_side=(8, 8))
    for seed in range(10):
        view, seen, _ = views.draw(image, labels, np.random.default_rng(seed))
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
    """uint8 values saturate instead of wrapping around."""
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


@pytest.mark.parametrize("size", [(36, 48), (6, 8)])
def test_whole_images_are_resized_with_their_labels(size):
    """Blocks of one class each, in colors of their class, at twice and at a third of the size."""
    blocks = np.arange(48).reshape(6, 8) % 8
    labels = np.kron(blocks, np.ones((3, 3), int)).astype(np.uint8)
    soft = np.stack([labels == k for k in range(8)]).astype(np.float32)
    expected = np.kron(blocks, np.ones((size[0] // 6, size[1] // 8), int))
    flipped = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        view = WholeImages(size).draw(colored(labels), labels, rng, soft)
        assert view.image.shape == (*size, 3)
        assert view.soft.shape == (8, *size)
        turned = not (view.labels == expected).all()
        assert not turned or (view.labels[:, ::-1] == expected).all()
        flipped += turned
        inside = interior(view.labels, 1) if size[0] == 36 else np.ones(size, bool)
        assert inside.any()
        assert (colored(view.labels)[inside] == view.image[inside]).all()
        assert (view.soft.argmax(0)[inside] == view.labels[inside]).all()
    assert 4 <= flipped <= 16


def test_in_stage_1_only_the_object_keeps_its_class(scene):
    bar, _ = object_windows(scene)
    draw = draw_windows([bar], 8, WindowCrop(36, 36, flip=False))
    image, labels, _ = draw(0)
    assert set(np.unique(labels)) == {0, 1, VOID}
    assert (labels == 1).sum() == 300
    assert (labels[:, :5] == VOID).all()  # beyond the image
    assert not image[:, :5].any()
    block = (image == 60).all(2)
    assert block.any()
    assert not labels[block].any()  # visible, but labeled as background


def test_a_crop_is_a_part_of_the_enlarged_window(scene):
    """36 of 40 pixels are cropped, at offsets 0 to 4."""
    image = np.zeros((40, 40, 3), np.uint8)
    image[..., 0] = np.arange(40)
    image[..., 1] = np.arange(40)[:, None]
    cut, seen = WindowCrop(36, 40, flip=False), []
    for seed in range(300):
        found, *_ = cut.draw(image, image[..., 0], (0, 0, 40, 40), np.random.default_rng(seed))
        assert found.shape == (36, 36, 3)
        seen.append(tuple(found[0, 0, :2].tolist()))
        assert tuple((found[-1, -1, :2] - found[0, 0, :2]).tolist()) == (35, 35)
    assert {x for x, _ in seen} == {y for _, y in seen} == set(range(5))


def test_every_window_comes_once_an_epoch_and_half_are_flipped(scene):
    windows = [Window(scene.samples[0], (i, 0, i + 36, 36)) for i in range(20)]
    draw = draw_windows(windows, 8, WindowCrop(36, 36), seed=3)
    first = [draw(place)[1] for place in range(20)]
    straight = [draw_windows([w], 8, WindowCrop(36, 36, flip=False))(0)[1] for w in windows]
    found = [i for i, s in enumerate(straight) for f in first if np.array_equal(f, s)]
    flipped = [i for i, s in enumerate(straight) for f in first if np.array_equal(f, s[:, ::-1])]
    assert sorted(found + flipped) == list(range(20))
    assert 3 <= len(flipped) <= 17
    again = draw_windows(windows, 8, WindowCrop(36, 36), seed=3)
    np.testing.assert_array_equal(again(7)[0], draw(7)[0])


def test_sequences_are_interleaved():
    draw = interleave([lambda place: ("a", place), lambda place: ("b", place)])
    assert [draw(place) for place in range(4)] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_no_windows_are_an_error():
    with pytest.raises(DataError, match="got no window to learn from"):
        draw_windows([], 8, WindowCrop())


# pasted objects


def test_objects_are_pasted_with_their_labels_only(flat):
    paster = find_paster(flat, most=3)
    ground = View(np.full((64, 64, 3), 10, np.uint8), np.zeros((64, 64), np.uint8))
    changed = 0
    for seed in range(30):
        image, labels, _ = paster.paste(ground, np.random.default_rng(seed))
        np.testing.assert_array_equal(image[..., 0] > 55, labels > 0)
        assert set(np.unique(labels)) <= {0, 1, 2}
        assert (image[labels == 2] >= 190).all()  # edges are softened by the resize alone
        changed += bool(labels.any())
    assert not ground[1].any()  # the arguments are unchanged
    assert 10 < changed < 30


def test_void_is_pasted_over(flat):
    paster = find_paster(flat, most=3)
    ground = View(np.zeros((64, 64, 3), np.uint8), np.full((64, 64), VOID, np.uint8))
    for seed in range(10):
        image, labels, _ = paster.paste(ground, np.random.default_rng(seed))
        assert not image[labels == VOID].any()


def test_rare_classes_are_pasted_more_often(flat):
    fractions = []
    for power in (0.0, 1.0):
        paster = find_paster(flat, most=1, power=power)
        rare = [found.label == 2 for _, found in paster.pool]
        fractions.append(paster.probabilities[rare].sum())
    assert fractions == pytest.approx([1 / 9, 1 / 2])


def test_pasting_depends_on_the_generator_alone(flat):
    paster = find_paster(flat, most=2)
    view = View(*read_sample(flat.samples[0], 3))
    first, second = (paster.paste(view, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])


def test_without_an_object_large_enough_there_is_nothing_to_paste(flat):
    for sample in flat.samples:
        write_mask(sample.mask, np.zeros((60, 80), np.uint8))
    assert find_paster(flat, 2) is None


# batches


def take(n: int, data: DataSet, size: int, start=0, seed=0, weights=None) -> list[Batch]:
    stream = batches(draw_views(data, SMALL, seed, weights), size, start)
    found = list(itertools.islice(stream, n))
    stream.close()
    return found


def test_every_image_comes_once_an_epoch(tmp_path):
    data = data_set(tmp_path, 7)
    found = take(7, data, 3, seed=5)
    assert {batch.images.shape for batch in found} == {(3, 8, 8, 3)}
    images = [int(labels[labels != VOID][0]) for batch in found for labels in batch.labels]
    epochs = [images[i : i + 7] for i in (0, 7, 14)]
    assert all(sorted(order) == list(range(7)) for order in epochs)
    assert len({tuple(order) for order in epochs}) == 3


def test_a_batch_depends_on_seed_and_number_alone(tmp_path):
    data = data_set(tmp_path, 5)
    whole = take(9, data, 4, seed=1)
    for start in (1, 5):
        for once, again in zip(whole[start:], take(9 - start, data, 4, start, 1), strict=True):
            np.testing.assert_array_equal(once.images, again.images)
            np.testing.assert_array_equal(once.labels, again.labels)
    other = take(9, data, 4, seed=2)
    assert any((a.images != b.images).any() for a, b in zip(whole, other, strict=True))


def test_views_of_one_image_differ_between_epochs(tmp_path):
    write_image(
        tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    )
    write_mask(tmp_path / "a.png.png", np.zeros((16, 16), int))
    sample = Sample("a", tmp_path / "a.png", tmp_path / "a.png.png")
    one = DataSet(tmp_path, "train", [sample], CLASSES)
    first, second = take(2, one, 1)
    assert (first.images != second.images).any()


def test_an_unusable_file_is_named_when_its_batch_is_due(tmp_path):
    data = data_set(tmp_path, 4)
    broken = data.samples[2].image
    broken.write_bytes(broken.read_bytes()[:50])
    before = set(threading.enumerate())
    with pytest.raises(ImageError, match=r"2\.png: is broken or cut short"):
        take(4, data, 1)
    assert set(threading.enumerate()) <= before


def test_unknown_ids_are_named_too(tmp_path):
    data = data_set(tmp_path, 4)._replace(classes=CLASSES[:3])
    with pytest.raises(DataError, match=r"3\.png has the ids 3; wanted 0 to 2"):
        take(4, data, 1)


def test_images_are_drawn_in_proportion_to_their_weights(tmp_path):
    data, weights = data_set(tmp_path, 4), np.array([1.0, 0, 3, 0])
    found = take(40, data, 5, weights=weights)
    images = [int(labels[labels != VOID][0]) for batch in found for labels in batch.labels]
    assert set(images) == {0, 2}
    assert 0.65 < np.mean(np.equal(images, 2)) < 0.85
    again = take(2, data, 5, start=38, weights=weights)
    for once, twice in zip(found[38:], again, strict=True):
        np.testing.assert_array_equal(once.images, twice.images)
