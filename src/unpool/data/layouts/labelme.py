"""labelme: a JSON file per image, with polygons and other shapes in pixels."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from unpool.data.entries import as_key, brief, printable
from unpool.data.layouts.contents import ASKED, json_files, kind_of
from unpool.data.layouts.drawn import Part, assemble, class_ids, size_of
from unpool.data.layouts.layout import Format, Layout, Note, Request
from unpool.data.layouts.listing import NAME_FILES
from unpool.data.layouts.photos import Photos
from unpool.data.layouts.splits import short_names
from unpool.data.outlines import Outline, Outlines
from unpool.data.pieces import read_pieces
from unpool.data.shapes import Bitmap, Disc, Shape, Unusable, corners, polygon, rectangle
from unpool.errors import DataError
from unpool.limits import MAX_PIXELS

_FLAT = ("line", "linestrip", "point", "points")  # have no area


class _File(NamedTuple):
    """What is used of a JSON file."""

    path: Path
    image: str  #: its path, as in the file
    size: tuple[int, int]  #: H, W; 0 if not known
    shapes: list[Outline]
    skipped: list[str]  #: the types of shapes without area


def read_labelme(request: Request) -> Layout:
    """The files of a folder of labelme. Later shapes cover earlier ones, as in labelme.

    The classes are the labels in alphabetical order, after those of a list of names. A class
    `_background_` is the background, and `__ignore__` is void.
    """
    root, photos = request.root, Photos(request.root)
    files = [_read(path, photos) for path in json_files(root) if _is_annotation(path)]
    classes, ids = class_ids(root, (shape for file in files for shape in file.shapes))
    folders = sorted({file.path.parent for file in files})
    inside = {folder: folder.relative_to(root).parts[:1] for folder in folders}
    named = short_names({parts[0] for parts in inside.values() if parts})
    usual = {"train", "val"} <= {*named} and all(inside.values())
    splits = {split: name for name, split in named.items()}
    parts = []
    for folder in folders:
        images: dict[str, Outlines] = {}
        for file in (file for file in files if file.path.parent == folder):
            if file.image in images:
                got = f"got {images[file.image]} and {file.path}, both of the image {file.image}"
                raise DataError(f"{got}; remove one, or correct its imagePath")
            found = Outlines(file.path, "", file.size, file.shapes, ids, ordered=True)
            images[file.image] = found
        split = splits[inside[folder][0]] if usual else ""
        parts.append(Part(split, folder, (folder, root / "images", root), images))
    return assemble(root, parts, classes, [*_notes(root, files)], photos)


def _read(path: Path, photos: Photos) -> _File:
    """Read a file; if it is broken, its only shape is `Unusable`."""
    image, sides, shapes, skipped = "", {}, [], []
    listed = False
    try:
        for name, value in read_pieces(path):
            if name == "imagePath" and isinstance(value, str):
                image = printable(value)
            elif name in ("imageHeight", "imageWidth"):
                sides[name] = as_key(value)
            elif name == "shapes" and isinstance(value, Iterator):
                listed = True
                for number, entry in enumerate(value, 1):
                    outline = _read_shape(number, entry)
                    if isinstance(outline, Outline):
                        shapes.append(outline)
                    else:
                        skipped.append(outline)
        if not listed:
            raise DataError("it has no list 'shapes'; save it again in labelme")
    except DataError as error:
        shapes = [Outline(1, None, Unusable(f"cannot be read: {error}"))]
    found = photos.find(image, path.parent) if image else []
    if not found:  # the image was renamed together with its annotations
        found = [other for other in photos.paths if other.with_suffix("") == path.with_suffix("")]
        image = found[0].name if len(found) == 1 else image or f"{path.stem}.jpg"
    height, width = sides.get("imageHeight"), sides.get("imageWidth")
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else (0, 0)
    if min(size) <= 0 or size[0] * size[1] > MAX_PIXELS:
        size = size_of(found)
    return _File(path, image, size, shapes, skipped)


def _read_shape(number: int, entry: Any) -> Outline | str:
    """A shape, or the type of a shape that has no area."""
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        return Outline(number, None, Unusable("has no label; draw it again"))
    kind, label, group = entry.get("shape_type"), printable(entry["label"]), entry.get("group_id")
    if kind in _FLAT:
        return str(kind)
    return Outline(number, label, as_shape(kind, entry), group=as_key(group))


def as_shape(kind: object, entry: dict[str, Any]) -> Shape:
    """A shape of labelme: `polygon`, `rectangle`, `oriented_rectangle`, `circle` or `mask`.

    >>> as_shape("circle", {"points": [[2, 2], [2, 4]]})
    Disc(x=2.0, y=2.0, radius_x=2.0, radius_y=2.0)
    """
    points = corners(entry.get("points"))
    if points is None:
        return Unusable("has no points; draw it again")
    match kind, points.astype(float).tolist():
        case None | "polygon" | "oriented_rectangle" | "rotation", [_, _, _, *_]:
            return polygon(points.ravel().tolist())
        case "rectangle", [[x0, y0], [x1, y1]]:
            return rectangle(x0, y0, x1, y1)
        case "rectangle", [_, _, _, _]:
            return polygon(points.ravel().tolist())
        case "circle", [[x, y], [edge_x, edge_y]]:
            radius = math.hypot(edge_x - x, edge_y - y)
            return Disc(x, y, radius, radius)
        case "mask", [[x, y], *_] if isinstance(entry.get("mask"), str):
            return Bitmap(entry["mask"], round(x), round(y))
    return Unusable(f"is a {brief(kind)} of {len(points)} points, which is no area; draw a polygon")


def _notes(root: Path, files: list[_File]) -> Iterator[Note]:
    """What was skipped."""
    count = Counter(kind for file in files for kind in file.skipped)
    if count:
        kinds = ", ".join(f"{n} of type {kind}" for kind, n in sorted(count.items()))
        first = next(file.path for file in files if file.skipped)
        message = f"is one of the files with shapes that have no area and are skipped ({kinds}); "
        yield Note("skipped-shapes", first, message + "draw polygons to use them")


def _is_annotation(path: Path) -> bool:
    """Whether a file is one of labelme, or a broken one that may have been."""
    kind = kind_of(path)
    return kind == "labelme" or (kind is None and path.name.lower() not in NAME_FILES)


def _accepts(root: Path) -> bool:
    return any(kind_of(path) == "labelme" for path in json_files(root)[:ASKED])


LABELME = Format("labelme", ("SPLIT.json",), read_labelme, _accepts)
