"""Cut polygons into triangles."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unpool.errors import DataError
from unpool.limits import MAX_CUTS
from unpool.rendering.triangles import require_finite

if TYPE_CHECKING:
    from unpool.rendering.triangles import Doubles, Indices

_FLAT = 1e-12  # twice the area of a triangle that counts as none, relative to its polygon's extent
_GUARDED = 5  # corners up to which a fan covers any polygon that does not cross itself
_MOST_FANS = 16  # corners of polygons for which a fan around each corner is tried


def triangulate(corners: "Doubles", sizes: "Indices") -> tuple["Indices", "Indices", int]:
    """Cut polygons into triangles.

    A convex polygon becomes a fan around its first corner. A concave one becomes a fan around
    another corner if that covers it, and otherwise its ears are cut one by one. Holes may be joined
    to the outline by bridge edges, which are passed in both directions.

    Args:
        corners: the corners of all polygons in their order, (K, 3).
        sizes: the number of corners of each, (M,), at least 3.

    Returns:
        The triangles (T, 3) as indices into `corners`, sorted by polygon; the polygon of each (T,);
        and the number of polygons that cross themselves, which have no right triangles.

    Raises:
        DataError: corners are not finite, or cutting all concave polygons would take too long.

    >>> notched = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 0], [2, 1, 0], [0, 4, 0]], float)
    >>> triangulate(notched, np.array([5]))[0].tolist()
    [[3, 4, 0], [3, 0, 1], [3, 1, 2]]
    """
    require_finite(corners)
    order = np.argsort(sizes, kind="stable")
    starts = (np.cumsum(sizes) - sizes)[order]
    counts, firsts = np.unique(sizes[order], return_index=True)
    triangles, owners, crossed, cuts = [np.zeros((0, 3), np.int64)], [order[:0]], 0, 0
    for count, first, last in zip(counts, firsts, [*firsts[1:], len(order)], strict=False):
        index = starts[first:last, None] + np.arange(count)
        flat = _project(corners[index])
        around, found = _fans(flat)
        steps = (around[:, None] + np.arange(count)) % count
        ring = np.take_along_axis(index, steps, axis=1)
        fans = np.stack([ring[:, :1].repeat(count - 2, 1), ring[:, 1:-1], ring[:, 2:]], axis=-1)
        for number in np.flatnonzero(~found):
            ears, work = _cut_ears(flat[number], MAX_CUTS - cuts) if count > _GUARDED else (None, 0)
            if ears is None:
                crossed += 1
            else:
                fans[number] = index[number][ears]
            cuts += work
        triangles.append(fans.reshape(-1, 3))
        owners.append(order[first:last].repeat(count - 2))
    owner = np.concatenate(owners)
    sort = np.argsort(owner, kind="stable")
    return np.concatenate(triangles)[sort], owner[sort], crossed


def _project(polygons: "Doubles") -> "Doubles":
    """Polygons (M, N, 3) in the plane, (M, N, 2), counterclockwise, with an extent of about 1.

    Leaving out the axis nearest to the normal keeps equal points equal.
    """
    polygons = polygons - polygons[:, :1]
    extent = np.abs(polygons).max(axis=(1, 2), keepdims=True)
    polygons /= np.where(extent > 0, extent, 1)
    normal = np.cross(polygons, np.roll(polygons, -1, axis=1)).sum(axis=1)
    axis = np.abs(normal).argmax(axis=1)
    rows = np.arange(len(polygons))
    swap = normal[rows, axis] < 0
    first = np.where(swap, (axis + 2) % 3, (axis + 1) % 3)
    second = np.where(swap, (axis + 1) % 3, (axis + 2) % 3)
    return np.stack([polygons[rows, :, first], polygons[rows, :, second]], axis=-1)


def _fans(flat: "Doubles") -> tuple["Indices", NDArray[np.bool_]]:
    """The corner around which a fan covers each polygon (M,), and whether there is one.

    A fan without clockwise triangles covers a simple polygon exactly, also a concave one: its
    triangles add up to the polygon, so none can lie outside or overlap.
    """
    around, left = np.zeros(len(flat), np.int64), np.arange(len(flat))
    found = np.zeros(len(flat), bool)
    count = flat.shape[1]
    for corner in range(count if count <= _MOST_FANS else 1):
        rays = np.roll(flat[left], -corner, axis=1)
        rays = rays[:, 1:] - rays[:, :1]
        good = (_wedge(rays[:, :-1], rays[:, 1:]) >= -_FLAT).all(axis=1)
        around[left[good]], found[left[good]] = corner, True
        left = left[~good]
        if not len(left):
            break
    return around, found


def _cut_ears(flat: "Doubles", most: int) -> tuple["Indices | None", int]:
    """Triangles of one polygon (N, 2), and the work; None if it crosses itself.

    An ear is a convex corner whose triangle has no other point of the outline, and whose third
    side crosses no edge. Points at the same place as its corners are those of bridge edges.
    """
    left, at, work = np.arange(len(flat)), 0, 0
    ears: list[tuple[int, int, int]] = []
    while len(left) > 3:
        here = flat[left]
        before, after = np.roll(here, 1, axis=0), np.roll(here, -1, axis=0)
        turns = _wedge(here - before, after - here)
        candidates = np.flatnonzero(turns > _FLAT)
        candidates = np.roll(candidates, -np.searchsorted(candidates, at))
        ear = -1
        for corner in candidates:
            work += 1 + len(left) // 500
            if work > most:
                raise DataError("has too many large concave faces; export it with triangles")
            if _is_ear(before[corner], here[corner], after[corner], here, after):
                ear = int(corner)
                break
        if ear < 0:  # a corner without area, which bridge edges leave, or else any convex one
            ear = int(np.abs(turns).argmin())
            if abs(turns[ear]) > _FLAT and len(candidates):
                ear = int(candidates[0])
        count = len(left)
        ears.append((left[ear - 1], left[ear], left[(ear + 1) % count]))
        left = np.delete(left, ear)
        at = ear % len(left)
    ears.append((left[0], left[1], left[2]))
    found = np.array(ears)
    a, b, c = (flat[found[:, i]] for i in range(3))
    area = _wedge(flat, np.roll(flat, -1, axis=0)).sum()
    covered = np.abs(_wedge(b - a, c - a)).sum()
    return (found if abs(covered - area) <= 1e-6 * area + 1e-9 else None), work


def _is_ear(a: "Doubles", b: "Doubles", c: "Doubles", starts: "Doubles", ends: "Doubles") -> bool:
    """Whether no other point is in a triangle, and no edge crosses its side from c to a."""
    sides = [_wedge(q - p, starts - p) for p, q in ((a, b), (b, c), (c, a))]
    inside = (sides[0] >= 0) & (sides[1] >= 0) & (sides[2] >= 0)
    if inside.any():
        others = starts[inside]
        if not ((others == a).all(1) | (others == b).all(1) | (others == c).all(1)).all():
            return False
    beyond = np.roll(sides[2], -1)  # the ends of the edges
    apart = (sides[2] > _FLAT) & (beyond < -_FLAT) | (sides[2] < -_FLAT) & (beyond > _FLAT)
    if not apart.any():
        return True
    starts, edges = starts[apart], ends[apart] - starts[apart]
    cuts = _wedge(edges, a - starts) * _wedge(edges, c - starts)
    return not bool((cuts < -(_FLAT**2)).any())


def _wedge(a: "Doubles", b: "Doubles") -> "Doubles":
    """Twice the signed area between vectors (..., 2)."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
