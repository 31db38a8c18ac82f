"""SIMD kernels over tables of rows: slice, softmax, splat and blur.

The values of a point or cell are a row, with a lane for each label. numba has no vector type, and
seldom vectorizes a loop over labels, because the arrays might overlap. So this module defines such
a type, `Row`, with operations written in LLVM IR.

A table of M rows is an array (W, M). In memory it is a sequence of planes of 16 lanes, the last
one possibly narrower; within a plane, (M, 16), the lanes of a row are contiguous.

The numbers of lanes and of corners (the vertices around a point) must be compile-time constants, so
they are passed as the lengths of tuples of zeros.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model
from numpy.typing import NDArray

from unpool.ops.crf import SMALLEST

LARGE = 2**20
"""Tables with more values than this do not fit into the cache; their rows are prefetched."""

AHEAD = 24
"""How many points or cells ahead rows are prefetched."""

Work = TypeVar("Work", bound=Callable[..., Any])
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Positions = NDArray[np.uint32]
Zeros = tuple[int, ...]


def planes(lanes: int) -> list[slice]:
    """The lanes of each plane, as slices."""
    # a vector of AVX-512 holds 16 floats
    return [slice(start, min(start + 16, lanes)) for start in range(0, lanes, 16)]


def by_rows(plane: Floats) -> Floats:
    """View a plane of a table, (W, M) by its shape, in its true layout (M, W)."""
    return plane.reshape(plane.shape[::-1])


def jit(work: Work) -> Work:
    """Compile at the first call with each combination of types, and cache the result on disk."""
    # threads compute parts at once; checks for division by zero would keep loops from being
    # vectorized
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(work)
    except RuntimeError:  # no writable cache folder
        return njit(**options)(work)


class Row(types.Type):  # type: ignore[misc]
    """The numba type of a row: one vector for each plane."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(f"Row({lanes})")


FLOAT, INT, LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
FUSED = ("contract",)  # allow fused multiply-add


class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, row: Row) -> None:
        vectors = [ir.VectorType(FLOAT, p.stop - p.start) for p in planes(row.lanes)]
        super().__init__(manager, row, ir.LiteralStructType(vectors))


register_model(Row)(_Model)


def _constant(value: float, lanes: int, kind: Any = FLOAT) -> Any:
    return ir.Constant(ir.VectorType(kind, lanes), [value] * lanes)


def _everywhere(b: Any, number: Any, lanes: int) -> Any:
    """A vector with the same value in all lanes."""
    empty = ir.Constant(ir.VectorType(FLOAT, lanes), ir.Undefined)
    return b.shuffle_vector(
        b.insert_element(empty, number, INT(0)), empty, _constant(0, lanes, INT)
    )


def _vectors(b: Any, row: Any) -> list[Any]:
    return [b.extract_value(row, i) for i in range(len(row.type.elements))]


def _row(b: Any, vectors: Iterable[Any]) -> Any:
    vectors = list(vectors)
    row = ir.Constant(ir.LiteralStructType([vector.type for vector in vectors]), ir.Undefined)
    for i, vector in enumerate(vectors):
        row = b.insert_value(row, vector, i)
    return row


def _addresses(context: Any, b: Any, table: Any, array: Any, row: Any, lanes: int) -> list[Any]:
    """Pointers to the vectors of a row in a table."""
    array = context.make_array(table)(context, b, array)
    rows, row = b.extract_value(array.shape, 1), b.sext(row, LONG) if row.type != LONG else row
    found = []
    for plane in planes(lanes):
        width = plane.stop - plane.start
        first = b.add(b.mul(rows, LONG(plane.start)), b.mul(row, LONG(width)))
        pointer = b.gep(array.data, [first])
        found.append(b.bitcast(pointer, ir.VectorType(FLOAT, width).as_pointer()))
    return found


