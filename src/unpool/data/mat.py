"""Read the one array of an SBD annotation from a MATLAB file, within bounds.

A file of MATLAB 5 to 7.2 is a sequence of elements, each with a type and a size, some compressed.
Only the elements on the way to `Segmentation` are read, all others are skipped by their sizes, and
no size is used before it is checked. SciPy's reader trusts them.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unpool.errors import ImageError
from unpool.files import read_bytes
from unpool.limits import MAX_MAT, MAX_MAT_NAMES, MAX_MAT_VARIABLES

if TYPE_CHECKING:
    from unpool.vision.images import Pixels

_Order: TypeAlias = Literal["<", ">"]

_HEADER = 128  # bytes
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_STORED = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_STRUCT = 2  # class of an array; those of numbers are below, double to uint64
_NUMBERS = range(6, 16)


class _Broken(Exception):
    """The content contradicts the format."""


class _Element(NamedTuple):
    kind: int
    data: memoryview


class _Array(NamedTuple):
    """The head of a matrix element, and the elements after it."""

    kind: int  #: class
    shape: memoryview  #: integers of 4 bytes
    name: bytes
    rest: Iterator[_Element]


def read_mat(path: Path, name: Literal["GTcls", "GTinst"]) -> "Pixels":
    """Read class ids ("GTcls") or object numbers, (H, W) uint8, of SBD, a MATLAB file.

    Raises:
        ImageError: the file cannot be read, or is something else.
    """
    content = read_bytes(path, ImageError, MAX_MAT)
    try:
        found = _segmentation(content, name)
    except (_Broken, struct.error, zlib.error) as error:
        raise ImageError(
            f"{path}: cannot be read ({error}), wanted an SBD annotation with "
            f"{name}.Segmentation; copy or download it again"
        ) from error
    usual = found.size and found.min() >= 0 and found.max() <= 255
    if not usual or not (found == np.floor(found)).all():
        raise ImageError(
            f"{path}: holds {found.dtype} of shape {found.shape} as {name}.Segmentation, wanted "
            "ids from 0 to 255 (H, W); copy or download it again"
        )
    return found.astype(np.uint8)


def _segmentation(content: bytes, name: str) -> NDArray[Any]:
    if content.startswith(b"\x89HDF") or content[512:516] == b"\x89HDF":
        raise _Broken("it is of MATLAB 7.3; save it with -v7")
    if content[126:_HEADER] not in (b"IM", b"MI"):
        raise _Broken("it is no MATLAB file of versions 5 to 7.2")
    order: _Order = "<" if content[126:_HEADER] == b"IM" else ">"
    for i, element in enumerate(_elements(memoryview(content)[_HEADER:], order)):
        if i == MAX_MAT_VARIABLES:
            raise _Broken(f"it has more than {i} variables")
        if element.kind == _COMPRESSED:
            # the name stands at the beginning; others need not be unpacked
            if name.encode() not in zlib.decompressobj().decompress(element.data, 256):
                continue
            element = _next(_elements(_unpacked(element.data), order))
        if element.kind == _MATRIX and (array := _array(element, order)).name == name.encode():
            return _field(array, b"Segmentation", order)
    raise _Broken(f"it has no variable {name}")


def _unpacked(data: memoryview) -> memoryview:
    stream = zlib.decompressobj()
    unpacked = stream.decompress(data, MAX_MAT + 1)
    if len(unpacked) > MAX_MAT:
        raise _Broken(f"it holds more than {MAX_MAT} bytes")
    if not stream.eof:
        raise _Broken("it is cut short")
    return memoryview(unpacked)


def _elements(data: memoryview, order: _Order) -> Iterator[_Element]:
    """Consecutive elements; those of up to 4 bytes may stand in 8 with their type and size."""
    start = 0
    while start < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, start)
        begin, end = start + 8, start + 8 + size
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            begin, end = start + 4, start + 4 + size
            start += 8
        else:
            start = end if kind == _COMPRESSED else end + -size % 8
        if end > len(data) or (size > 4 and begin == start - 4):
            raise _Broken("it is cut short")
        yield _Element(kind, data[begin:end])


def _array(element: _Element, order: _Order) -> _Array:
    rest = _elements(element.data, order)
    flags, shape, name = (_next(rest) for _ in range(3))
    (kind,) = struct.unpack_from(f"{order}I", flags.data)
    return _Array(kind & 0xFF, shape.data, bytes(name.data), rest)


def _field(array: _Array, name: bytes, order: _Order) -> NDArray[Any]:
    """The numbers of a field of a struct."""
    if array.kind != _STRUCT:
        raise _Broken("it is no struct")
    length, names = _next(array.rest), _next(array.rest)
    (step,) = struct.unpack(f"{order}i", length.data)
    if step < 1 or len(names.data) > MAX_MAT_NAMES:
        raise _Broken(f"its fields have names of {len(names.data)} bytes, {step} each")
    joined = bytes(names.data)
    fields = [joined[i : i + step].split(b"\0")[0] for i in range(0, len(joined), step)]
    if name not in fields:
        raise _Broken(f"it has no field {name.decode()}")
    for _ in range(fields.index(name)):
        _next(array.rest)
    return _numbers(_array(_next(array.rest), order), order)


def _numbers(array: _Array, order: _Order) -> NDArray[Any]:
    """The real part of a full array, in the type that it is stored in."""
    stored = _next(array.rest)
    if array.kind not in _NUMBERS or stored.kind not in _STORED:
        raise _Broken(f"its class {array.kind} and type {stored.kind} are not those of numbers")
    height, width = struct.unpack(f"{order}2i", array.shape)
    kind = np.dtype(_STORED[stored.kind]).newbyteorder(order)
    if min(height, width) < 0 or height * width * kind.itemsize != len(stored.data):
        raise _Broken(f"it has {len(stored.data)} bytes for {height} x {width} numbers")
    return np.frombuffer(stored.data, kind).reshape(height, width, order="F")


def _next(elements: Iterator[_Element]) -> _Element:
    if (element := next(elements, None)) is None:
        raise _Broken("it is cut short")
    return element
