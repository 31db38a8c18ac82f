"""COCO, and the exports of other tools in its format: a JSON file of annotations per split."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from unpool.data.coco import Annotations, read_annotations
from unpool.data.layouts.contents import files_of_kind
from unpool.data.layouts.drawn import Part, assemble
from unpool.data.layouts.layout import Format, Layout, Names, Note, Request
from unpool.data.layouts.listing import find_splits
from unpool.data.layouts.splits import USUAL, no_split, short_names
from unpool.errors import DataError


def coco_format(name: str, tree: str, *more: str) -> Format:
    """A layout whose files of annotations have the name `tree`, and which has `more`."""
    return Format(name, (*more, tree), partial(read_coco, tree=tree))


def read_coco(request: Request, tree: str) -> Layout:
    """The files of a folder in the layout of COCO; only the annotations of `split`, if given.

    A single file whose name is that of no split, such as CVAT's instances_default.json, has no
    splits.
    """
    root, wanted = request.root, request.split
    splits = short_names(find_splits(root, (tree,)))
    files = {name: root / tree.replace("SPLIT", split) for name, split in splits.items()}
    if len(files) == 1 and not {*files} & {*USUAL}:
        files = dict(zip([""], files.values(), strict=True))
    elif wanted is not None and wanted != "all":
        named = files.get(wanted, root / tree.replace("SPLIT", wanted))
        if not named.is_file():
            raise no_split(root, wanted, sorted(files), None)
        files = {wanted: named}
    read = {name: read_annotations(path, request.crowd) for name, path in sorted(files.items())}
    parts = [
        Part(name, files[name], _homes(root, files[name], splits), found.images)
        for name, found in read.items()
    ]
    notes = [
        Note(kind, files[name], message)
        for name, found in read.items()
        for kind, message in found.notes
    ]
    return assemble(root, parts, Names(["background", *_categories(files, read)]), notes)


def _read_other(request: Request) -> Layout:
    """A single file of any name, at the top or in a folder there."""
    (file, *_) = files_of_kind(request.root, "coco")
    return read_coco(request, file.relative_to(request.root).as_posix())


OTHER_COCO = Format(
    *("COCO", ("SPLIT.json",), _read_other), lambda root: bool(files_of_kind(root, "coco"))
)


def _homes(root: Path, file: Path, splits: Mapping[str, str]) -> list[Path]:
    """Where the images of a file may be: in folders of its split, or of all."""
    names = [part for pair in splits.items() for part in pair[::-1] if pair[1] in file.as_posix()]
    below = [folder / name for folder in (root, root / "images") for name in names if name]
    return [*below, root / "images", root / "data", file.parent, root]


def _categories(files: Mapping[str, Path], read: Mapping[str, Annotations]) -> list[str]:
    """The names of the categories, which all COCO files of a data set must share."""
    first, *others = read
    for other in others:
        if read[other].categories != read[first].categories:
            got = f"got {files[other]} with other categories than {files[first]}"
            raise DataError(f"{got}; give all files the same list")
    return list(read[first].categories.values())
