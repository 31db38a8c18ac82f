"""The names of the classes of a data set, and their colors in color-coded masks."""

import re
from collections.abc import Sequence
from pathlib import Path

from unpool.data.layouts.layout import Color, Layout, Names
from unpool.data.layouts.listing import NAME_FILES, read_lines
from unpool.errors import DataError, few
from unpool.files import read_json
from unpool.vision.images import VOID

_VOID_NAME = re.compile(r"_*(unlabell?ed|void|ignored?)(_|\b)", re.IGNORECASE)

_COLOR = r"(?P<r>\d{1,3})[\s,]+(?P<g>\d{1,3})[\s,]+(?P<b>\d{1,3})"
_COLORED = [
    re.compile(rf"(?P<name>[^:]+):(\s*{_COLOR}\s*)?:[^:]*(:.*)?"),  # CVAT: name:r,g,b:parts:actions
    re.compile(rf"(?P<name>[^:]+):\s*{_COLOR}"),
    re.compile(rf"{_COLOR}\s+(?P<name>\D.*)"),  # CamVid's label_colors.txt
    re.compile(rf"(?P<name>.*\D)\s*,\s*{_COLOR}"),  # class_dict.csv
]
_NUMBERED = re.compile(r"(?P<id>\d{1,4})\s*[:=,;\s]\s*(?P<name>\D.*)")
_LISTS_OF_COLORS = ("labelmap.txt", "label_colors.txt", "class_dict.csv")
_CSV_HEADER = re.compile(r"name\s*,\s*r\s*,\s*g\s*,\s*b", re.IGNORECASE)


def class_names(layout: Layout) -> Names | None:
    """The classes from a file, see `read_names`, or by the layout; or None.

    If the file has no colors, those of a second one count, by the names of the classes.

    Raises:
        DataError: a file is wrong.
    """
    files = _names_files(layout.root)
    if layout.outlines or not files:
        return layout.names
    names = read_names(files[0])
    for path in files[1:]:
        if not names.colors and path.name.lower() in _LISTS_OF_COLORS:
            names = _with_colors(names, path)
    return names


def names_file(root: Path) -> Path | None:
    """The first of `NAME_FILES` in a folder, in any letter case."""
    return next(iter(_names_files(root)), None)


def read_names(path: Path) -> Names:
    """Read the names of the classes of masks, from the background on; see `parse_names`.

    Raises:
        DataError: as of `parse_names`; or there are not 2 to 255 names, one is empty or occurs
            twice.
    """
    names = parse_names(path)
    _check(path, names.classes)
    return names


def parse_names(path: Path) -> Names:
    """Read the names of classes: one per line, whose number (from 0) is the class id.

    Lines may also be "id: name", or have the color of the class, as CVAT's `labelmap.txt`
    (`name:r,g,b:parts:actions`), CamVid's `label_colors.txt` (`r g b name`) and `class_dict.csv`
    (`name,r,g,b`) have it. A JSON file is a list, or maps ids to names or names to ids. Lines that
    begin with # are comments. If the last name begins with Unlabelled, void or ignore, its id is
    void; in lists of colors, such a name may stand anywhere but first.

    Raises:
        DataError: a number is above 254 or occurs twice, or a color is beyond 255.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "labelmap.txt")
    >>> _ = path.write_text("road:128,64,128::\\ncar:64,0,128::\\nUnlabelled:0,0,0::\\n")
    >>> names = parse_names(path)
    >>> names.classes, names.void, names.colors[1]
    (['road', 'car'], 2, (64, 0, 128))
    """
    lines = _json_lines(path) if path.suffix.lower() == ".json" else read_lines(path)
    lines = [line for line in lines if not line.startswith("#")]
    if lines and _CSV_HEADER.fullmatch(lines[0]):
        del lines[0]
    colors: dict[int, Color] = {}
    voids: list[int] = []
    if rows := next(filter(None, (_match(form, lines) for form in _COLORED)), []):
        classes = [row["name"].strip() for row in rows]
        colors = {i: _color(path, row) for i, row in enumerate(rows) if row["r"]}
        voids = [i for i, name in enumerate(classes) if i and _VOID_NAME.match(name)]
    elif rows := _match(_NUMBERED, lines):
        classes = _by_number(path, rows)
    else:
        classes = lines[1:] if lines[:1] == ["__ignore__"] else lines  # labelme's -1
    if classes and not voids and _VOID_NAME.match(classes[-1]):
        voids = [len(classes) - 1]
    void = voids[0] if voids else VOID
    if voids[:1] == [len(classes) - 1]:
        del classes[-1]
    return Names(classes, void, colors, path)


