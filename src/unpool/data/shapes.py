"""Shapes that annotators draw, and the pixels that they cover.

A pixel belongs to a shape that contains its center. Drawing allocates no more than the part of the
image that a shape touches, and `cost` says beforehand how much work it is.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unpool.data.entries import brief
from unpool.errors import DataError
from unpool.formats.rle import decode_brush, decode_runs
from unpool.vision.images import image_size, read_mask

Mask: TypeAlias = NDArray[np.bool_]
Size: TypeAlias = tuple[int, int]  #: H, W

_PIECE = 1 << 20  # crossings of an outline with rows that are computed at once
_PER_CROSSING = 16  # a crossing costs as much as some pixels

_OUTLINES = (
    "has no usable outline; wanted polygons [[x, y, x, y, x, y ...] ...] "
    "or a run-length code: draw the object, or remove it"
)


class Box(NamedTuple):
    """A part of an image."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The part as slices of an array."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def area(self) -> int:
        """The number of pixels."""
        return (self.y1 - self.y0) * (self.x1 - self.x0)


class Shape(Protocol):
    """What an annotation covers. Both methods raise a `DataError` if it cannot be used."""

    def cost(self, size: Size) -> int:
        """The work of drawing in an image, about in pixels."""

    def draw(self, size: Size) -> tuple[Box, Mask]:
        """The pixels in an image: a part of it, and the mask of this part."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """Something that is no shape."""

    message: str = _OUTLINES

    def cost(self, size: Size) -> int:
        """Raise the `DataError`."""
        raise DataError(self.message)

    def draw(self, size: Size) -> tuple[Box, Mask]:
        """Raise the `DataError`."""
        raise DataError(self.message)


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """One or more polygons in pixels. The even-odd rule holds within each; they are united."""

    points: tuple[NDArray[np.floating], ...]  #: each (N, 2) x, y

    def cost(self, size: Size) -> int:
        """The crossings with rows, and the pixels of the bounding boxes."""
        box, total = self._box(size), 0
        for points in self.points:
            y = np.clip(points[:, 1].astype(np.float64) - box.y0, 0, box.y1 - box.y0)
            crossings = np.abs(y - np.roll(y, -1)).sum() + len(y)
            total += box.area + _PER_CROSSING * int(crossings)
        return total

    def draw(self, size: Size) -> tuple[Box, Mask]:
        """The pixels whose centers are inside, see `fill_polygon`."""
        box, mask = self._box(size), None
        for points in self.points:
            inside = points.astype(np.float64) - (box.x0, box.y0)
            filled = fill_polygon(inside, box.y1 - box.y0, box.x1 - box.x0)
            mask = filled if mask is None else np.logical_or(mask, filled, out=mask)
        assert mask is not None
        return box, mask

    def _box(self, size: Size) -> Box:
        ends = np.array([[points.min(0), points.max(0)] for points in self.points], np.float64)
        x0, y0 = np.clip(np.floor(ends[:, 0].min(0)), 0, size[::-1]).astype(int).tolist()
        x1, y1 = np.clip(np.ceil(ends[:, 1].max(0)), 0, size[::-1]).astype(int).tolist()
        return Box(y0, y1, x0, x1)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """COCO's run-length code: lengths of alternating runs of 0 and 1 in column order."""

    counts: str | NDArray[np.int64]  #: compressed or plain
    size: object  #: [H, W] of the file

    def cost(self, size: Size) -> int:
        """The length of the code, and the columns with pixels."""
        runs, box = self._parse(size)
        return len(runs) + box.area

    def draw(self, size: Size) -> tuple[Box, Mask]:
        """The columns with pixels."""
        runs, box = self._parse(size)
        mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return box, mask.reshape(box.x1 - box.x0, box.y1).T

    def _parse(self, size: Size) -> tuple[NDArray[np.int64], Box]:
        """The columns with pixels, and their runs."""
        height, width = size
        if self.size != [height, width]:
            raise DataError(f"has a code for (H, W) {brief(self.size)}, wanted {[height, width]}")
        runs = decode_runs(self.counts) if isinstance(self.counts, str) else self.counts
        ends = np.cumsum(runs)
        if not len(ends) or ends[-1] != height * width or (np.diff(ends, prepend=0) < 0).any():
            raise DataError(
                f"has a run-length code that does not fill {width} x {height} pixels; export it "
                "again"
            )
        ones = np.flatnonzero(runs[1::2]) * 2 + 1
        if not ones.size:
            return runs[:0], Box(0, height, 0, 0)
        first, last = ones[0] - 1, ones[-1]
        x0, x1 = int(ends[first]) // height, -(-int(ends[last]) // height)
        inner = np.append(runs[first : last + 1], x1 * height - ends[last])
        inner[0] = ends[first] - x0 * height
        return inner, Box(0, height, x0, x1)


