"""YOLO's segmentation labels: a text file per image, with a polygon on each line."""

import itertools
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from unpool.data.entries import printable
from unpool.data.layouts.drawn import Lazy, size_of
from unpool.data.layouts.layout import Format, Layout, Names, Note, Request
from unpool.data.layouts.listing import IMAGES, Folder, find_splits, list_tree, read_lines
from unpool.data.layouts.splits import group_ids, require_usual
from unpool.data.outlines import Outline, Outlines
from unpool.data.shapes import Polygons, Shape, Unusable, corners
from unpool.errors import DataError
from unpool.formats.objects import is_background
from unpool.vision.images import VOID

_LABELS = (".txt",)
_NAMES = ("classes.txt", "obj.names", "class_names.txt", "labels.txt")
_ITEM = re.compile(r"""(?:(\d{1,6})\s*:|-\s)?\s*("[^"]*"|'[^']*'|[^#"'].*?)\s*(?:\s#.*)?""")
_KEY = re.compile(r"""["']?names["']?\s*:""")
_COMMENT = re.compile(r"""("[^"]*"|'[^']*')|(?:^|(?<=\s))#.*""")
_BEYOND = 0.5  # fractions may be a little below 0 or above 1; pixels are far beyond


def yolo_format(images: str, labels: str) -> Format:
    """A layout of images, and of text files with equal names; see `find_splits`."""
    read = partial(_read, images=images, labels=labels)

    def accepts(root: Path) -> bool:
        splits = require_usual(images, find_splits(root, (images, labels)))
        return bool(splits and list_tree(root, labels, splits, _LABELS).files)

    return Format("YOLO", (images, labels), read, accepts)


def _read(request: Request, images: str, labels: str) -> Layout:
    """The files of both folders. An image without text file has no objects, as in YOLO."""
    root = request.root
    splits = find_splits(root, (images, labels))
    found, texts = list_tree(root, images, splits, IMAGES), list_tree(root, labels, splits, _LABELS)
    names = _class_names(root, texts)
    first = 0 if is_background(names[0]) else 1  # the class id of YOLO's class 0
    ids: dict[object, int] = {i: first + i for i in range(len(names))}

    def outlines(name: str) -> Outlines:
        file = texts.files.get(name, [texts.home(name).with_suffix(".txt")])[0]
        size = size_of(found.files[name])
        return Outlines(file, "", size, read_labels(file, size) if name in texts.files else [], ids)

    bare = len(found.files.keys() - texts.files)
    message = f"has no text file for {bare} images, which are read as background alone"
    return Layout(
        root,
        found,
        Folder(texts.path, _LABELS, {}, texts.tail),
        outlines=Lazy(found.files, outlines),
        groups=group_ids(found, splits) if "SPLIT" in images else {},
        names=Names(["background", *names[1 - first :]]),
        notes=(Note("no-labels", texts.path, message),) if bare else (),
    )


def read_labels(path: Path, size: tuple[int, int]) -> list[Outline]:
    """The objects of a text file: a class, and a polygon x, y, x, y ..., on each line.

    What cannot be used becomes `Unusable`.
    """
    try:
        lines = read_lines(path)
    except DataError as error:
        return [Outline(1, None, Unusable(str(error)))]
    return [
        Outline(number, category, shape)
        for number, line in enumerate(lines, 1)
        if line
        for category, shape in [_read_line(line.split(), size)]
    ]


def _read_line(words: list[str], size: tuple[int, int]) -> tuple[int | None, Shape]:
    try:
        number, *values = map(float, words)
    except ValueError:
        return 0, Unusable("is no list of numbers; wanted a class and a polygon: x y x y ...")
    if len(values) == 4:
        return 0, Unusable("is a bounding box, not an outline; export polygons")
    points = corners(values)
    if points is None or len(points) < 3:
        return 0, Unusable("is no polygon; wanted a class, and x y of three corners or more")
    if points.min() < -_BEYOND or points.max() > 1 + _BEYOND:
        return 0, Unusable("has no fractions of the image's size, as YOLO wants; export it again")
    category = int(number) if number.is_integer() else None
    return category, Polygons((points * (size[1], size[0]),))


def _class_names(root: Path, texts: Folder) -> list[str]:
    """The names of YOLO's classes, from the first file that has them, else by number."""
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        lines = read_lines(path)
        if names := read_yaml_names(lines):
            return _complete(path, names)
        if any(map(_KEY.match, lines)):
            raise DataError(f"got {path} with names of an unknown form; write names: [cat, dog]")
    for path in (root / name for name in _NAMES):
        if path.is_file() and (lines := [line for line in read_lines(path) if line]):
            return _complete(path, dict(enumerate(lines)))
    found = [one for paths in texts.files.values() for one in read_labels(paths[0], (1, 1))]
    numbers = [one.category for one in found if isinstance(one.category, int)]
    return _complete(texts.path, {min(max(numbers, default=0), VOID - 2): ""})


def read_yaml_names(lines: list[str]) -> dict[int, str]:
    """The `names` in the lines of a YAML file, by their numbers; empty if there are none.

    >>> read_yaml_names(["path: data", "names:", "0: cat  # tabby", "1: 'dog'", "nc: 2"])
    {0: 'cat', 1: 'dog'}
    >>> read_yaml_names(["names: [cat, 'dog, large']"]), read_yaml_names(["names:", "- cat"])
    ({0: 'cat', 1: 'dog, large'}, {0: 'cat'})
    """
    starts = [i for i, line in enumerate(lines) if _KEY.match(line)]
    if not starts:
        return {}
    first = lines[starts[0]].partition(":")[2].strip()
    if first[:1] in ("[", "{"):
        lines = [_COMMENT.sub(r"\1", line) for line in (first, *lines[starts[0] + 1 :])]
        text = " ".join(lines)[1:]
        text = re.match(r"""(?:"[^"]*"|'[^']*'|[^\]}"'])*""", text)[0]  # type: ignore[index]
        items = re.findall(r"""(?:"[^"]*"|'[^']*'|[^,"'])+""", text)
    else:
        after = lines[starts[0] + 1 :]
        items = list(itertools.takewhile(re.compile(r"-\s|\d+\s*:|#|$").match, after))
    names: dict[int, str] = {}
    for item in items:
        match = _ITEM.fullmatch(item.strip())
        if match and not item.startswith("#"):
            names[int(match[1]) if match[1] else len(names)] = match[2].strip("\"'")
    return names


def _complete(path: Path, names: Mapping[int, str]) -> list[str]:
    """All names up to the highest number."""
    if max(names) >= VOID - 1:
        raise DataError(f"got {max(names) + 1} classes in {path}; wanted {VOID - 1} at most")
    complete = [printable(names.get(i) or f"class {i + 1}") for i in range(max(names) + 1)]
    if twice := [name for i, name in enumerate(complete) if name in complete[:i]]:
        raise DataError(f"got {twice[0]!r} twice in {path}; give every class a name of its own")
    return complete
