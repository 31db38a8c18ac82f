"""Data sets of rendered views: a folder for each style, with the same object seen from all sides.

The layout is that of the rendered chairs of Aubry et al. ("Seeing 3D chairs", CVPR 2014), on which
the generative networks of Dosovitskiy et al. (CVPR 2015) were trained:

    ROOT/STYLE/renders/image_000_p020_t011_r096.png

The numbers are the index of the view, its elevation and azimuth in whole degrees, and the distance,
which is constant. The public images are RGB on white, 600 pixels wide; those of `unpool render` are
RGBA, with the mask as alpha.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from unpool.errors import DataError, ImageError, OptionError
from unpool.files import read_json
from unpool.limits import MAX_VIEW_PIXELS
from unpool.rendering.textures import straight
from unpool.vision.images import open_image

if TYPE_CHECKING:
    from unpool.vision.images import Pixels

AZIMUTHS = tuple(360 * i / 31 for i in range(31))
"""Azimuths of the public views in degrees: `linspace(0, 360, 32)` without the last."""
ELEVATIONS = (20.0, 30.0)
"""Elevations of the public views in degrees."""

_NAME = re.compile(r"image_(\d+)_p(\d{1,3})_t(\d{1,3})_r\d+\.png")
_WHITE = 250  # the background of the public images is not always 255
_MARGIN = 1 / 32  # of a crop, on each side


class View(NamedTuple):
    """One image of a style."""

    style: int  #: index into `Chairs.styles`
    azimuth: float  #: in degrees, one of `AZIMUTHS`; the camera moves counterclockwise
    elevation: float  #: in degrees above the horizon
    path: Path


class Chairs(NamedTuple):
    """A folder of rendered styles."""

    root: Path
    styles: tuple[str, ...]  #: names of the folders, sorted
    views: tuple[View, ...]  #: of all styles in their order, each sorted by index


def view_name(number: int, azimuth: float, elevation: float) -> str:
    """The file name of a view, as in the public set: degrees are truncated.

    >>> view_name(1, AZIMUTHS[1], 20.0)
    'image_001_p020_t011_r096.png'
    """
    return f"image_{number:03d}_p{int(elevation):03d}_t{int(azimuth):03d}_r096.png"


def open_chairs(folder: str | os.PathLike[str]) -> Chairs:
    """Find the views of a data set, without opening images.

    The azimuth of a view is the one of `AZIMUTHS` nearest to the whole degrees of its name.

    Raises:
        DataError: not a folder, or one without such images.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"got {root}, which is not a folder; pass the root of the rendered styles")
    styles: list[str] = []
    views: list[View] = []
    for renders in sorted(root.glob("*/renders")):
        names = renders.iterdir() if renders.is_dir() else ()
        if found := sorted(filter(None, map(_parse, names))):
            views += [View(len(styles), a, e, path) for _, a, e, path in found]
            styles.append(renders.parent.name)
    if not styles:
        got = f"{root} without images such as STYLE/renders/{view_name(1, AZIMUTHS[1], 20)}"
        raise DataError(f"got {got}; pass the root, or make one with `unpool render`")
    return Chairs(root, tuple(styles), tuple(views))


def read_views(
    chairs: Chairs,
    size: int,
    indices: Sequence[int] | None = None,
    progress: Callable[[int, int], object] | None = None,
    crop: bool | None = None,
) -> "Pixels":
    """Read views at one size.

    The mask of images without alpha is where they are not white. Images of another size are
    resized by area, with colors weighted by the mask.

    Args:
        size: side of the result in pixels.
        indices: into `chairs.views`; all by default.
        progress: called with views read, and views in total.
        crop: crop to the smallest square that holds all views of a style, with a margin of 1/32 on
            each side; by default only images without alpha, as in the paper.

    Returns:
        (N, size, size, 4) uint8, RGBA: straight color, and the mask as alpha.

    Raises:
        DataError: an image cannot be read, or is not square.
        OptionError: a size below 1.
    """
    if size < 1:
        raise OptionError(f"got size={size}; wanted at least 1 pixel")
    chosen = range(len(chairs.views)) if indices is None else indices
    images = np.empty((len(chosen), size, size, 4), np.uint8)
    square = cache(lambda style: _square([v for v in chairs.views if v.style == style]))
    for done, index in enumerate(chosen):
        view = chairs.views[index]
        image, has_alpha = _read(view.path)
        if crop or (crop is None and not has_alpha):
            image = _crop(image, square(view.style))
        images[done] = _resize(image, size)
        if progress:
            progress(done + 1, len(chosen))
    return images


