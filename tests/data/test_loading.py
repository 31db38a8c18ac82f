"""Batches that are loaded ahead: their order, and errors; `test_crops.py` has more."""

import itertools

import pytest

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
