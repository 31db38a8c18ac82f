"""Mean field over the lattices of an image; used by `unpool.ops.mean_field` if possible.

Letters: N points, d features, M cells, L labels, W lanes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unpool.ops.compiled import kernels, lattice
from unpool.ops.compiled.kernels import Floats, Ints, Positions, by_rows, planes
from unpool.ops.crf import features
from unpool.recipes.presets import DenseCRF, Kernel

STRIP = 32
"""Pixels are visited in vertical strips of this width, so that their cells stay in the cache."""

MOST_LABELS = 256
"""Code is compiled for each number of lanes, which takes longer the more there are."""

LEAST = 2**18
"""The smallest number of values for which another thread pays off."""

_Each = Callable[[Callable[[Any], None], Iterable[Any]], list[None]]


class Field(NamedTuple):
    """The lattice of a kernel on the pixels of an image."""

    cells: int  #: M, their number
    index: Ints  # type: ignore[assignment]  #: (N, d + 1), the cells around each point
    weight: Floats  #: (N, d + 1)
    chain: Ints  #: see `kernels.blur`
    bounds: NDArray[np.int64]  #: see `blur`
    before: Floats  #: (N,), factors of values
    after: Floats  #: (N,), factors of messages


def fits(crf: DenseCRF, size: tuple[int, int]) -> bool:
    """Whether the keys of all lattices on an image of (H, W) fit into 63 bits."""
    return size[0] * size[1] < 2**27 and all(
        max(_extent(kernel, size)) < 1e6 and sum(_digits(kernel, size)[1]) < 63
        for kernel in crf.kernels
    )


def fields(crf: DenseCRF, size: tuple[int, int], image: Tensor | None) -> list[Field]:
    """The lattices of all kernels of a CRF, normalized and weighted; as of `mean_field`."""
    found = []
    for kernel in crf.kernels:
        if kernel.rgb is None:
            field = _of_positions(kernel.xy, size, crf.normalization)
        else:
            field = _normalized(kernel, size, image, crf.normalization)
        found.append(field._replace(after=field.after * np.float32(kernel.weight)))
    return found


def mean_field(score: Tensor, size: tuple[int, int], image: Tensor | None, crf: DenseCRF) -> Tensor:
    """Marginals of a dense CRF, (L, N) float32.

    Args:
        score: (L, N) float32 on the CPU, 0 for the best label of each pixel; L at most
            MOST_LABELS.
        size: (H, W).
        image: (H, W, 3) uint8, RGB; may be None if no kernel uses colors.
        crf: kernels that `fits` accepts.
    """
    labels, n = score.shape
    # code is compiled for each width, so there are few, and others are padded
    lanes = next(w for w in (4, 8, 16, 24, 32, -(-labels // 16) * 16) if w >= labels)
    position = _strips(*size)[1]
    sources = fields(crf, size, image)
    rows, q = _table(lanes, n), _table(lanes, n)
    for plane in planes(lanes):
        kernels.gather(score.numpy()[plane], position, by_rows(rows[plane]))
    _iterate(rows, q, [(field, _table(lanes, field.cells)) for field in sources], crf.iterations)
    found = np.empty((labels, n), np.float32)
    for plane in planes(lanes):
        kernels.scatter(by_rows(q[plane]), position, found[plane])
    return torch.from_numpy(found)


def _iterate(rows: Floats, q: Floats, pairs: Sequence[tuple[Field, Floats]], count: int) -> None:
    """Mean field from the scores `rows` into `q`; each field has a table for its cells."""
    lanes, n = rows.shape
    threads = max(min(torch.get_num_threads(), lanes * n // LEAST), 1)
    parts = [(n * i // threads, n * (i + 1) // threads) for i in range(threads)]
    # several points add to one cell, so threads divide the lanes here
    parted = planes(lanes) if threads > 1 else [slice(lanes)]
    jobs = [(*pair, part) for pair in pairs for part in parted]
    with _workers(threads) as each:
        each(lambda part: _update(rows, q, (), *part), parts)
        for _ in range(count):
            each(lambda job: _spread(q, *job), jobs)
            each(lambda part: _update(rows, q, pairs, *part), parts)


def _update(
    rows: Floats, q: Floats, pairs: Sequence[tuple[Field, Floats]], start: int, end: int
) -> None:
    """The marginals of the points from `start` to `end` from their scores and messages."""
    lanes, score = (0,) * len(q), rows
    if not pairs:
        kernels.softmax(score, q, start, end, lanes)
    for i, (f, table) in enumerate(pairs, 1):
        to_marginals, corners = i == len(pairs), (0,) * f.index.shape[1]
        kernels.receive(
            score, q, f.index, f.weight, f.after, table, to_marginals, start, end, corners, lanes
        )
        score = q


def _spread(q: Floats, field: Field, table: Floats, part: slice) -> None:
    """Splat and blur some lanes of the marginals of all points."""
    q, table, corners = q[part], table[part], (0,) * field.index.shape[1]
    table.fill(0)
    kernels.splat(q, field.index, field.weight, field.before, table, corners, (0,) * len(q))
    for plane in planes(len(q)):
        kernels.blur(table[plane], field.chain, field.bounds, (0,) * len(table[plane]))


@contextmanager
def _workers(threads: int) -> Iterator[_Each]:
    """A function that maps work over jobs, in threads if there are several."""
    if threads < 2:
        yield lambda work, jobs: list(map(work, jobs))
    else:
        with ThreadPoolExecutor(threads) as pool:
            yield lambda work, jobs: list(pool.map(work, jobs))


def _table(lanes: int, rows: int) -> Floats:
    """An uninitialized table, aligned to cache lines."""
    numbers = np.empty(lanes * rows + 15, np.float32)
    first = -(numbers.ctypes.data // 4) % 16
    return numbers[first : first + lanes * rows].reshape(lanes, rows)


@lru_cache(4)
def _strips(height: int, width: int) -> tuple[Positions, Positions]:
    """The pixels of an image strip by strip, and the position of each pixel in that order."""
    pixels = np.arange(height * width, dtype=np.uint32).reshape(height, width)
    order = np.concatenate([pixels[:, x : x + STRIP].ravel() for x in range(0, width, STRIP)])
    return order, np.argsort(order).astype(np.uint32)


@lru_cache(4)
def _of_positions(xy: float, size: tuple[int, int], normalization: str) -> Field:
    """All images of a size have the same lattice without colors; the last few are cached."""
    return _normalized(Kernel(xy, 1), size, None, normalization)


def _normalized(
    kernel: Kernel, size: tuple[int, int], image: Tensor | None, normalization: str
) -> Field:
    """The lattice of a kernel, normalized, without its weight."""
    field = _lattice(kernel, size, image)
    if normalization == "none":
        return field
    n, corners = field.index.shape
    total, table = np.zeros((4, n), np.float32), _table(4, field.cells)
    _spread(total + 1, field, table, slice(4))
    f, zeros = field, (0,) * corners
    kernels.receive(total, total, f.index, f.weight, f.after, table, False, 0, n, zeros, (0,) * 4)
    scale = np.reciprocal(by_rows(total)[:, 0] + np.float32(1e-20), dtype=np.float32)
    if normalization == "symmetric":
        scale = np.sqrt(scale, dtype=np.float32)
    if normalization != "after":
        field = field._replace(before=scale)
    return field if normalization == "before" else field._replace(after=field.after * scale)


def _lattice(kernel: Kernel, size: tuple[int, int], image: Tensor | None) -> Field:
    """The lattice of a kernel, not normalized."""
    points = features(kernel, size, image, torch.empty(0)).numpy()
    n, d = points.shape
    lows, bits = _digits(kernel, size)
    shifts = [sum(bits[1:]), *accumulate(bits[1:-1], initial=0)]
    bases = [1 << shift for shift in shifts]
    steps = [b - a for a, b in zip([0, *bases], [*bases, 0], strict=True)]
    origin = -sum(low * base for low, base in zip(lows, bases, strict=True))
    index, weight = np.empty((n, d + 1), np.int32), np.empty((n, d + 1), np.float32)
    moves = np.array([*steps, origin], np.int64)
    keys = lattice.number(points, _scales(d), _strips(*size)[0], moves, index, weight)
    keys, inner = lattice.renumber(keys, *lattice.sort(keys, shifts[0], sum(bits)), index)
    chain, bounds = lattice.chains(keys, inner, moves, shifts[0], bits[1])
    ones = np.ones(n, np.float32)
    return Field(len(keys), index, weight, chain, bounds, ones, ones / np.float32(1 + 2.0**-d))


def _scales(d: int) -> Floats:
    """The factors of features, as in `unpool.ops.lattice`."""
    scales = [(2 / 3) ** 0.5 * (d + 1) / (j * (j + 1)) ** 0.5 for j in range(1, d + 1)]
    return np.array(scales, np.float32)


def _extent(kernel: Kernel, size: tuple[int, int]) -> list[float]:
    """The largest value of each feature; the smallest is 0."""
    colors = [] if kernel.rgb is None else 3 * [255 / kernel.rgb]
    return [(size[1] - 1) / kernel.xy, (size[0] - 1) / kernel.xy, *colors]


def _digits(kernel: Kernel, size: tuple[int, int]) -> tuple[list[int], list[int]]:
    """For each digit of a key a lower bound of its values, and the number of bits it needs."""
    extent = _extent(kernel, size)
    d = len(extent)
    # Digit i of a point with features f is ((i + 2) * f[i + 1] - i * f[i]) / (d + 1). The vertices
    # around it differ little from that: hence the margins of 4.
    most = [0, *(scale * e / (d + 1) for scale, e in zip(_scales(d).tolist(), extent, strict=True))]
    lows = [-int(i * most[i]) - 4 for i in range(d)]
    highs = [int((i + 2) * most[i + 1]) + 4 for i in range(d)]
    return lows, [(high - low).bit_length() for low, high in zip(lows, highs, strict=True)]
