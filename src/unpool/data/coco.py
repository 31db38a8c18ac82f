"""Read COCO's instance annotations: outlines of objects, in one JSON file per split.

An object is a list of polygons or a run-length code (RLE, plain or compressed). Labeling tools
write the same format in ways of their own: numbers with a point, ids as texts, a list around a
run-length code, a single polygon without one, a category "background".

Lin et al., *Microsoft COCO: common objects in context*, ECCV 2014.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unpool.data.entries import Key, as_key, brief, printable
from unpool.data.outlines import Crowd, Outline, Outlines
from unpool.data.pieces import read_pieces
from unpool.data.shapes import Polygons, Runs, Shape, Union, Unusable, corners
from unpool.errors import DataError, few
from unpool.formats.objects import is_background
from unpool.limits import MAX_PATH, MAX_PIXELS
from unpool.vision.images import VOID

_FIELDS = {  # of the entries, which must have them
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("image_id",),
    "categories": ("id", "name"),
}


class Annotations(NamedTuple):
    """The contents of a JSON file."""

    images: dict[str, Outlines]  #: by file name of the image
    categories: dict[Key, str]  #: names by category ids of the file, ordered by id
    notes: list[tuple[str, str]]  #: kind and message of what a user should know


def read_annotations(path: Path, crowd: Crowd | None = None) -> Annotations:
    """Read a COCO file; nothing is rasterized yet.

    Args:
        path: the file.
        crowd: how annotations with `iscrowd=1` are read. By default, those of a class are objects
            if most of its annotations have it, as brush masks do in exports of labeling tools, and
            void otherwise, as groups are in COCO.

    Raises:
        DataError: it is not JSON or not in COCO's format, or has more than 254 categories.
    """
    read = _Reader(path)
    add = {
        "images": read.add_image,
        "annotations": read.add_annotation,
        "categories": read.add_category,
    }
    for name, value in read_pieces(path):
        if name in add:
            for entry in read.entries(name, value):
                add[name](entry)
    if missing := [name for name in reversed(_FIELDS) if name not in read.seen]:
        raise read.malformed(f"without {missing[0]!r}", missing[0])
    categories, ids = read.class_names()
    drawn = {
        category
        for category, n in read.crowds.items()
        if category in ids and crowd != "void" and (crowd or 2 * n > read.used[category])
    }
    images = {
        name: Outlines(path, name, size, read.outlines.pop(key, []), ids, drawn=drawn)
        for name, (key, size) in read.images.items()
    }
    notes = [*read.notes(), *_of_crowds(read.crowds, drawn, categories)]
    return Annotations(images, categories, notes)


class _Reader:
    """What was read of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: set[str] = set()  # the lists of `_FIELDS`
        self.images: dict[str, tuple[Key, tuple[int, int]]] = {}  # by file name
        self.names: dict[Key, str] = {}  # file names by id
        self.outlines: defaultdict[Key, list[Outline]] = defaultdict(list)  # by id of the image
        self.groups: list[tuple[Key, str, str]] = []  # categories: id, name, supercategory
        self.used: Counter[object] = Counter()  # annotations by category
        self.crowds: Counter[object] = Counter()
        self.twice = 0

    def malformed(
        self, got: str, name: str, cure: str = "export it as COCO instances"
    ) -> DataError:
        """The error for a file of another form."""
        wanted = f"wanted a list {name!r} of objects with {', '.join(_FIELDS[name])}"
        return DataError(f"got {self.path} {got}; {wanted}: {cure}")

    def entries(self, name: str, value: Any) -> Iterator[dict[str, Any]]:
        """The objects of a list, whose required fields are numbers or texts."""
        self.seen.add(name)
        if not isinstance(value, Iterator):
            raise self.malformed(f"without {name!r}", name)
        for i, entry in enumerate(value):
            fields = _FIELDS[name]
            if not isinstance(entry, dict) or any(as_key(entry.get(f)) is None for f in fields):
                raise self.malformed(f"whose {name}[{i}] is incomplete", name, "complete it")
            yield entry

    def add_image(self, entry: dict[str, Any]) -> None:
        """Read an entry of `images`."""
        name, key = printable(entry["file_name"]), as_key(entry["id"])
        size = as_key(entry["height"]), as_key(entry["width"])
        assert key is not None
        height, width = (n if isinstance(n, int) else 0 for n in size)
        if min(height, width) <= 0 or height * width > MAX_PIXELS:
            got = f"got {self.path} with {name[:80]} of {brief(size[1])} x {brief(size[0])}"
            raise DataError(f"{got}; write its size")
        if len(name) > MAX_PATH:
            got = f"got {self.path} with an image whose name has {len(name)} characters"
            raise DataError(f"{got}; wanted {MAX_PATH} at most: rename it")
        if self.images.get(name) == (key, (height, width)):
            self.twice += 1
        elif name in self.images or key in self.names:
            raise DataError(
                f"got {self.path} with {name} or its id twice, differently; list each image once"
            )
        self.images[name], self.names[key] = (key, (height, width)), name

    def add_annotation(self, entry: dict[str, Any]) -> None:
        """Read an entry of `annotations`, whose image may come later."""
        image, category = as_key(entry["image_id"]), entry.get("category_id")
        assert image is not None
        if (key := as_key(category)) is None and category is not None:
            key = brief(category)  # of another type, and so unknown
        crowd = bool(as_key(entry.get("iscrowd")) or entry.get("iscrowd") is True)
        number = as_key(entry.get("id"))
        number = len(self.outlines[image]) + 1 if number is None else number
        self.outlines[image].append(
            Outline(number, key, as_shape(entry.get("segmentation")), crowd)
        )
        self.used[key] += 1
        self.crowds[key] += crowd

    def add_category(self, entry: dict[str, Any]) -> None:
        """Read an entry of `categories`."""
        key, parent = as_key(entry["id"]), entry.get("supercategory")
        assert key is not None
        self.groups.append((key, printable(entry["name"]), printable(parent or "")))

    def class_names(self) -> tuple[dict[Key, str], dict[object, int]]:
        """The names of the categories by their ids, and the class ids by them."""
        path, parents = self.path, {parent for _, _, parent in self.groups}
        try:
            self.groups.sort(key=lambda group: group[0])
        except TypeError:
            raise DataError(f"got {path} with numbers and texts as category ids; use one") from None
        if len({key for key, _, _ in self.groups}) < len(self.groups):
            raise DataError(f"got {path} with two categories of one id; give each its own id")
        categories: dict[Key, str] = {}
        ids: dict[object, int] = {}
        for key, name, parent in self.groups:
            if is_background(name):
                ids[key] = 0
            elif name not in parents or parent not in ("", "none") or self.used[key]:
                categories[key] = name  # others are no class, but Roboflow's name of all
                ids[key] = len(categories)
        if not 1 <= len(categories) < VOID:
            got = f"got {path} with {len(categories)} categories"
            raise DataError(f"{got}; wanted 1 to {VOID - 1}, besides a background")
        count = Counter(categories.values())
        if twice := [name for name, n in count.items() if n > 1]:
            got = f"got {path} with the category {twice[0]!r} twice"
            raise DataError(f"{got}; give each its own name, or merge them")
        return categories, ids

    def notes(self) -> Iterator[tuple[str, str]]:
        """What was skipped. Called when the annotations of known images are taken out."""
        if n := sum(map(len, self.outlines.values())):
            message = f"has {n} annotations of unknown images, which are ignored; check the ids"
            yield "orphan-annotations", message
        if self.twice:
            yield "listed-twice", f"lists {self.twice} images twice; list each image once"


