"""Where an image lies on a map: from the tags of a GeoTIFF, or a world file beside the image.

A world file has six numbers: the x and y of the map per column, those per row, and those of the
center of the upper left pixel. For `photo.jpg` it is called `photo.jgw`, `photo.jpgw` or
`photo.wld`. The tags of a GeoTIFF come first, as in GDAL. OGC 19-008, *GeoTIFF standard*, 2019.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

from unpool.errors import ImageError
from unpool.files import read_bytes
from unpool.limits import MAX_PIXELS, MAX_WORLD_FILE
from unpool.vision.images import open_image, read_orientation

_SCALE, _TIEPOINTS, _MATRIX, _KEYS = 33550, 33922, 34264, 34735
_RASTER_TYPE, _GEOGRAPHIC, _PROJECTED = 1025, 2048, 3072
_POINT = 2  # the raster type of coordinates of the centers of pixels
_USER_DEFINED = 32767  # and above: no EPSG code


class Georeference(NamedTuple):
    """The map coordinates of an image."""

    transform: tuple[float, float, float, float, float, float]
    """a, b, c, d, e, f: the corner x, y of a pixel lies at a x + b y + c, d x + e y + f."""
    system: str  #: what the coordinates are, for people
    epsg: int | None = None  #: the code of the coordinate system, if known


PIXELS = Georeference((1, 0, 0, 0, -1, 0), "pixels: x to the right, y upwards from the upper edge")
"""Of an image without a place on a map: y is negated, so that maps show it upright."""


def read_georeference(path: Path | None) -> Georeference:
    """The georeference of an image file; `PIXELS` without one.

    That of a file whose EXIF turns the image is not used, since programs of maps do not turn it.

    Raises:
        ImageError: the world file or the tags are damaged.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> from unpool.vision.images import encode_png
    >>> import numpy as np
    >>> _ = (folder / "map.png").write_bytes(encode_png(np.zeros((2, 2, 3), np.uint8)))
    >>> _ = (folder / "map.pgw").write_text("2\\n0\\n0\\n-2\\n101\\n499\\n")
    >>> read_georeference(folder / "map.png").transform
    (2.0, 0.0, 100.0, 0.0, -2.0, 500.0)
    """
    if path is None:
        return PIXELS
    found = _tags(path) or _world_file(path)
    if found and read_orientation(path) != 1:
        return PIXELS._replace(system=f"{PIXELS.system}, since EXIF turns {path.name}")
    return found or PIXELS


def find_world_file(path: Path) -> Path | None:
    """The world file beside an image, if there is one."""
    suffix = path.suffix[1:]
    endings = {f"{suffix[:1]}{suffix[-1:]}w", f"{suffix}w", "wld"}
    names = [path.with_suffix(f".{e}") for ending in sorted(endings) for e in _cases(ending)]
    return next((name for name in names if name.is_file()), None)


def _world_file(path: Path) -> Georeference | None:
    file = find_world_file(path)
    if file is None:
        return None
    text = read_bytes(file, ImageError, MAX_WORLD_FILE).decode("latin-1")
    try:
        per_column_x, per_column_y, per_row_x, per_row_y, x, y = map(float, text.split())
    except ValueError:
        raise _damaged(file) from None
    x -= (per_column_x + per_row_x) / 2  # from the center of the pixel to its corner
    y -= (per_column_y + per_row_y) / 2
    system = f"map units of {file.name}, which does not name its coordinate system"
    return _checked(file, (per_column_x, per_row_x, x, per_column_y, per_row_y, y), system, None)


def _cases(ending: str) -> tuple[str, str]:
    return ending.lower(), ending.upper()


def _tags(path: Path) -> Georeference | None:
    """The georeference in the tags of a TIFF."""
    with open_image(path, MAX_PIXELS) as im:
        tags: dict[int, Any] = dict(getattr(im, "tag_v2", {}))
    try:
        return _from_tags(path, tags)
    except (TypeError, ValueError, OverflowError):  # values of another type
        raise _damaged(path) from None


def _from_tags(path: Path, tags: dict[int, Any]) -> Georeference | None:
    if _MATRIX in tags and len(tags[_MATRIX]) == 16:
        a, b, _, c, d, e, _, f = map(float, tags[_MATRIX][:8])
    elif len(tags.get(_SCALE, ())) >= 2 and len(tags.get(_TIEPOINTS, ())) >= 6:
        column, row, _, x, y = map(float, tags[_TIEPOINTS][:5])
        a, b, d, e = float(tags[_SCALE][0]), 0.0, 0.0, -float(tags[_SCALE][1])
        c, f = x - a * column, y - e * row
    else:
        return None
    codes = tuple(tags.get(_KEYS, ()))
    keys = {codes[i]: codes[i + 3] for i in range(4, len(codes) - 3, 4) if codes[i + 1] == 0}
    if keys.get(_RASTER_TYPE) == _POINT:
        c, f = c - (a + b) / 2, f - (d + e) / 2
    epsg = keys.get(_PROJECTED) or keys.get(_GEOGRAPHIC)
    known = epsg is not None and 1024 <= epsg < _USER_DEFINED
    system = f"EPSG:{epsg}" if known else "map units, of a system that the file does not name"
    return _checked(path, (a, b, c, d, e, f), system, epsg if known else None)


def _checked(
    path: Path,
    transform: tuple[float, float, float, float, float, float],
    system: str,
    epsg: int | None,
) -> Georeference:
    a, b, _, d, e, _ = transform
    if not all(map(math.isfinite, transform)) or a * e == b * d:
        raise _damaged(path)
    return Georeference(transform, system, epsg)


def _damaged(path: Path) -> ImageError:
    return ImageError(
        f"got {path}, whose georeference is damaged; wanted six numbers that span a plane: correct "
        "or remove it"
    )
