"""The cells of a permutohedral lattice by a hash table, and the chains along which it is blurred.

The lattice is that of `unpool.ops.lattice`, which explains simplices, keys and steps. Here a key
holds its digits in bit fields, the first digit on top. A step along direction j adds 1 to digit j
and subtracts 1 from digit j - 1. So the first two directions change only the first two digits, and
the others keep the first digit: cells form *groups* in which several directions can be blurred one
after the other while the group is in the cache.

A *chain* is a sequence of neighbors along one direction. Cells without neighbors are in none.
"""

import numpy as np
from numpy.typing import NDArray

from unpool.ops.compiled.kernels import Floats, Ints, Positions, jit

Longs = NDArray[np.int64]

BLOCK = 256
"""Points processed at a time."""

GROUP = 2**11
"""The smallest number of cells in a group."""

GOLDEN = np.int64(-0x61C8864680B583EB)
"""2**64 divided by the golden ratio (Fibonacci hashing)."""


@jit
def number(
    features: Floats, scales: Floats, order: Positions, steps: Longs, index: Ints, weight: Floats
) -> Longs:
    """Find the cells around each point and number them in order of first use; returns their keys.

    Args:
        features: (N, d).
        scales: (d,), factors of the features.
        order: (N,), the order in which points are visited.
        steps: (d + 2,): the key increment of each direction, and the key of the origin.
        index: (N, d + 1), filled with cells.
        weight: (N, d + 1), filled with their barycentric weights.
    """
    d = features.shape[1]
    key, moves = np.empty(BLOCK, np.int64), np.empty((BLOCK, d + 1), np.int64)
    scratch = np.empty((6, d + 1, BLOCK), np.float32)
    table, keys = _grown(np.empty(0, np.int64))
    cells = 0
    for start in range(0, len(order), BLOCK):
        pixels = order[start : start + BLOCK]
        _simplices(features, scales, pixels, steps, scratch, key, moves, weight[start:])
        for p in range(len(pixels)):
            # before a point and not within it, as slots change their places
            if cells + d + 1 > len(keys):
                table, keys = _grown(keys[:cells])
            vertex = key[p]
            for k in range(d + 1):
                slot = _find(table, keys, vertex)
                if table[slot] < 0:
                    table[slot], keys[cells] = cells, vertex
                    cells += 1
                index[start + p, k] = table[slot]
                vertex -= moves[p, k]
    return keys[:cells].copy()


@jit
def _simplices(
    features: Floats,
    scales: Floats,
    pixels: Positions,
    steps: Longs,
    scratch: Floats,
    key: Longs,
    moves: Longs,
    weight: Floats,
) -> None:
    """The simplices around some points, as in `unpool.ops.lattice`: the keys of their first
    vertices, the steps from each vertex to the next, and the weights. Integers are kept as floats,
    which vectorize better, as long as possible."""
    n, d = len(pixels), features.shape[1]
    x, level, rest, rank, ordered = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    turn = scratch[5, 0]
    unit, part, one = np.float32(d + 1), np.float32(1 / (d + 1)), np.float32(1)
    for p in range(n):
        x[0, p], turn[p], key[p] = 0, 0, steps[d + 1]
    for j in range(d, 0, -1):
        times = np.float32(j)
        for p in range(n):
            feature = features[pixels[p], j - 1] * scales[j - 1]
            x[j, p] = x[0, p] - times * feature
            x[0, p] += feature
    for j in range(d + 1):
        for p in range(n):
            near = np.rint(x[j, p] * part)  # halves to even, as in unpool.ops.lattice
            level[j, p], rest[j, p], rank[j, p] = near, x[j, p] - near * unit, 0
            turn[p] += near
    for i in range(d):
        for j in range(i + 1, d + 1):
            for p in range(n):
                less = np.float32(rest[i, p] < rest[j, p])
                rank[i, p] += less
                rank[j, p] += one - less
    for j in range(d + 1):
        for p in range(n):
            r = rank[j, p] + turn[p]
            up = np.float32(r < 0) - np.float32(r > unit - one)
            near = level[j, p] + up
            rank[j, p], rest[j, p] = r + up * unit, (x[j, p] - near * unit) * part
            key[p] += np.int64(near) * steps[j]
    for p in range(n):
        for j in range(d + 1):
            k = d - np.int64(rank[j, p])
            ordered[k, p], moves[p, k] = rest[j, p], steps[j]
        weight[p, 0] = ordered[0, p] + (one - ordered[d, p])
        for k in range(1, d + 1):
            weight[p, k] = ordered[k, p] - ordered[k - 1, p]


@jit
def _find(table: Ints, keys: Longs, key: np.int64) -> np.int64:
    """The slot of a key, or the empty slot to put it in."""
    mask = len(table) - 1
    spread = key * GOLDEN
    # only the upper bits of the product depend on all bits of the key
    slot = (spread ^ spread >> 32) & mask
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = (slot + 1) & mask
    return slot