def numbered_classes(highest: int) -> list[str]:
    """Default names of classes, from 0 to the highest id of the masks.

    >>> numbered_classes(2)
    ['background', 'class 1', 'class 2']
    """
    return ["background", *(f"class {i}" for i in range(1, max(highest, 1) + 1))]


def assumption(assumed: str, classes: Sequence[str], images: Sequence[int]) -> str:
    """What to say of class names that no file gives; empty if the masks have all their ids.

    Args:
        assumed: the data set whose names were taken; empty if they are those of a file.
        classes: the names.
        images: the number of images with each class.

    >>> assumption("PASCAL VOC", ["background", "aeroplane", "bicycle"], [9, 4, 0])[:60]
    "the ids 0, 1 are taken for PASCAL VOC's background, aeroplan"
    """
    ids = [i for i, n in enumerate(images) if n]
    if not assumed or len(ids) == len(classes):
        return ""
    return (
        f"the ids {few(ids)} are taken for {assumed}'s {few(classes[i] for i in ids)}; if they are "
        "other classes, name them in classes.txt"
    )


def _names_files(root: Path) -> list[Path]:
    files = {path.name.lower(): path for path in root.iterdir() if not path.is_dir()}
    return [files[name] for name in NAME_FILES if name in files]


def _with_colors(names: Names, path: Path) -> Names:
    """The names with the colors that a second file gives them."""
    others = read_names(path)
    ids = {name.lower(): i for i, name in enumerate(names.classes)}
    titles = dict(enumerate(map(str.lower, others.classes)))
    found = {titles[i]: color for i, color in others.colors.items() if i in titles}
    colors = {ids[name]: color for name, color in found.items() if name in ids}
    if others.void in others.colors:
        colors[names.void] = others.colors[others.void]
    if found and not found.keys() & ids.keys():
        raise DataError(f"got {path} with none of the classes of {names.file}; use the same names")
    return names._replace(colors=colors, file=path) if colors else names


def _match(form: re.Pattern[str], lines: list[str]) -> list[re.Match[str]]:
    """The matches of all lines that are not empty; none if one does not match."""
    found = [match for line in lines if line and (match := form.fullmatch(line))]
    return found if len(found) == sum(map(bool, lines)) else []


def _by_number(path: Path, rows: list[re.Match[str]]) -> list[str]:
    """The names of numbered lines, in the order of their numbers."""
    named = {int(row["id"]): row["name"].strip() for row in rows}
    if len(named) < len(rows):
        raise DataError(f"got a number twice in {path}; give every class a number of its own")
    if _VOID_NAME.match(named.get(VOID, "")):
        del named[VOID]
    highest = max(named, default=0)
    if highest >= VOID:
        raise DataError(f"got the class {highest} in {path}; wanted ids from 0 to {VOID - 1}")
    return [named.get(i, name) for i, name in enumerate(numbered_classes(highest)[: highest + 1])]


def _color(path: Path, row: re.Match[str]) -> Color:
    red, green, blue = int(row["r"]), int(row["g"]), int(row["b"])
    if max(red, green, blue) > 255:
        raise DataError(f"got the color {red},{green},{blue} in {path}; wanted 0 to 255")
    return red, green, blue


def _json_lines(path: Path) -> list[str]:
    """The contents of a JSON file as lines of names, or of ids and names."""
    match read_json(path, DataError):
        case list(found) if all(isinstance(name, str) for name in found):
            return found
        case dict(found) if found and all(isinstance(name, str) for name in found.values()):
            return [f"{number}: {name}" for number, name in found.items()]
        case dict(found) if found and all(isinstance(number, int) for number in found.values()):
            return [f"{number}: {name}" for name, number in found.items()]
    raise DataError(
        f'got {path}, which does not name classes; wanted a list of names, or {{"0": "background", '
        '"1": ...}'
    )


def _check(path: Path, classes: list[str]) -> None:
    if not 2 <= len(classes) <= VOID:
        raise DataError(
            f"got {len(classes)} names in {path}; wanted 2 to {VOID}, one per line, the first of "
            "which is the background"
        )
    if "" in classes:
        raise DataError(
            f"got an empty line {classes.index('') + 1} in {path}; wanted a name, since the "
            "line's number is the class id: write one, or remove the line if no id is unused"
        )
    if twice := [name for i, name in enumerate(classes) if name in classes[:i]]:
        raise DataError(f"got {twice[0]!r} twice in {path}; give every class a name of its own")
