"""Recognize JSON files by what is in them, since labeling tools let users name their exports."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from unpool.data.entries import printable
from unpool.data.layouts.listing import list_folder
from unpool.data.pieces import read_pieces
from unpool.errors import DataError

Kind: TypeAlias = Literal["coco", "labelme", "label-studio"]

ASKED = 5
"""Files of a folder that are looked into; other JSON files may lie among the annotations."""


def json_files(root: Path) -> list[Path]:
    """The JSON files below a folder, those at its top first."""
    found = [path for paths in list_folder(root, (".json",)).files.values() for path in paths]
    return sorted(found, key=lambda path: (len(path.parts), path))


def files_of_kind(root: Path, kind: Kind) -> list[Path]:
    """The JSON files at the top of a folder, or in a folder there, that are of a kind."""
    near = [path for path in json_files(root) if len(path.relative_to(root).parts) <= 2]
    return [path for path in near[:ASKED] if kind_of(path) == kind]


def kind_of(path: Path) -> Kind | None:
    """What a JSON file is; None if it is something else, or broken.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.json")
    >>> _ = path.write_text('{"version": "5.5.0", "shapes": [], "imagePath": "a.jpg"}')
    >>> kind_of(path)
    'labelme'
    """
    try:
        for name, value in read_pieces(path):
            if name == "shapes" and isinstance(value, Iterator):
                return "labelme"
            if name in ("images", "annotations", "categories") and isinstance(value, Iterator):
                return "coco"
            if name == "" and isinstance(first := next(value, None), dict):
                task = "data" in first and {"annotations", "completions", "predictions"} & {*first}
                return "label-studio" if task or "image" in first else None
    except DataError:
        pass
    return None


def image_of_task(task: dict[str, Any]) -> str | None:
    """The image of a task of Label Studio: the first text of its data that looks like one."""
    data = task.get("data", task)
    values = data.values() if isinstance(data, dict) else ()
    texts = [value for value in values if isinstance(value, str)]
    return next((printable(text) for text in texts if "." in text), None)
