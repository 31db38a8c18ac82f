"""Gaussian filtering of scattered points on the permutohedral lattice (Adams, Baek, Davis 2010).

Each point has d features, and its filtered value is the sum of all values, weighted by a Gaussian
(of unit deviation) of the distance between features. Done directly, that is quadratic in the number
of points. The lattice tiles feature space with simplices of d + 1 vertices: values are *splat* to
the vertices of the simplex around their point, *blurred* along the d + 1 directions of the lattice,
and *sliced* back. This is linear in the number of points and approximates the Gaussian: within some
ten percent at a point, and smaller in sum by a constant factor.

All three steps are sparse matrices that depend only on the features. They are stored as bags of
indices with weights, so that one torch operator does all the work, on CPU and GPU.

Letters: N points, d features, M cells (vertices in use), C channels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unpool.errors import OptionError, ShapeError


class Bags(NamedTuple):
    """A sparse matrix by rows: the entries of row i are offsets[i] to offsets[i + 1]."""

    index: Tensor  # type: ignore[assignment]  #: (E,) int32, the column of each entry
    offsets: Tensor  #: (rows + 1,) int32
    weight: Tensor  #: (E,)

    def __call__(self, table: Tensor) -> Tensor:
        """The product with a table of (columns, C): (rows, C)."""
        return F.embedding_bag(
            self.index,
            table,
            self.offsets,
            mode="sum",
            per_sample_weights=self.weight,
            include_last_offset=True,
        )

    def scaled(self, scale: Tensor | None) -> "Bags":
        """The matrix with its columns multiplied by a scale, (columns,)."""
        if scale is None:
            return self
        return self._replace(weight=self.weight * scale.index_select(0, self.index))


class Lattice:
    """The permutohedral lattice of a set of points, built once for any number of filterings.

    Args:
        features: (N, d), float32 or float64, each divided by the deviation of its Gaussian; a
            `ShapeError` for any that are not finite, or beyond a million.

    Attributes:
        points, cells: N, and M, the number of vertices in use; at most N * (d + 1).
        splat, slice: the matrices from points to cells and back.
        blurs: the d + 1 matrices from cells to cells, one for each direction.

    Adams, Baek, Davis 2010, sections 3 and 4; Krähenbühl, Koltun 2011, section 4.

    >>> lattice = Lattice(torch.tensor([[0.0], [0.1], [9.0]]))
    >>> lattice.filter(torch.tensor([[1.0], [0.0], [0.0]])).shape
    torch.Size([3, 1])
    """

    def __init__(self, features: Tensor) -> None:
        _require_features(features)
        self.points, d = features.shape
        level, rank, weight = _simplices(features)
        key, steps = _keys(level, rank)
        unique, cell, order, offsets = _number(key)
        self.cells = len(unique)
        every = torch.arange(self.points + 1, device=key.device, dtype=torch.int32) * (d + 1)
        point = order.int().div_(d + 1, rounding_mode="floor")
        self.splat = Bags(point, offsets, weight.index_select(0, order))
        self.blurs = [_neighbors(unique, step, weight.dtype) for step in steps]
        # the constant of the authors' code, so that unnormalized filters equal theirs
        self.slice = Bags(cell, every, weight * (1 / (1 + 2.0**-d)))

    def filter(self, values: Tensor) -> Tensor:
        """Filter values with the Gaussian; each point is its own neighbor, too.

        Args:
            values: (N, C), of the dtype and on the device of the features; differentiable.

        Returns:
            (N, C): for each point the sum of all values, weighted by about exp(-distance² / 2).

        >>> lattice = Lattice(torch.zeros(4, 2))
        >>> lattice.filter(torch.ones(4, 1)).flatten()
        tensor([3.6000, 3.6000, 3.6000, 3.6000])
        """
        return Filters([self])(values)


class Filters:
    """The sum of several filters of the same points, each scaled before and after.

    The scales (a normalization, or the weight of a kernel) are multiplied into the weights of the
    bags, and the cells of all lattices share one table, so two kernels take one splat and one
    slice.

    Args:
        lattices: one or more lattices of the same points.
        before: for each lattice, factors (N,) on the values, or None.
        after: for each lattice, factors (N,) on its result, or None.

    >>> near, far = Lattice(torch.rand(5, 2)), Lattice(torch.rand(5, 3) / 9)
    >>> values = torch.rand(5, 4)
    >>> both = near.filter(values) + far.filter(values)
    >>> torch.allclose(Filters([near, far])(values), both, atol=1e-5)
    True
    """

    def __init__(
        self,
        lattices: Sequence[Lattice],
        before: Sequence[Tensor | None] | None = None,
        after: Sequence[Tensor | None] | None = None,
    ) -> None:
        self._lattices = lattices
        self._before = [None] * len(lattices) if before is None else before
        self._after = [None] * len(lattices) if after is None else after
        if not len(self._before) == len(self._after) == len(lattices) > 0:
            raise OptionError(
                f"got {len(lattices)} lattices, {len(self._before)} scales before and "
                f"{len(self._after)} after them; wanted one of each for a lattice"
            )
        if len({lattice.points for lattice in lattices}) > 1:
            points = [lattice.points for lattice in lattices]
            raise ShapeError(f"got lattices of {points} points; wanted all of the same points")
        self.points = lattices[0].points
        self.steps = self._chain(self._before, self._after, reverse=False)
        self._transposed: list[Bags] | None = None

    @property
    def transposed(self) -> list[Bags]:
        """The steps of the transposed matrix: scales exchanged, blurs in reverse order."""
        if self._transposed is None:
            self._transposed = self._chain(self._after, self._before, reverse=True)
        return self._transposed

    def __call__(self, values: Tensor) -> Tensor:
        """Filter values (N, C), of the dtype and on the device of the features; differentiable."""
        self._require(values)
        if not values.numel():
            return values.clone()
        if torch.is_grad_enabled() and values.requires_grad:
            return _Product.apply(values, self, False)  # type: ignore[no-untyped-call]
        return _apply(self.steps, values)

    def spread(self, values: Tensor) -> Tensor:
        """Splat and blur values (N, C), the first part of a call, without gradient."""
        self._require(values)
        return _apply(self.steps[:-1], values)

    def collect(self, cells: Tensor, start: int, end: int) -> Tensor:
        """Slice the points from `start` to `end`, the second part of a call, without gradient."""
        index, offsets, weight = self.steps[-1]
        width = len(index) // self.points
        entries = slice(start * width, end * width)
        part = Bags(index[entries], offsets[: end - start + 1], weight[entries])
        return _apply([part], cells)

    def _require(self, values: Tensor) -> None:
        weight = self.steps[0].weight
        wrong = values.dtype != weight.dtype or values.device != weight.device
        if values.dim() != 2 or len(values) != self.points or wrong:
            raise ShapeError(
                f"got values of {tuple(values.shape)}, {values.dtype} on {values.device}; wanted "
                f"({self.points}, C), {weight.dtype} on {weight.device}, as the features"
            )

    def _chain(
        self, before: Sequence[Tensor | None], after: Sequence[Tensor | None], reverse: bool
    ) -> list[Bags]:
        splats, slices, first = [], [], 0
        blurs: list[list[Bags]] = [[] for _ in range(max(len(x.blurs) for x in self._lattices))]
        for lattice, scale, last in zip(self._lattices, before, after, strict=True):
            splats.append(lattice.splat.scaled(scale))
            width, weight = len(lattice.blurs), lattice.slice.weight
            if last is not None:
                weight = (weight.view(-1, width) * last[:, None]).flatten()
            slices.append(lattice.slice._replace(index=lattice.slice.index + first, weight=weight))
            order = lattice.blurs[::-1] if reverse else lattice.blurs
            for i, stage in enumerate(blurs):
                # lattices of fewer directions wait, so that all share a product at each stage
                stage.append(order[i] if i < width else _identity(lattice))
            first += lattice.cells
        sizes = [lattice.cells for lattice in self._lattices]
        blurred = [_stack(stage, sizes) for stage in blurs]
        return [_stack(splats, [0] * len(sizes)), *blurred, _beside(slices, self.points)]


class _Product(torch.autograd.Function):
    """The product with the matrix or its transpose; each is the gradient of the other."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, filters: Filters, transpose: bool) -> Tensor:
        ctx.filters, ctx.transpose = filters, transpose
        return _apply(filters.transposed if transpose else filters.steps, values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        back: Tensor = _Product.apply(grads[0], ctx.filters, not ctx.transpose)  # type: ignore[no-untyped-call]
        return back, None, None


def _apply(steps: list[Bags], values: Tensor) -> Tensor:
    with torch.no_grad():
        values = values.contiguous()
        for step in steps:
            values = step(values)
    return values


def _simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The simplex around each point: the coordinates of its first vertex in units of d + 1,
    (d + 1, N), integers as floats; the ranks of the point's coordinates within it, (d + 1, N)
    int64; and the barycentric weights of its vertices, (N * (d + 1),), point by point."""
    n, d = features.shape
    x = _elevate(features)
    level = (x * (1 / (d + 1))).round_()  # halves to even, as in the authors' code
    rest = x - level * (d + 1)
    rank = torch.zeros(x.shape, dtype=torch.int8, device=x.device)
    for i in range(d):
        less = rest[i] < rest[i + 1 :]
        rank[i] += less.sum(0, dtype=torch.int8)
        rank[i + 1 :] += ~less
    # If the rounded coordinates do not add up to zero, some of them move by one.
    rank += level.sum(0).to(torch.int8)
    up, down = rank < 0, rank > d
    turn = up.to(torch.int8) - down.to(torch.int8)
    rank += turn * (d + 1)
    level += turn
    order = rank.long()
    rest = (x - level * (d + 1)).mul_(1 / (d + 1))
    rest = torch.empty_like(rest).scatter_(0, order, rest)  # in descending order
    weight = x.new_empty(n, d + 1)
    weight[:, 0] = rest[d] + (1 - rest[0])
    weight[:, 1:] = (rest[:d] - rest[1:]).flip(0).t()
    return level, order, weight.flatten()


def _elevate(features: Tensor) -> Tensor:
    """The points in the hyperplane of d + 1 coordinates that sum to zero, (d + 1, N)."""
    n, d = features.shape
    x = features.new_empty(d + 1, n)
    total = features.new_zeros(n)
    for j in range(d, 0, -1):
        # At this scale the blur has a standard deviation of one unit of the features.
        scale = (2 / 3) ** 0.5 * (d + 1) / (j * (j + 1)) ** 0.5
        feature = features[:, j - 1] * scale
        x[j] = total - j * feature
        total += feature
    x[0] = total
    return x


def _keys(level: Tensor, rank: Tensor) -> tuple[Tensor, list[int]]:
    """An integer key for each vertex of each simplex, (N * (d + 1),), and for each direction of
    the lattice the difference between the keys of neighbors.

    The differences of consecutive coordinates of a vertex, divided by d + 1, are integers that
    identify it. They are the digits of its key, which keeps keys small, and small keys sort faster.
    A step along direction j adds 1 to coordinate j (in these units, up to a part common to all), so
    it adds a constant to the key.
    """
    digits = level[:-1] - level[1:]
    if not digits.numel():
        digits = digits.new_zeros(len(digits), 1)
    low, high = torch.aminmax(digits, dim=1)
    low, high = low.long() - 1, high.long() + 1  # digits differ by at most one within a simplex
    base, bases = 1, []
    for size in (high - low + 2).tolist():  # one more: no step past the end may reach another cell
        bases.append(base)
        base *= size
    kind = torch.int32 if base < 2**31 else torch.int64
    if base >= 2**63:
        # Too many digits for 63 bits: hash them with odd multipliers modulo 2**64. With a million
        # cells, a collision of cells or neighbors has a probability below 1e-6.
        bases = [_signed(pow(0x9E3779B97F4A7C15, 2 * i + 1, 2**64)) for i in range(len(bases))]
    steps = [_signed(b - a) for a, b in zip([0, *bases], [*bases, 0], strict=True)]
    step = torch.tensor(steps, device=level.device).to(kind)
    first = -(low * torch.tensor(bases, device=level.device)).sum().to(kind)
    vertex = (level.to(kind) * step[:, None]).sum(0, dtype=kind) + first
    move = torch.empty_like(level, dtype=kind).scatter_(0, rank, step[:, None].expand_as(rank))
    key = torch.empty(move.shape[::-1], dtype=kind, device=level.device)
    key[:, 0] = vertex
    for k in range(1, len(move)):  # vertex k is one lower in the k smallest coordinates
        vertex = vertex - move[-k]
        key[:, k] = vertex
    return key.flatten(), steps


def _signed(number: int) -> int:
    """The number modulo 2**64, as a signed 64-bit integer."""
    return (number + 2**63) % 2**64 - 2**63


def _number(key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The unique keys in order, the index of each key among them, the order that sorts the keys,
    and the offsets of the unique keys in that order, with the end."""
    # by sorting, since PyTorch has no hash table, and the result does not depend on threads
    ordered, order = torch.sort(key)
    new = torch.ones_like(key, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=new[1:])
    start = new.nonzero().flatten()
    position = new.cumsum(0, dtype=torch.int32).sub_(1)
    cell = torch.empty_like(position).scatter_(0, order, position)
    return ordered[start], cell, order, F.pad(start.int(), (0, 1), value=len(key))


def _neighbors(unique: Tensor, step: int, dtype: torch.dtype) -> Bags:
    """The blur along one direction: each cell plus half of its two neighbors, if they exist."""
    cells, wanted = len(unique), unique + step
    here = torch.arange(cells, device=unique.device)
    position = torch.searchsorted(unique, wanted).clamp_(max=max(cells - 1, 0))
    has_above = unique.index_select(0, position) == wanted
    below = has_above.nonzero().flatten()  # cells that have a neighbor above
    above = position.index_select(0, below)  # those neighbors, which have one below
    has_below = torch.zeros_like(has_above).scatter_(0, above, True)
    offsets = F.pad((1 + has_above.int() + has_below).cumsum(0, dtype=torch.int32), (1, 0))
    middle = offsets[:-1].long() + has_below
    index = torch.empty(cells + 2 * len(below), dtype=torch.int32, device=unique.device)
    index.scatter_(0, middle, here.int())
    index.scatter_(0, middle.index_select(0, below) + 1, above.int())
    index.scatter_(0, middle.index_select(0, above) - 1, below.int())
    weight = torch.full(index.shape, 0.5, dtype=dtype, device=unique.device)
    return Bags(index, offsets, weight.scatter_(0, middle, 1.0))


def _identity(lattice: Lattice) -> Bags:
    each = torch.arange(lattice.cells + 1, dtype=torch.int32, device=lattice.splat.index.device)
    return Bags(each[:-1], each, torch.ones_like(each[:-1], dtype=lattice.splat.weight.dtype))


def _stack(parts: list[Bags], columns: list[int]) -> Bags:
    """Stack matrices vertically, each shifted right by the columns of those above it."""
    if len(parts) == 1:
        return parts[0]
    index, offsets, right, entries = [], [parts[0].offsets[:1]], 0, 0
    for part, width in zip(parts, columns, strict=True):
        index.append(part.index + right)
        offsets.append(part.offsets[1:] + entries)
        right, entries = right + width, entries + len(part.index)
    return Bags(torch.cat(index), torch.cat(offsets), torch.cat([part.weight for part in parts]))


def _beside(parts: list[Bags], rows: int) -> Bags:
    """Join matrices side by side; each has the same number of entries in every row."""
    if len(parts) == 1:
        return parts[0]
    index = torch.cat([part.index.view(rows, -1) for part in parts], 1)
    weight = torch.cat([part.weight.view(rows, -1) for part in parts], 1)
    offsets = torch.arange(rows + 1, dtype=torch.int32, device=index.device) * index.shape[1]
    return Bags(index.flatten(), offsets, weight.flatten())


def _require_features(features: Tensor) -> None:
    known = features.dtype in (torch.float32, torch.float64)
    if features.dim() != 2 or not features.shape[1] or not known:
        raise ShapeError(
            f"got features of {tuple(features.shape)} {features.dtype}; wanted (N, d), float32 or "
            "float64, d from 1 up: one row for each point"
        )
    # beyond that, float32 cannot hold a cell and the place within it
    if features.numel() and not features.abs().amax() < 1e6:  # NaN included
        raise ShapeError(
            "got features that are not finite, or beyond a million; wanted coordinates divided by "
            "the deviation of the Gaussian: choose a larger deviation"
        )