def _of_crowds(
    crowds: Mapping[object, int], drawn: set[object], categories: Mapping[Any, str]
) -> Iterator[tuple[str, str]]:
    """A note on annotations with `iscrowd=1`, if there are any."""
    parts = []
    for what, chosen in (("objects", True), ("void", False)):
        counts = {c: n for c, n in crowds.items() if n and (c in drawn) is chosen}
        if counts:
            names = [f"{n} of {categories.get(c, brief(c))}" for c, n in counts.items()]
            parts.append(f"{few(names)} as {what}")
    if parts:
        yield (
            "crowds",
            f"has {sum(crowds.values())} annotations with iscrowd=1, read {'; '.join(parts)} "
            "(labeling tools mark brush masks so, COCO marks groups of objects); if that is wrong, "
            "pass crowd='object' or crowd='void'",
        )


def as_shape(found: Any) -> Shape:
    """The shape of a `segmentation`: polygons, run-length codes, or `Unusable`.

    >>> as_shape([[1, 0, 3, 0, 3, 1, 1, 1]]).draw((2, 4))[1]
    array([[ True,  True]])
    """
    if isinstance(found, dict):
        return _as_runs(found)
    if not isinstance(found, list) or not found:
        return Unusable()
    if isinstance(found[0], dict):
        shapes = tuple(_as_runs(part) for part in found)
        return shapes[0] if len(shapes) == 1 else Union(shapes)
    lists = found if isinstance(found[0], list) else [found]
    polygons = [corners(part) for part in lists]
    usable = tuple(points for points in polygons if points is not None and len(points) > 2)
    if not usable or any(points is None for points in polygons):
        return Unusable()
    return Polygons(usable)  # without parts of two corners, which cover nothing


def _as_runs(found: Any) -> Shape:
    match found:
        case {"counts": str() as counts, "size": list() as size}:
            return Runs(counts, [as_key(side) for side in size])
        case {"counts": list() as counts, "size": list() as size}:
            runs = [as_key(run) for run in counts]
            if all(type(run) is int and 0 <= run <= MAX_PIXELS for run in runs):
                return Runs(np.array(runs, np.int64), [as_key(side) for side in size])
            return Unusable("has a run-length code with other values than lengths; export it again")
    return Unusable()
