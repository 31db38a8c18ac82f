"""Batches that are loaded ahead: their order, errors, and threads."""

import itertools
import threading

import numpy as np
import pytest

from tests.data.test_crops import SMALL, data_set
from unpool.data.crops import View, batches, draw_views
from unpool.data.loading import load_ahead
from unpool.errors import DataError


@pytest.mark.parametrize("world", [1, 3])
def test_processes_take_turns(world):
    streams = [load_ahead(str, 4, rank, world) for rank in range(world)]
    found = [next(streams[n % world]) for n in range(9)]
    assert found == [str(n) for n in range(4, 13)]


def test_an_error_comes_when_its_batch_is_due():
    def make(n):
        if n == 2:
            raise DataError("damaged")
        return n

    stream = load_ahead(make)
    assert list(itertools.islice(stream, 2)) == [0, 1]
    with pytest.raises(DataError, match="damaged"):
        next(stream)


def test_a_closed_or_dropped_stream_leaves_no_thread(tmp_path):
    data = data_set(tmp_path, 3)
    before = set(threading.enumerate())
    stream = batches(draw_views(data, SMALL), 2)
    next(stream)
    assert set(threading.enumerate()) - before
    stream.close()
    assert set(threading.enumerate()) <= before
    next(batches(draw_views(data, SMALL), 2))
    assert set(threading.enumerate()) <= before


def test_a_worker_may_close_the_stream():
    """As the garbage collector does when an error keeps the stream in a reference cycle."""
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
        return View(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8))

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


def test_processes_share_the_batches():
    def draw(place: int):
        return View(np.full((2, 2, 3), place, np.uint8), np.full((2, 2), place, np.uint8))

    streams = [batches(draw, 3, 4, rank, 2) for rank in (0, 1)]
    found = [next(stream).labels[:, 0, 0] for _ in range(2) for stream in streams]
    assert np.concatenate(found).tolist() == list(range(12, 24))
    for stream in streams:
        stream.close()