@dataclass(frozen=True, slots=True, eq=False)
class Brush:
    """Label Studio's run-length code of a brush."""

    code: bytes

    def cost(self, size: Size) -> int:
        """The image has four channels."""
        return 4 * size[0] * size[1] + len(self.code)

    def draw(self, size: Size) -> tuple[Box, Mask]:
        """The pixels that the brush touched."""
        return Box(0, size[0], 0, size[1]), decode_brush(self.code, *size)


@dataclass(frozen=True, slots=True)
class Disc:
    """An ellipse whose axes are those of the image."""

    x: float
    y: float
    radius_x: float
    radius_y: float

    def cost(self, size: Size) -> int:
        """The pixels of the bounding box."""
        return self._box(size).area

    def draw(self, size: Size) -> tuple[Box, Mask]:
        """The pixels whose centers are inside."""
        box = self._box(size)
        if not (box.area and self.radius_x > 0 and self.radius_y > 0):
            return Box(0, 0, 0, 0), np.zeros((0, 0), np.bool_)
        x = (np.arange(box.x0, box.x1) + 0.5 - self.x) / self.radius_x
        y = (np.arange(box.y0, box.y1) + 0.5 - self.y) / self.radius_y
        return box, x**2 + y[:, None] ** 2 <= 1

    def _box(self, size: Size) -> Box:
        x0, x1 = np.clip([self.x - self.radius_x, self.x + self.radius_x], 0, size[1]).tolist()
        y0, y1 = np.clip([self.y - self.radius_y, self.y + self.radius_y], 0, size[0]).tolist()
        return Box(int(y0), int(np.ceil(y1)), int(x0), int(np.ceil(x1)))


@dataclass(frozen=True, slots=True)
class Bitmap:
    """A small mask as a PNG in base64, whose upper left pixel has a place in the image."""

    code: str
    x: int
    y: int

    def cost(self, size: Size) -> int:
        """At most the image, and the text."""
        return size[0] * size[1] + len(self.code)

    def draw(self, size: Size) -> tuple[Box, Mask]:
        """The part inside the image."""
        try:
            data = base64.b64decode(self.code, validate=True)
            fits = all(np.array(image_size(data)) <= size)
            mask = read_mask(data) > 0 if fits else np.zeros((0, 0), np.bool_)
        except ValueError as error:  # no base64, or an ImageError
            raise DataError(f"has a mask that is no PNG ({error}); draw it again") from None
        if not fits:
            raise DataError("has a mask that is larger than the image; draw it again")
        (height, width), x, y = mask.shape, self.x, self.y
        box = Box(
            min(max(y, 0), size[0]),
            max(min(y + height, size[0]), 0),
            min(max(x, 0), size[1]),
            max(min(x + width, size[1]), 0),
        )
        return box, mask[box.y0 - y : box.y1 - y, box.x0 - x : box.x1 - x]


