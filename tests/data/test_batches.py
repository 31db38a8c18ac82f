import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

from unpool.data import VOID, DataSet, Sample
from unpool.data.batches import Batch, batches
from unpool.data.crops import Views, draw_views
from unpool.errors import DataError, ImageError
from unpool.vision.images import write_image, write_mask

CLASSES = ["background", *(f"class {i}" for i in range(1, 8))]
SMALL = Views(side=8, long_side=(8, 16))


def data_set(root: Path, count: int) -> DataSet:
    """Images of one color: that of number i is i in red, and its mask i."""
    samples = []
    for i in range(count):
        sample = Sample(str(i), root / f"images/{i}.png", root / f"masks/{i}.png")
        write_image(sample.image, np.full((9, 12 - i, 3), i, np.uint8))
        write_mask(sample.mask, np.full((9, 12 - i), i))
        samples.append(sample)
    return DataSet(root, "train", samples, CLASSES)


def take(n: int, data: DataSet, size: int, start=0, seed=0, weights=None) -> list[Batch]:
    stream = batches(draw_views(data, SMALL, seed, weights), size, start)
    found = list(itertools.islice(stream, n))
    stream.close()
    return found


def test_every_image_comes_once_in_each_round(tmp_path):
    data = data_set(tmp_path, 7)
    found = take(7, data, 3, seed=5)
    assert {batch.images.shape for batch in found} == {(3, 8, 8, 3)}
    images = [int(labels[labels != VOID][0]) for batch in found for labels in batch.labels]
    rounds = [images[i : i + 7] for i in (0, 7, 14)]
    assert all(sorted(order) == list(range(7)) for order in rounds)
    assert len({tuple(order) for order in rounds}) == 3


def test_a_batch_depends_on_seed_and_number_alone(tmp_path):
    data = data_set(tmp_path, 5)
    whole = take(9, data, 4, seed=1)
    for start in (1, 5):
        for once, again in zip(whole[start:], take(9 - start, data, 4, start, 1), strict=True):
            np.testing.assert_array_equal(once.images, again.images)
            np.testing.assert_array_equal(once.labels, again.labels)
    other = take(9, data, 4, seed=2)
    assert any((a.images != b.images).any() for a, b in zip(whole, other, strict=True))


def test_views_of_one_image_differ_from_round_to_round(tmp_path):
    write_image(
        tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    )
    write_mask(tmp_path / "a.png.png", np.zeros((16, 16), int))
    sample = Sample("a", tmp_path / "a.png", tmp_path / "a.png.png")
    one = DataSet(tmp_path, "train", [sample], CLASSES)
    first, second = take(2, one, 1)
    assert (first.images != second.images).any()


def test_an_unusable_file_is_named_when_its_turn_comes(tmp_path):
    data = data_set(tmp_path, 4)
    broken = data.samples[2].image
    broken.write_bytes(broken.read_bytes()[:50])
    before = set(threading.enumerate())
    with pytest.raises(ImageError, match=r"2\.png: is broken or cut short"):
        take(4, data, 1)
    assert set(threading.enumerate()) <= before


def test_ids_of_no_class_are_named_too(tmp_path):
    data = data_set(tmp_path, 4)._replace(classes=CLASSES[:3])
    with pytest.raises(DataError, match=r"3\.png has the ids 3; wanted 0 to 2"):
        take(4, data, 1)


def test_a_stream_that_is_closed_or_dropped_leaves_no_thread(tmp_path):
    data = data_set(tmp_path, 3)
    before = set(threading.enumerate())
    stream = batches(draw_views(data, SMALL), 2)
    next(stream)
    assert set(threading.enumerate()) - before
    stream.close()
    assert set(threading.enumerate()) <= before
    next(batches(draw_views(data, SMALL), 2))
    assert set(threading.enumerate()) <= before


def test_a_worker_may_be_the_one_that_drops_the_stream():
    """As the garbage collector can, where an error keeps the stream in a circle of references."""
    streams, errors, dropped = [], [], threading.Event()
    ready = threading.Event()

    def draw(place: int):
        if place == 1:
            assert ready.wait(60)
            try:
                streams.pop().close()
            except RuntimeError as error:
                errors.append(error)
            dropped.set()
        return np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)

    before = set(threading.enumerate())
    streams.append(batches(draw, 1))
    next(streams[0])
    workers = set(threading.enumerate()) - before
    ready.set()
    assert dropped.wait(60)
    assert errors == []
    for worker in workers:
        worker.join(60)
    assert set(threading.enumerate()) <= before


def test_images_are_drawn_as_often_as_they_weigh(tmp_path):
    data, weights = data_set(tmp_path, 4), np.array([1.0, 0, 3, 0])
    found = take(40, data, 5, weights=weights)
    images = [int(labels[labels != VOID][0]) for batch in found for labels in batch.labels]
    assert set(images) == {0, 2}
    assert 0.65 < np.mean(np.equal(images, 2)) < 0.85
    again = take(2, data, 5, start=38, weights=weights)
    for once, twice in zip(found[38:], again, strict=True):
        np.testing.assert_array_equal(once.images, twice.images)


def test_processes_share_the_batches():
    def draw(place: int):
        return np.full((2, 2, 3), place, np.uint8), np.full((2, 2), place, np.uint8)

    streams = [batches(draw, 3, 4, rank, 2) for rank in (0, 1)]
    found = [next(stream).labels[:, 0, 0] for _ in range(2) for stream in streams]
    assert np.concatenate(found).tolist() == list(range(12, 24))
    for stream in streams:
        stream.close()
