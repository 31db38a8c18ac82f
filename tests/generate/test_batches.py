"""Which views are learned, in which order, and how they are changed."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.generate.test_train import TINY, some_views
from unpool.generate import batches as module
from unpool.generate.batches import view_batches
from unpool.generate.transformations import spread_at
from unpool.recipes.generate import CHAIRS


def test_the_default_holds_out_every_fifth_azimuth():
    assert CHAIRS.held_out == tuple(range(4, 31, 5))


def test_lessons_cover_all_that_is_learned():
    views, learned = some_views(6), np.array([0, 2, 4, 5])
    stream = view_batches(views, learned, dataclasses.replace(TINY, batch=4), 4)
    for _ in range(3):
        part = next(stream).views
        assert sorted(part.azimuths) == sorted(views.azimuths[learned])


def test_lessons_depend_on_their_number_alone():
    views, learned = some_views(6), np.arange(6)
    stream = view_batches(views, learned, TINY, 4)
    first = [next(stream) for _ in range(5)]
    later = next(view_batches(views, learned, TINY, 4, start=4))
    assert torch.equal(later.vectors, first[4].vectors)
    assert np.array_equal(later.views.images, first[4].views.images)
    assert not torch.equal(first[3].vectors, first[4].vectors)


@pytest.mark.parametrize("size", [1, 2])
def test_parts_are_together_what_a_whole_batch_is(size, monkeypatch):
    """Passed one after the other, and shared by two processes."""
    views, learned = some_views(6), np.arange(6)
    whole = view_batches(views, learned, TINY, 4)
    monkeypatch.setattr(module.distributed, "world", lambda: 2)
    ranks = []
    for rank in range(2):
        monkeypatch.setattr(module.distributed, "rank", lambda rank=rank: rank)
        ranks.append(view_batches(views, learned, TINY, size))
        ranks[-1] = [next(ranks[-1]) for _ in range(3 * 4 // size // 2)]
    monkeypatch.undo()
    parts = [part for both in zip(*ranks, strict=True) for part in both]
    for _ in range(3):
        some, parts = parts[: 4 // size], parts[4 // size :]
        wanted = next(whole)
        assert torch.equal(torch.cat([p.vectors for p in some]), wanted.vectors)
        found = np.concatenate([p.views.images for p in some])
        assert np.array_equal(found, wanted.views.images)


def test_spread_grows_and_some_stay_plain():
    recipe = dataclasses.replace(TINY, batch=64, plain=0.5, inside=False, gamma=0.05)
    stream = view_batches(some_views(6), np.arange(6), recipe, 64)
    for step in range(40):
        vectors = next(stream).vectors
        most = 1.5 * spread_at(step, 0.0, 1.0, 0.05)
        assert float(vectors.abs().max()) <= most + 1e-6
    assert float(vectors.abs().max()) > 0.8 * most
    assert 15 < int((~vectors.any(1)).sum()) < 50
