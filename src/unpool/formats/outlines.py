"""Outlines of objects along the edges of pixels, so that a polygon has exactly the object's area.

Pixel (0, 0) extends from 0 to 1, so corners are whole numbers. (OpenCV's contours run through the
centers of pixels, and are half a pixel too small all around.) A ring has the object on its right
hand: with y downwards, outer rings run clockwise and holes counterclockwise; it begins at the left
end of its highest edge, and has a point at each turn only.

Where an object touches itself at a corner of pixels only, connectivity decides:

- 8: the object is one there. An object has one outer ring, which may pass through a point twice.
- 4: the parts are apart. Rings pass through no point twice, but may touch each other in points, as
  the polygons of geographic formats may.

By the even-odd rule, both give exactly the pixels of the object.
"""

import math
from collections import defaultdict
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from unpool.errors import OptionError

Mask = NDArray[np.bool_]
Ring = NDArray[np.int64]
"""The corners of an outline, (P, 2) x, y; the last is joined to the first."""

_NORMALS = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""To the outside of the upper, right, lower and left side of a pixel: row and column."""

_FORWARD = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Along these sides, with the pixel on the right hand."""

_FROM = ((0, 0), (0, 1), (1, 1), (1, 0))
"""The corner of the pixel where each side starts: row and column."""


def trace(regions: NDArray[np.int32], connectivity: int = 8) -> list[list[Ring]]:
    """The rings of each region: its outer ring, and then its holes.

    Args:
        regions: (H, W) the number of the region of each pixel, from 1; 0 for none. Each region is
            connected by `connectivity`.
        connectivity: 4 or 8, see the module.

    Returns:
        The rings of regions 1, 2 ..., a list for each.

    >>> region = np.ones((3, 3), np.int32)
    >>> region[1, 1] = 0
    >>> [ring.tolist() for ring in trace(region)[0]]
    [[[0, 0], [3, 0], [3, 3], [0, 3]], [[1, 2], [2, 2], [2, 1], [1, 1]]]
    """
    edges = _edges(regions, connectivity)
    order, starts = _cycles(edges.following)
    rings: list[list[Ring]] = [[] for _ in range(int(regions.max(initial=0)))]
    points = edges.points[order]
    owners = edges.owners[order[starts]] - 1
    crossed = _crossing(points, starts, regions.shape) if connectivity == 4 else set[int]()
    ends = np.append(starts[1:], len(points))
    pieces = zip(owners.tolist(), starts.tolist(), ends.tolist(), strict=False)
    for i, (owner, start, end) in enumerate(pieces):
        ring = points[start:end]
        rings[owner].extend(_simple(ring) if i in crossed else [ring])
    return rings


def simplify(ring: NDArray[Any], tolerance: float) -> NDArray[Any]:
    """The ring with fewer corners, by Douglas and Peucker.

    Corners that are left out are at most `tolerance` pixels from the new outline. Neighboring
    objects are simplified one by one, so they may then overlap or leave gaps.

    Raises:
        OptionError: the tolerance is negative or not finite.

    >>> stairs = np.array([[0, 0], [9, 0], [9, 5], [8, 5], [8, 6], [7, 6], [7, 7], [0, 7]])
    >>> len(simplify(stairs, 0)), len(simplify(stairs, 1.0))
    (8, 5)
    """
    require_tolerance(tolerance)
    if not tolerance:
        return ring
    found = cv2.approxPolyDP(ring.astype(np.float32)[:, None], tolerance, True)[:, 0]
    return found.astype(ring.dtype) if len(found) > 2 else ring


def require_tolerance(tolerance: float) -> None:
    """Refuse a tolerance that is no number of pixels."""
    if not 0 <= tolerance < math.inf:
        raise OptionError(f"got tolerance={tolerance}; wanted 0 or more pixels, a finite number")


def bridge(rings: list[Ring], mask: Mask) -> Ring:
    """The rings of an object as one, for formats without holes.

    Each hole is joined to the ring on its left by a horizontal line, there and back. The line has
    no area and crosses no center of a pixel, so that area and pixels stay the same.

    Args:
        rings: as from `trace`, of connectivity 8.
        mask: (H, W) the pixels of the object.

    >>> region = np.ones((3, 3), np.int32)
    >>> region[1, 1] = 0
    >>> bridge(trace(region)[0], region == 1).tolist()[4:]
    [[0, 1], [1, 1], [1, 2], [2, 2], [2, 1], [1, 1], [0, 1]]
    """
    if len(rings) == 1:
        return rings[0]
    after = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    points, lengths = np.concatenate(rings), [len(ring) for ring in rings]
    offsets = np.cumsum([0, *lengths])
    upward = np.flatnonzero((points[:, 0] == after[:, 0]) & (after[:, 1] < points[:, 1]))
    upward = upward[np.argsort(points[upward, 0], kind="stable")]
    column, low, high = points[upward, 0], after[upward, 1], points[upward, 1]
    joints: dict[int, list[tuple[int, int]]] = defaultdict(list)
    corners = [0]  # where each ring is entered
    for i, hole in enumerate(rings[1:], 1):
        corners.append(int(np.lexsort(hole.T[::-1])[0]))  # the left end of the hole, its top
        x, y = hole[corners[i]].tolist()
        outside = np.flatnonzero(~mask[y, :x])
        left = outside[-1] + 1 if len(outside) else 0
        first, last = np.searchsorted(column, [left, left + 1])
        hit = first + np.flatnonzero((low[first:last] <= y) & (y < high[first:last]))[0]
        joints[int(upward[hit])].append((-y, i))
    joined: dict[int, list[list[int]]] = {}
    # a hole is joined to a ring that begins further left, so it is complete before that one
    for i in sorted(range(len(rings)), key=lambda i: -int(rings[i][:, 0].min())):
        if i:
            joined[i] = _joined(rings[i], int(offsets[i]), joints, joined, corners[i])
    return np.array(_joined(rings[0], 0, joints, joined, 0))