def read_credits(root: Path) -> list[dict[str, Any]]:
    """The credits of the styles in a folder, see `write_credits`; empty without `styles.json`.

    Raises:
        DataError: `styles.json` is damaged.
    """
    path = root / "styles.json"
    return [dict(record) for record in read_records(path, "style")] if path.is_file() else []


def read_records(path: Path, *keys: str) -> Sequence[Mapping[str, Any]]:
    """Read a JSON list of objects with strings under these keys."""
    records = read_json(path, DataError)
    good = isinstance(records, list) and all(isinstance(record, dict) for record in records)
    if not good or not all(isinstance(record.get(key), str) for record in records for key in keys):
        wanted = f"a list of objects with {' and '.join(keys)}"
        raise DataError(f"{path.name} is not {wanted}; correct or delete it")
    return list(records)


def _parse(path: Path) -> tuple[int, float, float, Path] | None:
    """Index, azimuth and elevation of an image by its name; None for other files."""
    if not (match := _NAME.fullmatch(path.name)):
        return None
    index, elevation, degrees = map(int, match.groups())
    azimuth = min(AZIMUTHS, key=lambda known: abs((known - degrees + 180) % 360 - 180))
    return index, azimuth, float(elevation), path


def _read(path: Path) -> tuple["Pixels", bool]:
    """An image as RGBA, and whether the file has alpha."""
    try:
        with open_image(path, MAX_VIEW_PIXELS) as im:
            image = straight(im)
    except ImageError as error:
        raise DataError(str(error)) from None
    height, width, bands = image.shape
    if height != width:
        raise DataError(f"{path} is {width}x{height}; wanted a square image")
    if bands == 4:
        return image, True
    mask = np.where((image < _WHITE).any(axis=-1), 255, 0).astype(np.uint8)
    return np.dstack([image, mask]), False


def _square(views: Sequence[View]) -> tuple[int, int, int] | None:
    """Left, top and side of the square that holds all views of a style; None if all are empty."""
    boxes = np.array([cv2.boundingRect(_read(view.path)[0][..., 3]) for view in views])
    x, y, width, height = boxes[boxes[:, 2] > 0].T
    if not len(x):
        return None
    left, top, right, bottom = x.min(), y.min(), (x + width).max(), (y + height).max()
    side = int(np.ceil(max(right - left, bottom - top) / (1 - 2 * _MARGIN)))
    return (int(left + right) - side) // 2, (int(top + bottom) - side) // 2, side


def _crop(image: "Pixels", square: tuple[int, int, int] | None) -> "Pixels":
    """A square of an image, transparent beyond its border."""
    if square is None:
        return image
    left, top, side = square
    padded = np.pad(image, ((side, side), (side, side), (0, 0)))
    return padded[top + side : top + 2 * side, left + side : left + 2 * side]


def _resize(image: "Pixels", size: int) -> "Pixels":
    """Resize an image; transparent pixels do not bleed their color."""
    if len(image) == size:
        return image
    values = image.astype(np.float32)
    values[..., :3] *= values[..., 3:] / 255
    method = cv2.INTER_AREA if size < len(image) else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(values, (size, size), interpolation=method), np.float32)
    resized[..., :3] *= 255 / np.maximum(resized[..., 3:], 1e-3)
    return np.round(np.clip(resized, 0, 255)).astype(np.uint8)
