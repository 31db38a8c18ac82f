"""The splits of a data set: lists, folders, or the default rule."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from unpool.data.layouts.listing import IMAGES, NAME_FILES, Folder, read_lines
from unpool.errors import DataError

if TYPE_CHECKING:
    from unpool.data.layouts.layout import Layout

USUAL = ("train", "val", "test", "trainval", "trainaug")

_DEFAULT = "default"  # CVAT's list of all labeled images

_ALSO = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


def list_splits(layout: "Layout") -> list[str]:
    """The splits of a data set, sorted: its lists, else its folders, else train and val.

    A list "default", as CVAT writes it, is no split.
    """
    texts = layout.lists.glob("*.txt") if layout.lists else ()
    lists = sorted(path.stem for path in texts if _is_list(path, layout))
    lists = [name for name in lists if name != _DEFAULT]
    return lists or sorted(layout.groups) or ["train", "val"]


def split_names(layout: "Layout", split: str) -> list[str]:
    """The ids of a split: from a list, from a folder, or by the default rule.

    A line of a list that names no image is returned as it is.

    Raises:
        DataError: there is no such split.
    """
    listed = _list(layout, split)
    if listed and os.path.lexists(listed) and listed.name.lower() not in NAME_FILES:
        return [_id(line, layout) for line in read_lines(listed) if line]
    found = sorted(layout.outlines or layout.images.files)
    if split == "all":
        return found
    if split in layout.groups:
        return layout.groups[split]
    known = list_splits(layout)
    if split in known:
        if (every := _list(layout, _DEFAULT)) and every.is_file():
            found = split_names(layout, _DEFAULT)
        return [name for i, name in enumerate(found) if (i % 5 == 4) == (split == "val")]
    raise no_split(layout.root, split, known, listed)


def why_empty(layout: "Layout", split: str) -> str:
    """The message for a split without images."""
    if (listed := _list(layout, split)) and listed.is_file():
        return f"has no images; write their ids to {listed}"
    if split in layout.groups:
        return f"has no images; put them into {layout.images.path / split}"
    n = len(layout.images.files)
    write = f"write the ids of both splits to train.txt and val.txt in {layout.lists}, "
    return (
        "has no images: without lists and folders val is every fifth image, and there "
        f"{'are' if n > 1 else 'is'} {n} in all; add images until there are 5, "
        f"{write if layout.lists else ''}or use all images (split=all; for a training run, val=all)"
    )


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Names as they are by the usual names of splits, where these are unique.

    >>> short_names(["train2017", "Validation", "2014"])
    {'train': 'train2017', 'val': 'Validation', '2014': '2014'}
    """
    short = {name: name.rstrip("-_0123456789") or name for name in names}
    usual = {name: _ALSO.get(part.lower(), part) for name, part in short.items()}
    usual = {name: part.lower() if part.lower() in USUAL else part for name, part in usual.items()}
    count = Counter(usual.values())
    return {part if count[part] == 1 else name: name for name, part in usual.items()}


def require_usual(tree: str, splits: list[str]) -> list[str]:
    """No splits at all, if none has a usual name and they are the folders of a root.

    `photos/images` and `photos/masks` are no split "photos", but a data set in a folder.
    """
    outer = tree.startswith("SPLIT/") and tree != "SPLIT/"
    return [] if outer and not {*short_names(splits)} & {*USUAL} else splits


def group_ids(images: Folder, splits: Iterable[str]) -> dict[str, list[str]]:
    """The ids of each split, which begin with it."""
    return {
        name: [key for key in sorted(images.files) if key.startswith(f"{split}/")]
        for name, split in short_names(splits).items()
    }


def no_split(root: Path, split: str, known: list[str], listed: Path | None) -> DataError:
    """The error for a split that does not exist."""
    got = f"got split {split!r} of {root}; there are {', '.join([*known, 'all'])}"
    train = " (for a training run as val='all')" if split == "val" else ""
    write = f", or write the ids to {listed}" if listed else ""
    return DataError(f"{got}: pass one of them{train}{write}")


def _list(layout: "Layout", split: str) -> Path | None:
    return layout.lists and layout.lists / f"{split}.txt"


def _is_list(path: Path, layout: "Layout") -> bool:
    """Whether a text file lists images, by its name or first line; a readme does not."""
    if path.stem in USUAL or path.name.lower() in NAME_FILES:
        return path.stem in USUAL
    try:
        first = next(filter(None, read_lines(path)), "")
    except DataError:
        return False
    return _id(first, layout) in layout.images.files


def _id(line: str, layout: "Layout") -> str:
    """The image named by a line, by its path or the end of that, with or without suffix.

    More words or columns may follow the name, such as the path of the mask.
    """
    for path in (line, *re.split(r"[\s,;]+", line)[:1]):
        parts = path.replace("\\", "/").split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            stem, _, suffix = name.rpartition(".")
            if name in layout.images.files:
                return name
            if f".{suffix.lower()}" in IMAGES and stem in layout.images.files:
                return stem
    return line
