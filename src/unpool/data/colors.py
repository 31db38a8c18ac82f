"""Read masks by the colors of their pixels."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unpool.errors import ImageError
from unpool.vision.images import VOID, Pixels, open_mask, read_mask

WRITE = "write labelmap.txt at the root of the data set, with a line name:r,g,b for each class"
"""How to say which class a color means."""

CREAM = 0xE0E0C0
"""VOC's color of void."""

_COLORED = ("RGB", "RGBA", "LA", "PA")  # modes of masks that have colors and no indices
_GRAY = 0x10101  # times a gray value: its color as a number
_STRIP = 1 << 20  # pixels of a mask that are looked up at a time, to save memory
_MOST = 1 << 16  # colors of a mask; a photo has more


class Coloring(NamedTuple):
    """The class ids of colors."""

    ids: Mapping[int, int]  #: by color, 0xRRGGBB
    source: str  #: whose colors they are, for messages
    everywhere: bool = True  #: also of masks whose pixels have indices, which are not trusted then


class MaskColors(NamedTuple):
    """The colors of a mask, as numbers 0xRRGGBB."""

    path: Path
    colors: NDArray[np.integer]  #: of a palette, by index; or all that the pixels have
    used: list[int]  #: the indices that pixels have
    indexed: bool


def read_colored(path: Path, coloring: Coloring) -> Pixels:
    """Read the labels, (H, W) uint8, of a mask by its colors, or by its indices if it has none.

    A gray mask is read by color if all its values are colors of classes. Transparent pixels are
    black.

    Raises:
        ImageError: the mask cannot be read, or has colors of no class.
    """
    with open_mask(path) as im:
        pixels = _colors(im)
        indexed = im.mode not in _COLORED
    if pixels is None or (indexed and not coloring.everywhere):
        return read_mask(path)
    indices, colors = pixels
    used = np.flatnonzero(count_ids(indices, len(colors)))
    colors[VOID : VOID + 1][colors[VOID : VOID + 1] < 0] = CREAM  # palettes may end before void
    unknown = [color for color in colors[used].tolist() if color not in coloring.ids]
    if unknown and _is_gray(colors[used], used if indexed else None):
        return read_mask(path)
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        got = f"the color {rgb_text(unknown[0])}" if unknown[0] >= 0 else "an index without color"
        raise ImageError(
            f"{path}: has {got}{more}, wanted the colors of classes in "
            f"{coloring.source}; correct the mask, or {WRITE}"
        )
    table = np.array([coloring.ids.get(color, 0) for color in colors.tolist()], np.uint8)
    return table[indices]


def read_object_numbers(path: Path) -> NDArray[np.int32]:
    """Read an instance map (H, W): indices, or, in a mask with colors, a number for each color.

    Black is 0, and VOC's color of void is 255.

    Raises:
        ImageError: the mask cannot be read.
    """
    with open_mask(path) as im:
        pixels = _colors(im) if im.mode in _COLORED else None
    if pixels is None:
        return read_mask(path).astype(np.int32)
    indices, colors = pixels
    numbers = np.arange(1, len(colors) + 1, dtype=np.int32)
    numbers[numbers >= VOID] += 1
    numbers[colors == 0] = 0
    numbers[colors == CREAM] = VOID
    return numbers[indices]


def scan_colors(path: Path) -> MaskColors | None:
    """The colors of a mask, and the indices in use; None for a gray mask, or one that is broken."""
    try:
        with open_mask(path) as im:
            indexed = im.mode == "P"
            pixels = _colors(im) if indexed or im.mode in _COLORED else None
    except ImageError:
        return None
    if pixels is None:
        return None
    indices, colors = pixels
    used = np.flatnonzero(count_ids(indices, len(colors)))
    used = used[colors[used] >= 0]
    # with only 0 in use, the rest of a palette tells whether it is one of grays
    rows = np.flatnonzero(colors >= 0) if indexed and used.tolist() == [0] else used
    if not used.size or _is_gray(colors[rows], rows if indexed else None):
        return None
    return MaskColors(path, colors, used.tolist(), indexed)