def _joined(
    ring: Ring,
    offset: int,
    joints: dict[int, list[tuple[int, int]]],
    joined: dict[int, list[list[int]]],
    first: int,
) -> list[list[int]]:
    """The points of a ring from `first` on, with the rings that are joined to its edges."""
    found: list[list[int]] = []
    points = ring.tolist()
    for at in [*range(first, len(points)), *range(first)]:
        found.append(points[at])
        for y, i in sorted(joints.get(offset + at, [])):  # from below to above
            found += [[points[at][0], -y], *joined[i], joined[i][0], [points[at][0], -y]]
    return found


class _Edges(NamedTuple):
    """The straight pieces of all outlines."""

    points: Ring  #: (E, 2) where each starts
    owners: NDArray[np.int32]  #: (E,) its region
    following: NDArray[np.int64]  #: (E,) the piece that follows


def _edges(regions: NDArray[np.int32], connectivity: int) -> _Edges:
    """The pieces on the upper sides of pixels, on the right, lower and left sides."""
    height, width = regions.shape
    padded = np.pad(regions, 1)

    def moved(array: NDArray[Any], offset: tuple[int, int]) -> NDArray[Any]:
        """The value beside each pixel of the image."""
        return array[1 + offset[0] : 1 + offset[0] + height, 1 + offset[1] : 1 + offset[1] + width]

    def key(side: int, row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pixels in the order in which a line along a side meets them."""
        return column * height + row if side % 2 else row * width + column

    keys: list[NDArray[np.int64]] = []
    ends: list[NDArray[np.int64]] = []
    for normal, (down, right) in zip(_NORMALS, _FORWARD, strict=True):
        border = np.zeros(padded.shape, np.bool_)
        inner = moved(border, (0, 0))
        np.not_equal(regions, moved(padded, normal), out=inner)
        inner &= regions > 0
        for found, ahead in ((keys, (-down, -right)), (ends, (down, right))):
            goes_on = moved(border, ahead) & (moved(padded, ahead) == regions)
            last = inner & ~goes_on
            found.append(np.flatnonzero(last.T if down else last))
    offsets = np.cumsum([0, *map(len, keys)])
    points, owners, following = [], [], []
    for side, ((up, out), (down, right)) in enumerate(zip(_NORMALS, _FORWARD, strict=True)):
        row, column = _place(keys[side], side, regions.shape)
        points.append(np.stack([column + _FROM[side][1], row + _FROM[side][0]], axis=1))
        owner = regions[row, column]
        owners.append(owner)
        row, column = _place(ends[side], side, regions.shape)
        turned = padded[row + 1 + down + up, column + 1 + right + out] == owner
        if connectivity == 4:  # a pixel ahead on the left belongs to it only if the one ahead does
            turned &= padded[row + 1 + down, column + 1 + right] == owner
        before, behind = (side - 1) % 4, (side + 1) % 4
        to_left = key(before, row + down + up, column + right + out)
        to_right = key(behind, row, column)
        following.append(
            np.where(
                turned,
                offsets[before] + np.searchsorted(keys[before], to_left),
                offsets[behind] + np.searchsorted(keys[behind], to_right),
            )
        )
    return _Edges(np.concatenate(points), np.concatenate(owners), np.concatenate(following))


def _place(
    keys: NDArray[np.int64], side: int, shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows and columns of the keys of a side."""
    if side % 2:
        column, row = np.divmod(keys, shape[0])
        return row, column
    row, column = np.divmod(keys, shape[1])
    return row, column


def _cycles(following: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A permutation as cycles: their elements one after the other, and where each cycle starts."""
    successors, waiting = following.tolist(), bytearray(b"\x01") * len(following)
    order: list[int] = []
    starts: list[int] = []
    for first in range(len(successors)):
        if waiting[first]:
            starts.append(len(order))
            at = first
            while waiting[at]:
                waiting[at] = 0
                order.append(at)
                at = successors[at]
    return np.array(order, np.int64), np.array(starts, np.int64)


def _crossing(points: Ring, starts: NDArray[np.int64], shape: tuple[int, ...]) -> set[int]:
    """The rings that pass through a point twice."""
    ring = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(points)))
    place = points[:, 1] * (shape[1] + 1) + points[:, 0]
    order = np.lexsort((place, ring))
    ring, place = ring[order], place[order]
    twice = (ring[1:] == ring[:-1]) & (place[1:] == place[:-1])
    return set(ring[1:][twice].tolist())


def _simple(ring: Ring) -> list[Ring]:
    """A ring cut where it passes through a point again: the outer part, if any, comes first."""
    parts: list[list[tuple[int, int]]] = []
    kept: list[tuple[int, int]] = []
    places: dict[tuple[int, int], int] = {}
    for point in map(tuple, ring.tolist()):
        if point in places:
            at = places[point]
            parts.append(kept[at:])
            for passed in kept[at + 1 :]:
                del places[passed]
            del kept[at + 1 :]
        else:
            places[point] = len(kept)
            kept.append(point)
    found = [np.array(part) for part in [*parts, kept]]
    return sorted(found, key=lambda part: area(part) < 0)


def area(ring: NDArray[Any]) -> float:
    """The area that a ring encloses, in square pixels; negative for a hole.

    >>> area(np.array([[0, 0], [3, 0], [3, 2], [0, 2]]))
    6.0
    """
    x, y = ring.T.astype(np.float64)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)
