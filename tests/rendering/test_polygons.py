"""Triangles of polygons: they cover them exactly, by the shoelace formula."""

import numpy as np
import pytest

from unpool.errors import DataError
from unpool.rendering import polygons
from unpool.rendering.polygons import triangulate

SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]
HOLE = [(3, 3), (3, 7), (7, 7), (7, 3)]
RING = [*SQUARE, SQUARE[0], HOLE[0], *HOLE[1:], HOLE[0]]  # a bridge from the first corners
BESIDE = [(0, 0), (5, 0), (5, 4), (4, 6), (6, 6), (5, 4), (5, 0), (10, 0), (10, 10), (0, 10)]
COMB = [(0, 0), (9, 0), (9, 5), (8, 1), (7, 5), (6, 1), (5, 5), (4, 1), (3, 5), (2, 1), (0, 5)]


def spiral(turns):
    angles = np.linspace(0, 2 * np.pi * turns, 24 * turns)
    outside = np.stack([np.cos(angles), np.sin(angles)], -1) * (2 + angles[:, None])
    return np.concatenate([outside, (outside * (1 - 1 / (4 + angles[:, None])))[::-1]])


def shoelace(polygon):
    x, y = np.asarray(polygon, float).T
    return (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2


def areas(points, triangles):
    a, b, c = np.moveaxis(points[triangles], 1, 0)
    return np.cross(b - a, c - a) / 2


def lift(polygon, turn=((0.36, 0.48, -0.8), (-0.8, 0.6, 0), (0.48, 0.64, 0.6))):
    """A plane polygon somewhere in space."""
    return np.column_stack([polygon, np.zeros(len(polygon))]) @ np.array(turn) + [5, -3, 2]


@pytest.mark.parametrize("polygon", [SQUARE, RING, BESIDE, COMB, spiral(3)], ids=len)
@pytest.mark.parametrize("backwards", [False, True])
def test_triangles_cover_a_polygon(polygon, backwards):
    polygon = np.array(polygon, float)[:: -1 if backwards else 1]
    for first in range(0, len(polygon), 1 + len(polygon) // 12):
        points = lift(np.roll(polygon, -first, axis=0))
        triangles, owner, crossed = triangulate(points, np.array([len(points)]))
        assert triangles.shape == (len(points) - 2, 3)
        assert not crossed
        assert not owner.any()
        found = areas(points, triangles)
        total = found.sum(axis=0)
        assert np.linalg.norm(total) == pytest.approx(abs(shoelace(polygon)), rel=1e-9)
        # all to one side: none lies outside, or over another
        assert np.linalg.norm(found, axis=1).sum() == pytest.approx(np.linalg.norm(total))


def test_the_hole_stays_open():
    points = np.column_stack([RING, np.zeros(len(RING))])
    triangles, _, _ = triangulate(points, np.array([len(RING)]))
    middles = points[triangles].mean(axis=1)[:, :2]
    assert not ((middles > 3) & (middles < 7)).all(axis=1).any()


def test_random_polygons_around_a_point_are_covered():
    rng = np.random.default_rng(0)
    sizes = rng.integers(3, 30, 60)
    rings = [
        np.stack([np.cos(a), np.sin(a)], -1) * rng.uniform(0.1, 2, (len(a), 1))
        for a in (np.sort(rng.uniform(0, 2 * np.pi, size)) for size in sizes)
    ]
    gaps = [np.diff([*np.arctan2(*r.T[::-1]) % (2 * np.pi)], append=7).max() for r in rings]
    rings = [ring for ring, gap in zip(rings, gaps, strict=True) if gap < np.pi] or rings
    points = np.concatenate([lift(ring) for ring in rings])
    triangles, owner, _ = triangulate(points, np.array([len(ring) for ring in rings]))
    assert (np.diff(owner) >= 0).all()
    for number, ring in enumerate(rings):
        found = np.linalg.norm(areas(points, triangles[owner == number]), axis=1).sum()
        assert found == pytest.approx(abs(shoelace(ring)), rel=1e-9)


def test_convex_polygons_are_fans_around_their_first_corner():
    angles = np.arange(7) / 7 * 2 * np.pi
    points = lift(np.stack([np.cos(angles), np.sin(angles)], -1))
    triangles, _, _ = triangulate(points, np.array([7]))
    assert triangles.tolist() == [[0, i, i + 1] for i in range(1, 6)]


def test_polygons_that_cross_themselves_are_counted():
    bow = [(0, 0), (2, 2), (2, 0), (0, 1.5)]
    eight = [(0, 0), (4, 4), (5, 3), (5, 0), (0, 4), (-1, 2)]
    points = np.concatenate([lift(np.array(bow, float)), lift(np.array(eight, float))])
    triangles, owner, crossed = triangulate(points, np.array([4, 6]))
    assert crossed == 2
    assert owner.tolist() == [0] * 2 + [1] * 4
    assert triangles.tolist()[:2] == [[0, 1, 2], [0, 2, 3]]


def test_polygons_without_an_area_are_no_error():
    line = np.zeros((8, 3))
    line[:, 0] = np.arange(8)
    assert len(triangulate(line, np.array([8]))[0]) == 6
    assert len(triangulate(line[:0], np.array([], int))[0]) == 0


def test_the_work_is_bounded(monkeypatch):
    monkeypatch.setattr(polygons, "MAX_CUTS", 20)
    with pytest.raises(DataError, match="too many large concave faces; export it with triangles"):
        triangulate(lift(spiral(2)), np.array([len(spiral(2))]))