def stored_palette(path: Path) -> tuple[str, bytes] | None:
    """The palette of a mask as the file has it, without decoding it; None if it has none."""
    try:
        with open_mask(path) as im:
            if im.mode != "P" or im.palette is None:
                return None
            order, stored = im.palette.getdata()
            return order, bytes(stored)
    except ImageError:
        return None


def count_ids(labels: NDArray[np.integer], least: int = VOID + 1) -> NDArray[np.int64]:
    """The number of pixels of each id from 0, for `least` ids or more.

    `np.bincount` alone would take 8 bytes a pixel.

    >>> count_ids(np.array([[0, 2], [2, 2]]), 4).tolist()
    [1, 0, 3, 0]
    """
    flat = labels.reshape(-1)
    parts = (flat[i : i + _STRIP] for i in range(0, flat.size, _STRIP))
    return sum((np.bincount(part, minlength=least) for part in parts), np.zeros(least, np.int64))


def has_colors(path: Path) -> bool:
    """Whether the pixels of a mask have colors and no indices, by its header."""
    try:
        with open_mask(path) as im:
            return im.mode in _COLORED
    except ImageError:
        return False


def as_numbers(colors: NDArray[np.integer]) -> NDArray[np.int32]:
    """Colors (..., 3) as numbers, 0xRRGGBB."""
    red, green, blue = (colors[..., i].astype(np.int32) for i in range(3))
    return red << 16 | green << 8 | blue


def distinct(parts: Iterable[NDArray[np.integer]]) -> NDArray[np.int32]:
    """The colors, 0xRRGGBB, that occur in the parts of an image, sorted."""
    present = np.zeros(1 << 24, bool)
    for codes in parts:
        present[codes] = True
    return np.flatnonzero(present).astype(np.int32)


def is_gray(colors: NDArray[np.integer]) -> bool:
    """Whether colors, 0xRRGGBB, are gray."""
    return bool((colors == colors % 256 * _GRAY).all())


def rgb_text(color: int) -> str:
    """A number 0xRRGGBB as red, green and blue.

    >>> rgb_text(0xFF0080)
    '(255, 0, 128)'
    """
    return str((color >> 16, color >> 8 & 255, color & 255))


def _colors(im: Image.Image) -> tuple[NDArray[np.integer], NDArray[np.integer]] | None:
    """Indices (H, W) into a list of colors, 0xRRGGBB, -1 where a palette ends; or None."""
    im.load()
    if im.mode == "P":
        colors = np.full(256, -1, np.int32)
        palette = as_numbers(np.reshape(im.getpalette() or [], (-1, 3)))
        colors[: len(palette)] = palette
        return np.array(im), colors
    if im.mode in ("L", "1"):
        return np.array(im.convert("L")), np.arange(256) * _GRAY
    if im.mode not in _COLORED:
        return None
    colors = distinct(codes for _, codes in _strips(im))
    if len(colors) > _MOST:
        raise ImageError(f"has {len(colors)} colors, as a photo has, wanted a mask; put one there")
    places = np.zeros(1 << 24, np.uint16)
    places[colors] = np.arange(len(colors))
    indices = np.empty((im.height, im.width), np.uint16)
    for rows, codes in _strips(im):
        indices[rows] = places[codes]
    return indices, colors


def _strips(im: Image.Image) -> Iterator[tuple[slice, NDArray[np.int32]]]:
    """The colors of an image, 0xRRGGBB, in strips of rows; transparent pixels are black."""
    height = max(_STRIP // im.width, 1)
    for top in range(0, im.height, height):
        bottom = min(top + height, im.height)
        strip = im.crop((0, top, im.width, bottom))
        if im.mode == "RGB":
            yield slice(top, bottom), as_numbers(np.array(strip))
            continue
        pixels = np.array(strip.convert("RGBA"))
        alpha = pixels[..., 3]
        if ((alpha > 0) & (alpha < 255)).any():
            raise ImageError(
                "has half-transparent pixels, as smoothed edges are; draw it without smoothing"
            )
        yield slice(top, bottom), as_numbers(pixels[..., :3]) * (alpha > 0)


def _is_gray(colors: NDArray[np.integer], indices: NDArray[np.intp] | None) -> bool:
    """Whether colors are gray; of a palette, whether they are the gray values of their indices."""
    return is_gray(colors) if indices is None else bool((colors == indices * _GRAY).all())
