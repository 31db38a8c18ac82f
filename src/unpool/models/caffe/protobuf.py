"""Read the layers of `.caffemodel` files, without Caffe or protobuf.

Such a file is a protobuf message of up to a gigabyte. It is traversed on disk, and only the weights
are read, directly into their arrays. Nothing in it is trusted: every length is checked against the
enclosing message before anything is read or allocated.

Format: src/caffe/proto/caffe.proto of HyeonwooNoh/caffe (`layers`) and of BVLC/caffe (`layer`).
"""

import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.errors import WeightsError
from unpool.limits import MAX_FIELDS

Blob = NDArray[np.float32]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; Caffe writes no groups, 3 and 4
_LENGTHS = {_VARINT: 0, _FIXED64: 8, _BYTES: 0, _FIXED32: 4}  # 0: stored before the value, or in it
_NAME_TYPE_BLOBS = {2: (4, 5, 6), 100: (1, 2, 7)}  # the fields of `layers` and of `layer`
_KINDS = {4: "Convolution", 14: "InnerProduct", 39: "Deconvolution", 43: "BN"}  # with weights
_OLD_SHAPE, _DATA, _SHAPE, _DOUBLE_DATA = (1, 2, 3, 4), 5, 7, 8  # the fields of a blob
_NUMBERS = {_DATA: ("<f4", _FIXED32), _DOUBLE_DATA: ("<f8", _FIXED64)}


class Layer(NamedTuple):
    """A layer of a Caffe network, with its weights."""

    name: str  #: as in the prototxt: "conv1_1"
    type: str  #: "Convolution" etc., also if the file has a number
    blobs: list[Blob]  #: weights, then biases, in Caffe's shapes


def read_caffemodel(path: str | os.PathLike[str]) -> Iterator[Layer]:
    """Read the layers that have weights, one at a time, in the order of the file.

    Both of Caffe's formats are read: `layers` (until 2015, with numeric types and blobs of four
    dimensions) and `layer` (with named types and blobs of any shape). All else is skipped.

    Yields:
        Layers. The weights of a convolution are (O, I, k, k), of a deconvolution (I, O, k, k), of
        an inner product (1, 1, O, I) or (O, I); biases are (1, 1, 1, O) or (O,).

    Raises:
        WeightsError: the file is missing or damaged; layers before the damage are yielded first.

    >>> next(read_caffemodel("net.caffemodel"))
    Traceback (most recent call last):
    unpool.errors.WeightsError: net.caffemodel is not a file; give the path of a .caffemodel file
    """
    path = Path(path)
    if not path.is_file():  # opening a pipe would wait for a writer
        raise WeightsError(f"{path} is not a file; give the path of a .caffemodel file")
    try:
        with path.open("rb") as file:
            wire, empty = _Wire(file, path), True
            for field in wire.fields(wire.whole):
                if field.number in _NAME_TYPE_BLOBS:
                    layer = _layer(wire, field)
                    if layer.blobs:
                        empty = False
                        yield layer
            if empty:
                raise wire.broken(wire.whole.stop, "the end, without a layer that has weights")
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}; check the file") from error


class _Field(NamedTuple):
    """A field of a message, and the range of its value in the file."""

    number: int
    wire: int
    start: int
    stop: int
    value: int = 0  #: the value of a varint