@jit
def _grown(keys: Longs) -> tuple[Ints, Longs]:
    """A hash table of the keys, and the keys in an array with room for as many more."""
    # a table that is at least half empty keeps searches short
    room = 2**13
    while room < 2 * len(keys):
        room *= 2
    table, more = np.full(2 * room, -1, np.int32), np.empty(room, np.int64)
    for cell in range(len(keys)):
        more[cell] = keys[cell]
        table[_find(table, more, keys[cell])] = cell
    return table, more


@jit
def sort(keys: Longs, low: int, high: int) -> tuple[Ints, Ints]:
    """The cells sorted by the lower bits of their keys, and sorted by all bits."""
    order = np.arange(len(keys), dtype=np.int32)
    # 11 bits at a time: 2,048 counters fit into the first cache
    for shift in range(0, low, 11):
        order = _sorted(keys, order, shift, min(11, low - shift))
    inner = order
    for shift in range(low, high, 11):
        order = _sorted(keys, order, shift, min(11, high - shift))
    return inner, order


@jit
def _sorted(keys: Longs, order: Ints, shift: int, bits: int) -> Ints:
    """One pass of a stable radix sort."""
    mask = (1 << bits) - 1
    position = np.zeros(mask + 2, np.int64)
    for key in keys:
        position[(key >> shift & mask) + 1] += 1
    for i in range(mask):
        position[i + 1] += position[i]
    found = np.empty_like(order)
    for cell in order:
        i = keys[cell] >> shift & mask
        found[position[i]] = cell
        position[i] += 1
    return found


@jit
def renumber(keys: Longs, inner: Ints, order: Ints, index: Ints) -> tuple[Longs, Ints]:
    """Renumber the cells in the given order, also in `index`; returns the new keys and `inner`."""
    new, found = np.empty_like(order), np.empty_like(keys)
    for i in range(len(order)):
        new[order[i]] = i
        found[i] = keys[order[i]]
    cells = index.ravel()
    for i in range(len(cells)):
        cells[i] = new[cells[i]]
    return found, new[inner]


@jit
def chains(keys: Longs, inner: Ints, steps: Longs, low: int, second: int) -> tuple[Ints, Longs]:
    """The chains of all directions, for `kernels.blur`.

    Args:
        keys: the keys of the cells, sorted.
        inner: the cells, sorted by the lower bits of their keys.
        steps: as in `number`.
        low: the number of bits below the first digit.
        second: the number of bits of the second digit, at the bottom.
    """
    cells, directions = len(keys), len(steps) - 1
    following = np.empty((directions, cells), np.int32)
    begins = np.empty((directions, cells + 1), np.bool_)
    for j in range(directions):
        _neighbors(keys, steps[j], following[j], begins[j])
    chain = np.empty(cells * directions + 1, np.int32)
    bounds = np.zeros(2 * directions * (cells // GROUP + 2), np.int64)
    parts = 0
    outer = np.arange(cells, dtype=np.int32)
    for first, last, order, mask, shift in (
        (0, 2, inner, (1 << low) - 1, second),
        (2, directions, outer, -1, low),
    ):
        start = 0
        while start < cells:
            end = min(start + GROUP, cells)
            digits = (keys[order[end - 1]] & mask) >> shift
            while end < cells and (keys[order[end]] & mask) >> shift == digits:
                end += 1
            for j in range(first, last):
                group = order[start:end]
                bounds[parts + 1] = _walk(group, following[j], begins[j], chain, bounds[parts])
                parts += 1
            start = end
    end = bounds[parts]
    chain[end] = 0
    return chain[: end + 1].copy(), bounds[: parts + 1].copy()


@jit
def _neighbors(keys: Longs, step: int, following: Ints, begins: NDArray[np.bool_]) -> None:
    """For each cell its neighbor one step away, or -1, and whether it begins a chain."""
    cells = len(keys)
    begins[:] = True
    at = 0
    for cell in range(cells):
        wanted = keys[cell] + step
        # keys are sorted, so the wanted ones rise, too: a single pass finds all
        while at < cells - 1 and keys[at] < wanted:
            at += 1
        following[cell] = at if keys[at] == wanted else -1
        begins[following[cell]] = False  # for -1 the extra entry at the end
    for cell in range(cells):
        begins[cell] &= following[cell] >= 0


@jit
def _walk(cells: Ints, following: Ints, begins: NDArray[np.bool_], chain: Ints, end: int) -> int:
    """Append the chains that begin in some cells; returns the new end."""
    for first in cells:
        if begins[first]:
            cell = first
            while cell >= 0:
                chain[end] = 2 * cell + (following[cell] >= 0)
                end += 1
                cell = following[cell]
    return end
