"""Label Studio's brush masks as PNG: `task-12-annotation-3-by-1-tag-cat-0.png`, one a region.

They do not say which image a task has. A JSON export beside them does, or images that are named by
the number of their task: 12.jpg or task-12.jpg.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unpool.data.entries import as_key
from unpool.data.layouts.contents import files_of_kind, image_of_task
from unpool.data.layouts.drawn import Part, assemble, class_ids, size_of
from unpool.data.layouts.layout import Format, Layout, Note, Request
from unpool.data.layouts.listing import IMAGES, list_folder
from unpool.data.outlines import Outline, Outlines
from unpool.data.pieces import read_pieces
from unpool.data.shapes import Box, Mask, Size
from unpool.errors import DataError, ImageError
from unpool.vision.images import read_mask

_NAME = re.compile(
    r"task-(?P<task>\d+)-annotation-(?P<annotation>\d+)-by-[^-]*-[^-]+-(?P<label>.+)-\d+"
)


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A mask that is an image of its own: what is not 0."""

    path: Path

    def cost(self, size: Size) -> int:
        """The image."""
        return size[0] * size[1]

    def draw(self, size: Size) -> tuple[Box, Mask]:
        """The whole image."""
        try:
            mask = read_mask(self.path) > 0
        except ImageError as error:
            raise DataError(f"cannot be read: {error}") from None
        if mask.shape != size:
            got = f"is {mask.shape[1]} x {mask.shape[0]}, but others of its task are"
            raise DataError(f"{got} {size[1]} x {size[0]}; export them again")
        return Box(0, size[0], 0, size[1]), np.asarray(mask)


def read_brushes(request: Request) -> Layout:
    """The images of the tasks, and their masks, of which later ones cover earlier ones.

    Of several annotations of a task, the first one counts.
    """
    root = request.root
    tasks: defaultdict[int, defaultdict[int, list[Outline]]]
    tasks = defaultdict(lambda: defaultdict(list))
    sizes: dict[int, Path] = {}
    for match, path in _masks(root):
        task, annotation = int(match["task"]), int(match["annotation"])
        sizes.setdefault(task, path)
        tasks[task][annotation].append(Outline(path.name, match["label"], MaskFile(path)))
    first = {task: found[min(found)] for task, found in sorted(tasks.items())}
    classes, ids = class_ids(root, itertools.chain(*first.values()))
    names = _images(root, first.keys())
    images = {
        names[task]: Outlines(sizes[task], "", size_of([sizes[task]]), found, ids, ordered=True)
        for task, found in first.items()
    }
    notes = []
    if several := sum(len(found) > 1 for found in tasks.values()):
        message = f"belongs to {several} tasks of several annotations, of which the first is read"
        notes.append(Note("several-annotations", sizes[min(sizes)], message))
    parts = [Part("", root, (root / "images", root), images)]
    return assemble(root, parts, classes, notes)


def _masks(root: Path) -> list[tuple[re.Match[str], Path]]:
    """The masks below a folder, in the order of their names."""
    paths = [path for found in list_folder(root, (".png",)).files.values() for path in found]
    return [(match, path) for path in sorted(paths) if (match := _NAME.fullmatch(path.stem))]


def _images(root: Path, tasks: Collection[int]) -> dict[int, str]:
    """The image of each task, from a JSON export or by the names of the images."""
    found: dict[int, str] = {}
    for file in files_of_kind(root, "label-studio"):
        for _, entries in read_pieces(file):
            for entry in entries:
                if isinstance(entry, dict) and (image := image_of_task(entry)):
                    found.setdefault(as_key(entry.get("id")), image)  # type: ignore[arg-type]
    for paths in list_folder(root, IMAGES).files.values():
        if match := re.fullmatch(r"(task[-_])?(\d+)", paths[0].stem):
            found.setdefault(int(match[2]), paths[0].relative_to(root).as_posix())
    if unknown := sorted({*tasks} - {*found}):
        raise DataError(
            f"got {root} with the brush masks of task {unknown[0]}, whose image is unknown; put "
            f"the JSON export of the project beside them, or name the image {unknown[0]}.jpg"
        )
    return found


BRUSHES = Format(
    "brush masks of Label Studio",
    ("task-SPLIT.png",),
    read_brushes,
    lambda root: bool(_masks(root)),
)
