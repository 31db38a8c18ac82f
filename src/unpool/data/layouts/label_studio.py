"""Label Studio's own JSON exports: a list of tasks, with regions in percent and brush masks."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unpool.data.entries import as_key, printable
from unpool.data.layouts.contents import files_of_kind, image_of_task
from unpool.data.layouts.drawn import Part, assemble, class_ids, size_of
from unpool.data.layouts.layout import Format, Layout, Note, Request
from unpool.data.layouts.photos import Photos
from unpool.data.outlines import Outline, Outlines
from unpool.data.pieces import read_pieces
from unpool.data.shapes import Brush, Disc, Shape, Unusable, corners, polygon
from unpool.errors import DataError, few
from unpool.limits import MAX_PIXELS

_STEPS = np.linspace(0, 2 * math.pi, 256, endpoint=False)  # of a rotated ellipse


def read_label_studio(request: Request) -> Layout:
    """The images and regions of the tasks that are labeled; later regions cover earlier ones.

    Of several annotations of a task, the one marked as ground truth counts, else the first. If no
    task has annotations, predictions are read, such as those of `unpool segment`.
    """
    root = request.root
    (file, *_) = files_of_kind(root, "label-studio")
    tasks = _read_tasks(file)
    classes, ids = class_ids(root, (one for _, found in tasks.images.values() for one in found))
    photos = Photos(root)
    outlines = {}
    for name, (size, found) in tasks.images.items():
        size = size if found else size_of(photos.find(name, root))
        outlines[name] = Outlines(file, name, size, found, ids, ordered=True)
    parts = [Part("", file, (root / "images", root), outlines)]
    return assemble(root, parts, classes, [*_notes(file, tasks)], photos)


class _Tasks(NamedTuple):
    """What is used of a file."""

    images: dict[str, tuple[tuple[int, int], list[Outline]]]  #: by the name in the file
    predicted: bool  #: whether the regions are predictions
    bare: int  #: the number of tasks without annotation
    several: int  #: the number of tasks of several annotations


def _read_tasks(file: Path) -> _Tasks:
    images: dict[str, tuple[tuple[int, int], list[Outline]]] = {}
    predicted: dict[str, tuple[tuple[int, int], list[Outline]]] = {}
    bare = several = 0
    for _, tasks in read_pieces(file):
        for task in tasks:
            found = list(_annotations(task))
            several += len(found) > 1
            known, regions = (images, found) if found else (predicted, _predictions(task))
            image = image_of_task(task) if regions else None
            bare += image is None or not found
            if image is None:
                continue
            if image in known:
                raise DataError(f"got {file} with the image {image} twice; keep one of the tasks")
            known[image] = _regions(regions[0])
    if predicted and not images:
        return _Tasks(predicted, True, bare - len(predicted), several)
    return _Tasks(images, False, bare, several)


def _notes(file: Path, tasks: _Tasks) -> Iterator[Note]:
    """What was not used as it is."""
    if tasks.predicted:
        message = "has predictions alone, which are read as labels; check them in Label Studio"
        yield Note("predictions", file, f"{message} first")
    if tasks.bare:
        message = f"has {tasks.bare} tasks without annotation, which are skipped; label them"
        yield Note("unlabeled-tasks", file, f"{message} to use them")
    if tasks.several:
        message = f"has {tasks.several} tasks of several annotations, of which one is read: the"
        yield Note("several-annotations", file, f"{message} ground truth, or else the first")


def _annotations(task: Any) -> Iterator[list[Any]]:
    """The regions of each annotation, the ground truth first; of JSON_MIN, those of the task."""
    if not isinstance(task, dict):
        return
    found = task.get("annotations", task.get("completions"))
    if isinstance(found, list):
        done = [one for one in found if isinstance(one, dict) and not one.get("was_cancelled")]
        for one in sorted(done, key=lambda one: not one.get("ground_truth")):
            if isinstance(one.get("result"), list):
                yield one["result"]
    elif "data" not in task and (lists := [v for v in task.values() if isinstance(v, list)]):
        yield [region for regions in lists for region in regions]


def _predictions(task: Any) -> list[list[Any]]:
    """The regions of each prediction."""
    found = task.get("predictions") if isinstance(task, dict) else None
    every = [
        one.get("result")
        for one in (found if isinstance(found, list) else [])
        if isinstance(one, dict)
    ]
    return [result for result in every if isinstance(result, list)]


def _regions(result: list[Any]) -> tuple[tuple[int, int], list[Outline]]:
    """The size of the image, and the regions of an annotation."""
    size, found = (1, 1), []
    regions = [_flat(region) for region in result]
    labeled = {str(region.get("id")) for region in regions if _label(region)}
    for number, region in enumerate(regions, 1):
        height, width = as_key(region.get("original_height")), as_key(region.get("original_width"))
        if isinstance(height, int) and isinstance(width, int):
            good = min(height, width) > 0 and height * width <= MAX_PIXELS
            size = (height, width) if good else size
        label, shape = _label(region), as_shape(region, size)
        if shape is None or (label is None and str(region.get("id")) in labeled):
            continue  # a choice or a text, or the geometry of a region whose label follows
        if len(every := _labels(region)) > 1:
            shape = Unusable(f"has several labels, {few(every)}; leave it one in Label Studio")
        if as_key(region.get("image_rotation", 0)) != 0:
            shape = Unusable("was drawn on a turned image; turn it back, and draw it again")
        found.append(Outline(number, label, shape))
    return size, found


def _flat(region: Any) -> dict[str, Any]:
    """A region with the fields of its value, as JSON_MIN has it."""
    if not isinstance(region, dict):
        return {}
    value = region.get("value")
    return {**region, **value} if isinstance(value, dict) else region


def _label(region: dict[str, Any]) -> str | None:
    return next(iter(_labels(region)), None)


def _labels(region: dict[str, Any]) -> list[str]:
    """The labels of a region: in `brushlabels`, `polygonlabels` ..."""
    for name, value in region.items():
        if name.endswith("labels") and isinstance(value, list) and value:
            return [printable(label) for label in value]
    return []


def as_shape(region: dict[str, Any], size: tuple[int, int]) -> Shape | None:
    """The shape of a region: brush, polygon, rectangle or ellipse; None if it has none.

    >>> as_shape({"x": 50, "y": 50, "radiusX": 10, "radiusY": 20}, (10, 40))
    Disc(x=20.0, y=5.0, radius_x=4.0, radius_y=2.0)
    """
    scale = np.array(size[::-1]) / 100
    if isinstance(code := region.get("rle"), list):
        good = all(type(value) is int and 0 <= value < 256 for value in code)
        return Brush(bytes(code)) if good else Unusable("has a damaged brush code; export it again")
    if "points" in region:
        points = corners(region["points"])
        return Unusable() if points is None else polygon((points * scale).ravel().tolist())
    sides = ("radiusX", "radiusY") if "radiusX" in region else ("width", "height")
    numbers = [region.get(name) for name in ("x", "y", *sides)]
    if numbers == [None] * 4:
        return None
    pair = corners(numbers)
    turn = corners([region.get("rotation", 0), 0])
    if pair is None or turn is None:
        return Unusable()
    (x, y), (a, b) = (pair.astype(float) * scale).tolist()
    angle = math.radians(float(turn[0, 0]))
    if sides[0] == "radiusX" and not angle:
        return Disc(x, y, a, b)
    if sides[0] == "radiusX":
        outline = np.stack([a * np.cos(_STEPS), b * np.sin(_STEPS)], 1)
    else:
        outline = np.array([[0, 0], [a, 0], [a, b], [0, b]])  # turned about its first corner
    turned = outline @ [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    return polygon((turned + np.array([x, y])).ravel().tolist())


LABEL_STUDIO = Format(
    *("Label Studio", ("SPLIT.json",), read_label_studio),
    lambda root: bool(files_of_kind(root, "label-studio")),
)