@intrinsic  # type: ignore[untyped-decorator]
def _zeros(typing: Any, lanes: Any) -> Any:
    def build(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return _row(b, [_constant(0, plane.stop - plane.start) for plane in planes(len(lanes))])

    return Row(len(lanes))(lanes), build


@intrinsic  # type: ignore[untyped-decorator]
def _load(typing: Any, table: Any, row: Any, lanes: Any) -> Any:
    def build(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        pointers = _addresses(context, b, table, arguments[0], arguments[1], len(lanes))
        # rows of 4 or 24 lanes do not begin at multiples of a vector
        return _row(b, [b.load(pointer, align=4) for pointer in pointers])

    return Row(len(lanes))(table, row, lanes), build


@intrinsic  # type: ignore[untyped-decorator]
def _store(typing: Any, table: Any, row: Any, value: Any) -> Any:
    def build(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        pointers = _addresses(context, b, table, arguments[0], arguments[1], value.lanes)
        for vector, pointer in zip(_vectors(b, arguments[2]), pointers, strict=True):
            b.store(vector, pointer, align=4)
        return context.get_dummy_value()

    return types.void(table, row, value), build


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(typing: Any, table: Any, row: Any, lanes: Any) -> Any:
    def build(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, INT, INT, INT])
        prefetch = b.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        for pointer in _addresses(context, b, table, arguments[0], arguments[1], len(lanes)):
            # to read, into all levels of the cache, data
            b.call(prefetch, [b.bitcast(pointer, byte), INT(0), INT(3), INT(1)])
        return context.get_dummy_value()

    return types.void(table, row, lanes), build


@intrinsic  # type: ignore[untyped-decorator]
def _add(typing: Any, row: Any, other: Any, factor: Any) -> Any:
    """row + factor * other."""

    def build(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        sums = []
        for here, more in zip(*(_vectors(b, value) for value in arguments[:2]), strict=True):
            part = b.fmul(more, _everywhere(b, arguments[2], more.type.count), flags=FUSED)
            sums.append(b.fadd(here, part, flags=FUSED))
        return _row(b, sums)

    return row(row, row, types.float32), build


@intrinsic  # type: ignore[untyped-decorator]
def _exceeds(typing: Any, row: Any, limit: Any) -> Any:
    """Whether any lane exceeds a limit."""

    def build(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        found = ir.Constant(ir.IntType(1), 0)
        for x in _vectors(b, arguments[0]):
            lanes = x.type.count
            large = b.fcmp_ordered(">", x, _everywhere(b, arguments[1], lanes))
            bits = b.bitcast(large, ir.IntType(lanes))
            found = b.or_(found, b.icmp_unsigned("!=", bits, bits.type(0)))
        return found

    return types.boolean(row, types.float32), build


@intrinsic  # type: ignore[untyped-decorator]
def _minus_maximum(typing: Any, row: Any) -> Any:
    """The row minus its maximum."""

    def build(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        scores = _vectors(b, arguments[0])
        top = _fold(b, scores, _larger)
        return _row(b, [b.fsub(x, _everywhere(b, top, x.type.count)) for x in scores])

    return row(row), build


@intrinsic  # type: ignore[untyped-decorator]
def _normalized_exp(typing: Any, row: Any) -> Any:
    """Softmax of scores up to 60 with a maximum of 0 or more; tiny values (SMALLEST) become 0."""

    def build(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        e = [_exp(b, x) for x in _vectors(b, arguments[0])]
        scale = b.fdiv(FLOAT(1), _fold(b, e, type(b).fadd))
        q = [b.fmul(x, _everywhere(b, scale, x.type.count)) for x in e]
        return _row(b, [_flush(b, x) for x in q])

    return row(row), build


def _larger(b: Any, x: Any, y: Any) -> Any:
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def _flush(b: Any, x: Any) -> Any:
    lanes = x.type.count
    return b.select(b.fcmp_ordered(">", x, _constant(SMALLEST, lanes)), x, _constant(0, lanes))


def _fold(b: Any, vectors: list[Any], operation: Callable[[Any, Any, Any], Any]) -> Any:
    """Reduce all lanes to one value: vectors of equal width first, then halves of the result."""
    vectors = list(vectors)
    while vectors[0].type.count > 1 or len(vectors) > 1:
        if len(vectors) > 1 and vectors[0].type.count == vectors[1].type.count:
            vectors[:2] = [operation(b, *vectors[:2])]
        else:
            vectors[:1] = _halves(b, vectors[0])
    return b.extract_element(vectors[0], INT(0))


def _halves(b: Any, vector: Any) -> list[Any]:
    half = vector.type.count // 2
    kind = ir.VectorType(INT, half)
    picks = (ir.Constant(kind, list(range(start, start + half))) for start in (0, half))
    return [b.shuffle_vector(vector, vector, pick) for pick in picks]


def _exp(b: Any, x: Any) -> Any:
    """exp of a vector of values up to 60, clamped at -60 from below: 2^k exp(r)."""
    # Adding a number so large that no fraction is left rounds k and leaves it in the last bits,
    # from where it is moved to the exponent. For r up to log(2) / 2 the series is short.
    lanes = x.type.count
    x = _larger(b, x, _constant(-60, lanes))
    large = _constant(1.5 * 2**23, lanes)
    sum_ = _fused(b, x, _constant(1 / np.log(2), lanes), large)
    k = b.fsub(sum_, large)
    rest = _fused(b, k, _constant(-0.693359375, lanes), x)  # log(2), in two parts
    rest = _fused(b, k, _constant(0.693359375 - np.log(2), lanes), rest)
    series = _constant(1 / 720, lanes)
    for factor in (120, 24, 6, 2, 1, 1):
        series = _fused(b, series, rest, _constant(1 / factor, lanes))
    exponent = b.shl(b.bitcast(sum_, ir.VectorType(INT, lanes)), _constant(23, lanes, INT))
    power = b.bitcast(b.add(exponent, _constant(127 << 23, lanes, INT)), x.type)
    return b.fmul(series, power)


def _fused(b: Any, x: Any, y: Any, z: Any) -> Any:
    return b.fadd(b.fmul(x, y, flags=FUSED), z, flags=FUSED)


@jit
def softmax(score: Floats, q: Floats, start: int, end: int, lanes: Zeros) -> None:
    """Marginals of the points from `start` to `end` from their scores."""
    for p in range(start, end):
        _store(q, p, _marginals(_load(score, p, lanes)))


@jit
def _marginals(row: Any) -> Any:
    # One score is about 0 at first, and messages only add to it. So the maximum is computed only
    # where exp could overflow, which saves a third of the time.
    if _exceeds(row, np.float32(60)):
        row = _minus_maximum(row)
    return _normalized_exp(row)


@jit
def receive(
    score: Floats,
    q: Floats,
    index: Ints,
    weight: Floats,
    after: Floats,
    table: Floats,
    last: bool,
    start: int,
    end: int,
    corners: Zeros,
    lanes: Zeros,
) -> None:
    """Slice: add the messages of cells to the scores of the points from `start` to `end`. q becomes
    the sum, or after the last table the marginals."""
    large = table.size > LARGE
    for p in range(start, end):
        if large:
            for k in range(len(corners)):
                _prefetch(table, index[min(p + AHEAD, end - 1), k], lanes)
        message = _zeros(lanes)
        for k in range(len(corners)):
            message = _add(message, _load(table, index[p, k], lanes), weight[p, k])
        row = _add(_load(score, p, lanes), message, after[p])
        if last:
            row = _marginals(row)
        _store(q, p, row)


@jit
def splat(
    q: Floats,
    index: Ints,
    weight: Floats,
    before: Floats,
    table: Floats,
    corners: Zeros,
    lanes: Zeros,
) -> None:
    """Add the marginals of all points to the cells of their simplices."""
    large = table.size > LARGE
    for p in range(len(index)):
        if large:
            for k in range(len(corners)):
                _prefetch(table, index[min(p + AHEAD, len(index) - 1), k], lanes)
        value = _add(_zeros(lanes), _load(q, p, lanes), before[p])
        for k in range(len(corners)):
            cell = index[p, k]
            _store(table, cell, _add(_load(table, cell, lanes), value, weight[p, k]))


@jit
def blur(table: Floats, chain: Ints, bounds: NDArray[np.int64], lanes: Zeros) -> None:
    """Add to each cell half of its neighbors in its chain, in place.

    Args:
        chain: for each cell twice its number, plus 1 if its neighbor follows; a 0 at the end.
        bounds: offsets of the parts of `chain` in which every cell is unique.
    """
    half = np.float32(0.5)
    for part in range(len(bounds) - 1):
        code = chain[bounds[part]]
        last, here = _zeros(lanes), _load(table, code >> 1, lanes)
        link = np.float32(0)
        for i in range(bounds[part], bounds[part + 1]):
            following = chain[i + 1]
            coming = _load(table, following >> 1, lanes)
            value = _add(here, last, link)
            link = half * np.float32(code & 1)
            _store(table, code >> 1, _add(value, coming, link))
            last, here, code = here, coming, following


@jit
def gather(values: Floats, position: Positions, rows: Floats) -> None:
    """Permute values (L, N) into the rows (N, W) of a plane; minus infinity beyond label L."""
    labels = len(values)
    for p in range(len(position)):
        for lane in range(labels):
            rows[position[p], lane] = values[lane, p]
        for lane in range(labels, rows.shape[1]):
            rows[position[p], lane] = -np.inf


@jit
def scatter(rows: Floats, position: Positions, values: Floats) -> None:
    """The inverse of `gather`."""
    for p in range(len(position)):
        for lane in range(len(values)):
            values[lane, p] = rows[position[p], lane]
