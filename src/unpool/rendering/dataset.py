"""Rendered objects: a folder a style, and in it the same body seen from around.

The layout is that of the rendered chairs of Aubry et al. (Seeing 3D chairs, CVPR 2014), which the
generative networks of Dosovitskiy et al. (CVPR 2015) learned from:

    ROOT/STYLE/renders/image_000_p020_t011_r096.png

The numbers are that of the view, the elevation and the azimuth in whole degrees, and the distance,
which is the same everywhere. The public images are RGB on white, 600 pixels wide; those that
`unpool render` makes are RGBA, with the mask as alpha.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from unpool.errors import DataError, OptionError
from unpool.vision.images import Pixels

AZIMUTHS = tuple(360 * i / 31 for i in range(31))
"""Of the public views, in degrees: `linspace(0, 360, 32)` without its last."""
ELEVATIONS = (20.0, 30.0)
"""Of the public views, in degrees."""

_NAME = re.compile(r"image_(\d+)_p(\d+)_t(\d+)_r\d+\.png")
_WHITE = 250  # of the public images, whose white is not always 255
_MARGIN = 1 / 32  # on each side, of a crop


class View(NamedTuple):
    """One image of a style."""

    style: int
    """Its number among the styles."""
    azimuth: float
    """In degrees, one of `AZIMUTHS`; where it grows, the camera goes against the clock."""
    elevation: float
    """In degrees, above the horizon."""
    path: Path


class Chairs(NamedTuple):
    """A folder of rendered styles."""

    root: Path
    styles: tuple[str, ...]
    """The names of the folders, sorted."""
    views: tuple[View, ...]
    """Of all styles, in their order, each sorted by the number of the view."""


def view_name(number: int, azimuth: float, elevation: float) -> str:
    """The name of the image of a view, as in the public set: degrees are cut, not rounded.

    >>> view_name(1, AZIMUTHS[1], 20.0)
    'image_001_p020_t011_r096.png'
    """
    return f"image_{number:03d}_p{int(elevation):03d}_t{int(azimuth):03d}_r096.png"


def open_chairs(folder: str | os.PathLike[str]) -> Chairs:
    """Find the views of a folder of rendered styles; no image is opened.

    Args:
        folder: the root, which has a folder for each style.

    Returns:
        Its styles and views. The azimuth of a view is the one of `AZIMUTHS` that is nearest to
        the whole degrees of its name.

    Raises:
        DataError: it is no folder, or has no such images.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"got {root}, which is not a folder; pass the root of the rendered styles")
    styles: list[str] = []
    views: list[View] = []
    for renders in sorted(root.glob("*/renders")):
        found = sorted((m, renders) for p in renders.iterdir() if (m := _parsed(p.name)))
        if found:
            views += [View(len(styles), a, e, renders / name) for (_, a, e, name), _ in found]
            styles.append(renders.parent.name)
    if not styles:
        raise DataError(
            f"got {root} without images such as STYLE/renders/{view_name(1, AZIMUTHS[1], 20)}; "
            "pass the root of the rendered styles, or make one with `unpool render`"
        )
    return Chairs(root, tuple(styles), tuple(views))


def read_views(
    chairs: Chairs,
    size: int,
    indices: Sequence[int] | None = None,
    progress: Callable[[int, int], object] | None = None,
    crop: bool | None = None,
) -> Pixels:
    """Read views of a folder, at one size.

    Images without alpha are read as drawn on white: their mask is what is not white. Images
    of another size are resized by area, color weighted by the mask.

    Args:
        chairs: the folder, from `open_chairs`.
        size: of the result, in pixels.
        indices: into `chairs.views`; all when not given.
        progress: called with how many are read, and how many there are.
        crop: cut each image to the smallest square that holds all views of its style, with a
            margin of 1/32 on each side; by default those without alpha, as in the paper.

    Returns:
        (N, size, size, 4) uint8, RGBA: straight color, and the mask as alpha.

    Raises:
        DataError: an image cannot be read, or is not square.
        OptionError: a size below 1.
    """
    if size < 1:
        raise OptionError(f"got size {size}; wanted at least 1 pixel")
    chosen = range(len(chairs.views)) if indices is None else indices
    images = np.empty((len(chosen), size, size, 4), np.uint8)
    squares: dict[int, tuple[int, int, int] | None] = {}
    for done, index in enumerate(chosen):
        view = chairs.views[index]
        image, has_alpha = _read(view.path)
        if crop or (crop is None and not has_alpha):
            if view.style not in squares:
                squares[view.style] = _square(chairs, view.style)
            image = _cut(image, squares[view.style])
        images[done] = _resized(image, size)
        if progress:
            progress(done + 1, len(chosen))
    return images


def _parsed(name: str) -> tuple[int, float, float, str] | None:
    """The number, azimuth and elevation in the name of an image."""
    if not (match := _NAME.fullmatch(name)):
        return None
    number, elevation, degrees = map(int, match.groups())
    azimuth = min(AZIMUTHS, key=lambda known: abs((known - degrees + 180) % 360 - 180))
    return number, azimuth, float(elevation), name


def _read(path: Path) -> tuple[Pixels, bool]:
    """An image as RGBA, and whether its alpha was in the file."""
    try:
        with Image.open(path, formats=["PNG"]) as im:
            has_alpha = "A" in im.getbands() or "transparency" in im.info
            image = np.array(im.convert("RGBA"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; render or unpack it again") from None
    if image.shape[0] != image.shape[1]:
        height, width = image.shape[:2]
        raise DataError(f"{path} is {width}x{height}; wanted a square image")
    if not has_alpha:
        image[..., 3] = np.where((image[..., :3] < _WHITE).any(axis=-1), 255, 0)
    return image, has_alpha


def _square(chairs: Chairs, style: int) -> tuple[int, int, int] | None:
    """Left, top and side of the square that holds all views of a style; None if they are empty."""
    seen: list[NDArray[np.int64]] = []
    for view in chairs.views:
        if view.style == style:
            rows, columns = np.nonzero(_read(view.path)[0][..., 3])
            if len(rows):
                seen.append(np.array([columns.min(), rows.min(), -columns.max(), -rows.max()]))
    if not seen:
        return None
    left, top, right, bottom = np.min(seen, axis=0) * [1, 1, -1, -1] + [0, 0, 1, 1]
    side = int(np.ceil(max(right - left, bottom - top) / (1 - 2 * _MARGIN)))
    return (int(left + right) - side) // 2, (int(top + bottom) - side) // 2, side


def _cut(image: Pixels, square: tuple[int, int, int] | None) -> Pixels:
    """A square of an image, transparent where it reaches beyond."""
    if square is None:
        return image
    left, top, side = square
    padded = np.pad(image, ((side, side), (side, side), (0, 0)))
    return padded[top + side : top + 2 * side, left + side : left + 2 * side]


def _resized(image: Pixels, size: int) -> Pixels:
    """An image of another size; what is transparent lends no color to its neighbors."""
    if len(image) == size:
        return image
    values = image.astype(np.float32)
    values[..., :3] *= values[..., 3:] / 255
    smaller = size < len(image)
    way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(values, (size, size), interpolation=way), np.float32)
    resized[..., :3] *= 255 / np.maximum(resized[..., 3:], 1e-3)
    return np.round(np.clip(resized, 0, 255)).astype(np.uint8)