class _Wire:
    """The wire format of protobuf, read from disk."""

    def __init__(self, file: io.BufferedReader, path: Path) -> None:
        self._file, self._path, self._left = file, path, MAX_FIELDS
        self.whole = _Field(0, _BYTES, 0, os.fstat(file.fileno()).st_size)

    def broken(self, at: int, what: str) -> WeightsError:
        return WeightsError(
            f"{self._path}, byte {at}: {what}; wanted a whole .caffemodel as Caffe saves it, not "
            "a .prototxt: copy or download the file again"
        )

    def fields(self, message: _Field) -> Iterator[_Field]:
        """The fields of a message, all within it."""
        self.require(message, _BYTES)
        start, stop = message.start, message.stop
        while start < stop:
            tag, at = self.varint(start, stop)
            number, wire, value = tag >> 3, tag & 7, 0
            if number == 0 or wire not in _LENGTHS:
                raise self.broken(start, f"a field of number {number} and wire type {wire}")
            end = at + _LENGTHS[wire]
            if wire == _VARINT:
                value, end = self.varint(at, stop)
            elif wire == _BYTES:
                length, at = self.varint(at, stop)
                end = at + length
            if end > stop:
                raise self.broken(start, f"a field of {end - at} bytes where {stop - at} remain")
            self._left -= 1
            if self._left < 0:
                raise self.broken(start, f"the end of {MAX_FIELDS} fields")
            yield _Field(number, wire, at, end, value)
            start = end

    def varint(self, start: int, stop: int) -> tuple[int, int]:
        """A number stored with seven bits per byte, lowest first, and the offset after it."""
        self._file.seek(start)
        value = 0
        for i, byte in enumerate(self._file.read(min(10, stop - start))):
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                return value, start + i + 1
        raise self.broken(start, "a number without end")

    def require(self, field: _Field, *wires: int) -> None:
        if field.wire not in wires:
            raise self.broken(field.start, f"field {field.number} is of wire type {field.wire}")

    def read(self, field: _Field, target: memoryview) -> None:
        self._file.seek(field.start)
        if self._file.readinto(target) != target.nbytes:
            raise self.broken(field.start, "the file became shorter while it was read")

    def text(self, field: _Field) -> str:
        self.require(field, _BYTES)
        if field.stop - field.start > 1024:
            raise self.broken(field.start, f"a name of {field.stop - field.start} bytes")
        letters = bytearray(field.stop - field.start)
        self.read(field, memoryview(letters))
        return letters.decode(errors="backslashreplace")


def _layer(wire: _Wire, message: _Field) -> Layer:
    of_name, of_type, of_blobs = _NAME_TYPE_BLOBS[message.number]
    name, kind = "", ""
    blobs: list[Blob] = []
    for field in wire.fields(message):
        if field.number == of_name:
            name = wire.text(field)
        elif field.number == of_type and field.wire == _VARINT:
            kind = _KINDS.get(field.value, f"type {field.value}")
        elif field.number == of_type:
            kind = wire.text(field)
        elif field.number == of_blobs:
            if len(blobs) == 64:  # a tiny blob needs more memory as an array than on disk
                raise wire.broken(field.start, "more than 64 blobs in a layer")
            blobs.append(_blob(wire, field))
    return Layer(name, kind, blobs)


def _blob(wire: _Wire, message: _Field) -> Blob:
    """The values of a blob: sizes in a first pass, values read into the array in a second."""
    old_shape: dict[int, int] = {}
    new_shape: list[int] = []
    sizes = dict.fromkeys(_NUMBERS, 0)  # in bytes
    for field in wire.fields(message):
        if field.number in _NUMBERS:
            wire.require(field, _BYTES, _NUMBERS[field.number][1])  # packed, or one at a time
            sizes[field.number] += field.stop - field.start
        elif field.number in _OLD_SHAPE:
            wire.require(field, _VARINT)
            old_shape[field.number] = field.value
        elif field.number == _SHAPE:
            for dimension in _dimensions(wire, field):
                new_shape.append(dimension)
                if len(new_shape) > 32:  # stop before they exceed the memory
                    raise wire.broken(field.start, "a blob of more than 32 dimensions")
    source = _DOUBLE_DATA if sizes[_DOUBLE_DATA] else _DATA  # as Caffe prefers
    shape = tuple(old_shape.get(i, 0) for i in _OLD_SHAPE) if old_shape else tuple(new_shape)
    size, dtype = sizes[source], np.dtype(_NUMBERS[source][0])
    if size == 0 or math.prod(shape) * dtype.itemsize != size:
        raise wire.broken(message.start, f"a blob of shape {shape} with {size} bytes of {dtype}")
    data, filled = np.empty(size, np.uint8), 0
    for field in wire.fields(message):
        if field.number == source:
            end = filled + field.stop - field.start
            wire.read(field, data[filled:end].data)
            filled = end
    with np.errstate(over="ignore", invalid="ignore"):  # doubles that are too large become infinite
        return data.view(dtype).astype(np.float32, copy=False).reshape(shape)


def _dimensions(wire: _Wire, shape: _Field) -> Iterator[int]:
    for field in wire.fields(shape):
        if field.number == 1:
            wire.require(field, _VARINT, _BYTES)
            at = field.start
            while at < field.stop:  # packed, or one at a time
                dimension, at = wire.varint(at, field.stop)
                yield dimension