@dataclass(frozen=True, slots=True)
class Union:
    """Several shapes of one annotation."""

    shapes: tuple[Shape, ...]

    def cost(self, size: Size) -> int:
        """That of all, and the image."""
        return size[0] * size[1] + sum(shape.cost(size) for shape in self.shapes)

    def draw(self, size: Size) -> tuple[Box, Mask]:
        """The pixels of any."""
        mask = np.zeros(size, np.bool_)
        for shape in self.shapes:
            box, part = shape.draw(size)
            mask[box.slices] |= part
        return Box(0, size[0], 0, size[1]), mask


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Polygons:
    """An upright rectangle between two corners.

    >>> rectangle(1, 0, 3, 1).draw((2, 4))[1]
    array([[ True,  True]])
    """
    return Polygons((np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64),))


def polygon(values: Any) -> Shape:
    """A polygon from numbers x, y, x, y ..., or from pairs [[x, y], [x, y] ...].

    >>> polygon([1, 0, 3, 0, 3, 1, 1, 1]).draw((2, 4))[1]
    array([[ True,  True]])
    """
    points = corners(values)
    return Unusable() if points is None or len(points) < 3 else Polygons((points,))


def corners(values: Any) -> NDArray[np.float32] | None:
    """The corners (N, 2) float32 of numbers x, y, x, y ..., or of pairs; None for anything else.

    >>> corners([1, 2, 3, 4])
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    >>> corners([1, 2, True, 4]), corners([1, 2, float("nan"), 4]), corners([1, 2, 3])
    (None, None, None)
    """
    flat = values if _are_numbers(values) else None
    if flat is None and isinstance(values, list) and all(map(_is_pair, values)):
        flat = [number for pair in values for number in pair]
    if not flat or len(flat) % 2:
        return None
    try:
        with np.errstate(over="ignore"):  # found by isfinite
            points = np.array(flat, np.float32).reshape(-1, 2)
    except OverflowError:  # an integer such as 10**400
        return None
    return points if np.isfinite(points).all() else None


def fill_polygon(points: NDArray[np.floating], height: int, width: int) -> Mask:
    """The pixels whose centers are inside a polygon, by the even-odd rule.

    (OpenCV and Pillow also paint the outline, which enlarges objects by half a pixel.)

    The corners (N, 2) are x, y; pixel (0, 0) extends from 0 to 1. In the mask (H, W), centers on
    left and upper edges are inside, on right and lower ones outside.

    >>> fill_polygon(np.array([[1, 0], [3, 0], [3, 1], [1, 1]]), 2, 4).astype(int)
    array([[0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    (x, y), (next_x, next_y) = points.T, np.roll(points, -1, axis=0).T
    turns = np.zeros((height, width + 1), np.uint8)
    for edge, row in _crossings(y, next_y, height):
        along = (row + 0.5 - y[edge]) / (next_y[edge] - y[edge])
        crossing = x[edge] + along * (next_x[edge] - x[edge])
        column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.intp)
        np.bitwise_xor.at(turns, (row, column), 1)
    for band in np.array_split(turns, -(-turns.size // _PIECE) or 1):  # saves memory
        band[:] = np.bitwise_xor.accumulate(band, axis=1)
    return turns[:, :width].view(np.bool_)


def _crossings(
    y: NDArray[np.floating], next_y: NDArray[np.floating], height: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """The edges that cross the centers of rows, and these rows, in pieces of bounded memory."""
    first, after = (
        np.clip(np.ceil(end - 0.5), 0, height).astype(np.intp)
        for end in (np.minimum(y, next_y), np.maximum(y, next_y))
    )
    ends = np.cumsum(after - first)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, _PIECE):
        number = np.arange(start, min(start + _PIECE, total))
        edge = np.searchsorted(ends, number, side="right")
        yield edge, after[edge] - (ends[edge] - number)


def _are_numbers(values: object) -> bool:
    """Whether a value is a list of numbers; True and False are none."""
    return isinstance(values, list) and {*map(type, values)} <= {int, float}


def _is_pair(values: object) -> bool:
    return _are_numbers(values) and len(values) == 2  # type: ignore[arg-type]
