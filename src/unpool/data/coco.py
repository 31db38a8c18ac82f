"""Read COCO's instance annotations: outlines of objects, in one JSON file per split.

An object is a list of polygons or a run-length code (RLE, plain or compressed). Objects are
rasterized from the largest to the smallest, so that a cup stays visible on its table.

Lin et al., *Microsoft COCO: common objects in context*, ECCV 2014.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.errors import DataError
from unpool.limits import MAX_PIXELS
from unpool.vision.images import VOID, Pixels

Mask = NDArray[np.bool_]

_KEPT = {  # fields of the JSON objects that are used
    *("images", "annotations", "categories", "id", "file_name", "height", "width", "name"),
    *("image_id", "category_id", "segmentation", "iscrowd", "counts", "size"),
}


@dataclass(frozen=True, eq=False)
class Outlines:
    """The annotated objects of one image."""

    file: Path  #: the JSON file
    name: str  #: of the image, in the file
    size: tuple[int, int]  #: H, W
    objects: list[dict[str, Any]]  #: annotations as in the file
    ids: Mapping[object, int]  #: class ids by category ids of the file

    def __str__(self) -> str:
        return f"{self.file} ({self.name})"


class Annotations(NamedTuple):
    """The contents of a JSON file."""

    images: dict[str, Outlines]  #: by file name of the image
    categories: dict[object, str]  #: names by category ids of the file, ordered by id
    orphans: int  #: number of annotations whose image is not in the file


class Rasters(NamedTuple):
    """The objects of an image, rasterized."""

    labels: Pixels  #: (H, W) class ids; 255 (void) for crowds
    instances: NDArray[np.int32]  #: (H, W) object numbers from 1; 255 is void and no object
    empty: list[object]  #: ids of annotations that contain no pixel center


def find_annotations(root: Path) -> dict[str, Path]:
    """Find the files `annotations/instances_SPLIT.json` by split.

    The year at the end of a split is dropped if names stay unique: "train" for
    `instances_train2017.json`.
    """
    paths = sorted(root.glob("annotations/instances_*.json"), key=lambda path: path.stem)
    found = {path.stem.removeprefix("instances_"): path for path in paths}
    short = {name: without_year(name) for name in found}
    count = Counter(short.values())
    return {part if count[part] == 1 else name: found[name] for name, part in short.items()}


def without_year(split: str) -> str:
    """The name of a split without digits at its end, unless it has only digits.

    >>> without_year("train2017"), without_year("2017")
    ('train', '2017')
    """
    return split.rstrip("-_0123456789") or split


def read_annotations(path: Path) -> Annotations:
    """Read a COCO file; nothing is rasterized yet.

    Raises:
        DataError: it is not JSON or not in COCO's format, or has more than 254 categories.
    """
    try:
        with path.open("rb") as file:
            content = json.load(file, object_hook=_compact)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"got {path}, which is not JSON ({error}); export it again") from error
    categories = _categories(path, content)
    ids = {key: i for i, key in enumerate(categories, 1)}
    images: dict[str, Outlines] = {}
    objects: dict[object, list[dict[str, Any]]] = {}
    for entry in _entries(path, content, "images", "id", "file_name", "height", "width"):
        height, width, name = entry["height"], entry["width"], str(entry["file_name"])
        good = isinstance(height, int) and isinstance(width, int) and min(height, width) > 0
        if not good or height * width > MAX_PIXELS:
            raise DataError(f"got {path} with {name} of {width} x {height}; write its size")
        if name in images or entry["id"] in objects:
            raise DataError(f"got {path} with {name} or its id twice; list each image once")
        objects[entry["id"]] = []
        images[name] = Outlines(path, name, (height, width), objects[entry["id"]], ids)
    orphans = 0
    for entry in _entries(path, content, "annotations", "image_id"):
        if entry["image_id"] in objects:
            objects[entry["image_id"]].append(entry)
        else:
            orphans += 1
    return Annotations(images, categories, orphans)


def rasterize(outlines: Outlines) -> Rasters:
    """Rasterize the objects of an image: crowds as void, then the others, largest first.

    Raises:
        DataError: the category of an annotation is unknown, or its outline cannot be used.
    """
    labels = np.zeros(outlines.size, np.uint8)
    instances = np.zeros(outlines.size, np.int32)
    parts, empty = [], []
    for number, entry in enumerate(outlines.objects, 1):
        try:
            crowd = entry.get("iscrowd")
            label = VOID if crowd else _label(outlines.ids, entry.get("category_id"))
            box, mask = _outline(entry.get("segmentation"), outlines.size)
        except DataError as error:
            raise DataError(f"{outlines}: annotation {entry.get('id', number)} {error}") from None
        area = int(mask.sum())
        if not area:
            empty.append(entry.get("id", number))
        number = VOID if label == VOID else number + (number >= VOID)
        parts.append((label != VOID, -area, number, label, box, mask))
    for _, _, number, label, box, mask in sorted(parts, key=lambda part: part[:2]):
        labels[box][mask] = label
        instances[box][mask] = number
    return Rasters(labels, instances, empty)


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
    rows = np.arange(height) + 0.5
    edge, row = np.nonzero((y[:, None] <= rows) != (next_y[:, None] <= rows))
    along = (rows[row] - y[edge]) / (next_y[edge] - y[edge])
    crossing = x[edge] + along * (next_x[edge] - x[edge])
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.intp)
    turns = np.zeros((height, width + 1), np.uint8)
    np.bitwise_xor.at(turns, (row, column), 1)
    return np.bitwise_xor.accumulate(turns[:, :width], axis=1).astype(np.bool_)


def decode_rle(counts: str | Sequence[int], height: int, width: int) -> Mask:
    """Decode a run-length code to a mask (H, W).

    The code has the lengths of alternating runs of 0 and 1 in column order, or is COCO's compressed
    string.

    Raises:
        DataError: the code is damaged, or has another size.

    >>> decode_rle([1, 2, 3], 2, 3).astype(int)
    array([[0, 1, 0],
           [1, 0, 0]])
    """
    runs = _decompressed(counts) if isinstance(counts, str) else list(counts)
    whole = all(type(run) is int and run >= 0 for run in runs)
    if not whole or sum(runs) != height * width:
        raise DataError(
            f"has a run-length code that does not fill {width} x {height} pixels; export it again"
        )
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _decompressed(text: str) -> list[int]:
    """The runs of a compressed code: 5 bits per character, the 6th is set if more follow.

    From the fourth run on, the difference from the run before the last is stored.
    """
    runs: list[int] = []
    value = shift = 0
    for code in text.encode():
        value |= (code - 48 & 31) << shift
        shift += 5
        if not code - 48 & 32:
            value -= (code - 48 & 16) << shift - 4  # the last 5 bits carry the sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _outline(found: object, size: tuple[int, int]) -> tuple[tuple[slice, slice], Mask]:
    """The bounding box of an object as slices of the image, and its mask within that."""
    height, width = size
    match found:
        case {"counts": str() | list() as counts, "size": shape}:
            if shape != [height, width]:
                raise DataError(f"has a code for (H, W) {shape}, wanted {[height, width]}")
            mask = decode_rle(counts, height, width)
            y, x = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            ends = (y[0], y[-1] + 1, x[0], x[-1] + 1) if y.size else (0, 0, 0, 0)
            box = slice(*ends[:2]), slice(*ends[2:])
            return box, mask[box].copy()  # a copy, to save memory with many objects
        case [_, *_] if all(_is_polygon(polygon) for polygon in found):
            polygons = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in found]
        case _:
            raise DataError(
                "has no usable outline; wanted polygons [[x, y, x, y, x, y ...] ...] "
                "or a run-length code: draw the object, or remove it"
            )
    corners = np.concatenate(polygons)
    x0, y0 = np.clip(np.floor(corners.min(0)), 0, (width, height)).astype(int)
    x1, y1 = np.clip(np.ceil(corners.max(0)), 0, (width, height)).astype(int)
    # overlapping parts of an object are united; the even-odd rule holds within each polygon
    masks = [fill_polygon(polygon - (x0, y0), y1 - y0, x1 - x0) for polygon in polygons]
    return (slice(y0, y1), slice(x0, x1)), np.logical_or.reduce(masks)


def _is_polygon(found: object) -> bool:
    if not isinstance(found, np.ndarray):  # _compact leaves lists that are not all numbers
        return False
    whole = found.ndim == 1 and len(found) >= 6 and not len(found) % 2
    return whole and bool(np.isfinite(found).all())


def _label(ids: Mapping[object, int], category: object) -> int:
    if isinstance(category, int | str) and category in ids:
        return ids[category]
    found = "has no category" if category is None else f"has the unknown category {category!r}"
    raise DataError(f"{found}; give it a category_id of the file's categories")


def _compact(entry: dict[str, Any]) -> dict[str, Any]:
    """Drop unused fields of a JSON object, and convert its polygons to arrays.

    Called for each object as it is read, since COCO has some 50 million coordinates.
    """
    kept = {key: value for key, value in entry.items() if key in _KEPT}
    if isinstance(polygons := kept.get("segmentation"), list):
        with suppress(TypeError, ValueError):  # errors are reported when it is rasterized
            kept["segmentation"] = [np.array(polygon, np.float32) for polygon in polygons]
    return kept


def _entries(path: Path, content: object, key: str, *fields: str) -> list[dict[str, Any]]:
    entries = content.get(key) if isinstance(content, dict) else None
    wanted = f"wanted a list {key!r} of objects with {', '.join(fields)}"
    if not isinstance(entries, list):
        raise DataError(f"got {path} without {key!r}; {wanted}: export it as COCO instances")
    for i, entry in enumerate(entries):
        values = [entry.get(field) for field in fields] if isinstance(entry, dict) else [None]
        if any(not isinstance(value, int | str) for value in values):
            raise DataError(f"got {path} whose {key}[{i}] is incomplete; {wanted}: complete it")
    return entries


def _categories(path: Path, content: object) -> dict[object, str]:
    entries = _entries(path, content, "categories", "id", "name")
    try:
        entries.sort(key=lambda entry: entry["id"])
    except TypeError:
        raise DataError(f"got {path} with numbers and texts as category ids; use one") from None
    categories = {entry["id"]: str(entry["name"]) for entry in entries}
    if len(categories) < len(entries):
        raise DataError(f"got {path} with two categories of one id; give each its own id")
    if not 1 <= len(categories) < VOID:
        raise DataError(f"got {path} with {len(categories)} categories; wanted 1 to {VOID - 1}")
    names = ["background", *(str(entry["name"]) for entry in entries)]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise DataError(
            f"got {path} with the category {twice[0]!r} twice; give each its own name "
            "(background is added automatically)"
        )
    return categories
