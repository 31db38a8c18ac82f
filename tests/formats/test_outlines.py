"""Outlines against a plain even-odd fill, areas, and the topology that OpenCV counts."""

import cv2
import numpy as np
import pytest

from unpool.data.shapes import fill_polygon
from unpool.errors import OptionError
from unpool.formats.outlines import area, bridge, simplify, trace


def noise(seed, density=None):
    random = np.random.default_rng(seed)
    size = random.integers(1, 24, 2)
    return random.random(size) < (random.random() if density is None else density)


def regions(mask, connectivity):
    count, found = cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)
    return found.astype(np.int32), count - 1


def fill(rings, shape):
    """By the even-odd rule, over all rings of an object."""
    return np.logical_xor.reduce([fill_polygon(ring.astype(float), *shape) for ring in rings])


def holes(mask, connectivity):
    """The parts of the background that do not reach the border, by OpenCV."""
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    return cv2.connectedComponents(outside, connectivity=connectivity)[0] - 2


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("seed", range(60))
def test_each_object_is_traced_exactly(seed, connectivity):
    mask = noise(seed)
    found, count = regions(mask, connectivity)
    traced = trace(found, connectivity)
    assert len(traced) == count
    for number, rings in enumerate(traced, 1):
        own = found == number
        assert (fill(rings, mask.shape) == own).all()
        assert sum(map(area, rings)) == own.sum()
        assert area(rings[0]) > 0
        assert all(area(ring) < 0 for ring in rings[1:])
        # with 4, a hole that touches the outside or another hole in a point is a hole of its own
        assert len(rings) - 1 == holes(own, 4)
        for ring in rings:
            steps = np.diff(ring, axis=0, append=ring[:1])
            assert ((steps == 0).sum(axis=1) == 1).all(), "pieces along the edges of pixels"
            assert (np.diff(steps[:, 0] == 0, append=steps[:1, 0] == 0) != 0).all(), "turns only"
            if connectivity == 4:
                assert len(np.unique(ring, axis=0)) == len(ring), "no point twice"


def test_several_regions_side_by_side():
    labels = np.random.default_rng(0).integers(1, 4, (12, 15)).astype(np.int32)
    for rings, number in zip(trace(labels, 4), (1, 2, 3), strict=True):
        assert (fill(rings, labels.shape) == (labels == number)).all()


def test_diagonal_pixels():
    mask = np.eye(2, dtype=np.int32)
    [[ring]] = trace(mask, 8)
    assert ring.tolist() == [[0, 0], [1, 0], [1, 1], [2, 1], [2, 2], [1, 2], [1, 1], [0, 1]]
    found, _ = regions(mask.astype(bool), 4)
    first, second = trace(found, 4)
    assert [ring.tolist() for ring in first] == [[[0, 0], [1, 0], [1, 1], [0, 1]]]
    assert [ring.tolist() for ring in second] == [[[1, 1], [2, 1], [2, 2], [1, 2]]]


def test_a_hole_that_opens_in_a_corner():
    """The background in the middle reaches the outside through a point only."""
    mask = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]], np.int32)
    outer, hole = trace(mask, 4)[0]
    assert (area(outer), area(hole)) == (8, -1)
    assert hole.tolist() == [[2, 1], [1, 1], [1, 2], [2, 2]]
    assert (outer == [2, 1]).all(axis=1).sum() == 1, "they touch there"
    assert len(trace(mask, 8)[0]) == 2


@pytest.mark.parametrize("mask", [np.zeros((3, 4)), np.zeros((1, 1))])
def test_nothing(mask):
    assert trace(mask.astype(np.int32)) == []


def test_the_order_is_that_of_the_pixels():
    again = [trace(regions(noise(5, 0.6), 8)[0]) for _ in range(2)]
    for first, second in zip(*again, strict=True):
        assert [ring.tolist() for ring in first] == [ring.tolist() for ring in second]
        for ring in first:
            top = ring[ring[:, 1] == ring[:, 1].min()]
            assert ring[0].tolist() == top[top[:, 0].argmin()].tolist() or area(ring) < 0


@pytest.mark.parametrize("seed", range(60))
def test_a_bridged_outline_is_the_object(seed):
    mask = noise(seed, 0.75)
    found, _ = regions(mask, 8)
    for number, rings in enumerate(trace(found), 1):
        own = found == number
        ring = bridge(rings, own)
        assert (fill_polygon(ring.astype(float), *mask.shape) == own).all()
        assert area(ring) == own.sum()
        # every corner of every ring is there, and the bridges lie within the object
        assert {tuple(p) for r in rings for p in r.tolist()} <= {tuple(p) for p in ring.tolist()}
        steps = np.diff(ring, axis=0, append=ring[:1])
        assert (steps == 0).any(axis=1).all()


def test_many_holes_in_a_row():
    mask = np.ones((3, 4001), bool)
    mask[1, 1::2] = False
    ring = bridge(trace(mask.astype(np.int32))[0], mask)
    assert area(ring) == mask.sum()
    assert (fill_polygon(ring.astype(float), *mask.shape) == mask).all()


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 3.0])
def test_simplified_outlines_keep_their_distance(tolerance):
    y, x = np.mgrid[:200, :300]
    [[ring]] = trace(((x - 150) ** 2 + (y - 100) ** 2 < 80**2).astype(np.int32))
    found = simplify(ring, tolerance)
    assert 3 <= len(found) < len(ring)
    assert {tuple(p) for p in found.tolist()} <= {tuple(p) for p in ring.tolist()}
    after = np.roll(found, -1, axis=0)
    along = after - found
    for corner in ring:
        t = np.clip(((corner - found) * along).sum(1) / (along**2).sum(1), 0, 1)
        assert np.hypot(*(found + t[:, None] * along - corner).T).min() <= tolerance + 1e-4


@pytest.mark.parametrize("radii", [(120, 120), (200, 90)])
def test_a_tolerance_of_one_pixel_keeps_simple_shapes(radii):
    y, x = np.mgrid[:375, :500]
    mask = ((x - 250) / radii[0]) ** 2 + ((y - 180) / radii[1]) ** 2 < 1
    [[ring]] = trace(mask.astype(np.int32))
    found = simplify(ring, 1.0)
    assert len(found) < len(ring) / 7
    drawn = fill_polygon(found.astype(float), *mask.shape)
    assert (drawn & mask).sum() / (drawn | mask).sum() >= 0.995


def test_simplifying_a_pixel_leaves_it():
    [[ring]] = trace(np.ones((1, 1), np.int32))
    assert simplify(ring, 5.0).tolist() == ring.tolist()
    assert simplify(ring, 0.0) is ring
    for tolerance in (-1.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match=f"got tolerance={tolerance}; wanted 0 or more"):
            simplify(ring, tolerance)
