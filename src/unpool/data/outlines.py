"""The annotated objects of an image, and drawing them as labels and instances."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from unpool.data.entries import brief
from unpool.errors import DataError
from unpool.limits import MAX_AT_ONCE, MAX_DRAWN, MAX_KEPT
from unpool.vision.images import VOID, Pixels

if TYPE_CHECKING:
    from unpool.data.shapes import Box, Mask, Shape, Size

Crowd: TypeAlias = Literal["void", "object"]  #: how `iscrowd=1` is read


_PER_OBJECT = 20_000  # the work besides drawing, in pixels

_Result = TypeVar("_Result")


class Outline(NamedTuple):
    """An annotated object."""

    id: object  #: for messages
    category: object  #: its key in the file
    shape: "Shape"
    crowd: bool = False  #: a region of many objects
    group: object = None  #: outlines of one group are one object


@dataclass(frozen=True, eq=False)
class Outlines:
    """The annotated objects of one image."""

    file: Path  #: the file that has them
    name: str  #: of the image, in the file
    size: tuple[int, int]  #: H, W
    objects: Sequence[Outline]
    ids: Mapping[object, int]  #: class ids by category
    ordered: bool = False  #: later ones cover earlier ones; else small ones cover large ones
    drawn: Collection[object] = ()  #: the categories whose crowds are read as objects

    def __str__(self) -> str:
        return f"{self.file} ({self.name})" if self.name else str(self.file)


def require_size(outlines: Outlines, size: tuple[int, int]) -> None:
    """Refuse outlines of a large image that the image (H, W) is not, before they are drawn.

    Raises:
        DataError: the sizes differ, and the stated one would need much memory.
    """
    if math.prod(outlines.size) > MAX_AT_ONCE and outlines.size != size:
        (height, width), (real_height, real_width) = outlines.size, size
        raise DataError(
            f"{outlines}: is {width} x {height}, but its image is {real_width} x {real_height}; "
            "correct the size"
        )


class Rasters(NamedTuple):
    """The objects of an image, rasterized."""

    labels: Pixels  #: (H, W) class ids; 255 (void) for crowds
    instances: NDArray[np.int32]  #: (H, W) object numbers from 1; 255 is void and no object
    empty: list[object]  #: ids of annotations that contain no pixel center


def rasterize(outlines: Outlines) -> Rasters:
    """Rasterize the objects of an image, void first and small ones last, unless they are ordered.

    Raises:
        DataError: the category of an annotation is unknown, its outline cannot be used, or all are
            more work than `MAX_DRAWN`.
    """
    size, found = outlines.size, outlines.objects
    if (work := len(found) * _PER_OBJECT) <= MAX_DRAWN:
        work += sum(_attempt(outlines, outline, outline.shape.cost) for outline in found)
    if work > MAX_DRAWN:
        raise DataError(
            f"{outlines}: the {len(found)} annotations of this image are as much work as {work} "
            f"pixels, wanted {MAX_DRAWN} at most; remove duplicates, or cut the image"
        )
    labels = [_label(outlines, outline) for outline in found]
    kept: dict[int, tuple[Box, Mask]] = {}
    areas, space = [], MAX_KEPT
    for i, outline in enumerate(found):
        box, mask = _attempt(outlines, outline, outline.shape.draw)
        areas.append(int(np.count_nonzero(mask)))
        if mask.size <= space:  # the others are drawn a second time
            kept[i] = box, mask.copy()
            space -= mask.size

    def order(i: int) -> tuple[bool, int]:
        return (True, 0) if outlines.ordered else (labels[i] != VOID, -areas[i])

    pixels, instances = np.zeros(size, np.uint8), np.zeros(size, np.int32)
    numbers = _numbers(found)
    for i in sorted(range(len(found)), key=order):
        box, mask = kept.pop(i) if i in kept else _attempt(outlines, found[i], found[i].shape.draw)
        pixels[box.slices][mask] = labels[i]
        instances[box.slices][mask] = labels[i] and (VOID if labels[i] == VOID else numbers[i])
    empty = [outline.id for outline, area in zip(found, areas, strict=True) if not area]
    return Rasters(pixels, instances, empty)


def _numbers(found: Sequence[Outline]) -> list[int]:
    """The object numbers, without 255; those of a group share the first one's."""
    firsts: dict[object, int] = {}
    numbers = []
    for i, outline in enumerate(found, 1):
        key = (outline.category, outline.group) if outline.group is not None else (None, i)
        first = firsts.setdefault(key, i)
        numbers.append(first + (first >= VOID))
    return numbers


def _label(outlines: Outlines, outline: Outline) -> int:
    category, ids = outline.category, outlines.ids
    if outline.crowd and category not in outlines.drawn:
        return VOID
    if category in ids:
        return ids[category]
    found = "has no category" if category is None else f"has the unknown category {brief(category)}"
    raise DataError(
        f"{outlines}: annotation {brief(outline.id)} {found}; give it a category_id of the file's "
        "categories"
    )


def _attempt(outlines: Outlines, outline: Outline, method: Callable[["Size"], _Result]) -> _Result:
    """Call a method of a shape; its error names the annotation."""
    try:
        return method(outlines.size)
    except DataError as error:
        raise DataError(f"{outlines}: annotation {brief(outline.id)} {error}") from None
