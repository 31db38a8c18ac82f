"""COCO: one JSON file of annotations per split."""

from collections.abc import Mapping
from pathlib import Path

from unpool.data.coco import Annotations, Outlines, find_annotations, read_annotations, without_year
from unpool.data.layouts.layout import Folder, Layout, Names
from unpool.data.layouts.listing import IMAGES
from unpool.data.layouts.splits import no_split
from unpool.errors import DataError


def read_coco(root: Path, split: str | None = None) -> Layout:
    """The files of a folder in the layout of COCO; only the annotations of `split`, if given."""
    annotations = find_annotations(root)
    if split is not None and split != "all":
        named = annotations.get(split, root / f"annotations/instances_{split}.json")
        if not named.is_file():
            raise no_split(root, split, sorted(annotations), None)
        annotations = {split: named}
    read = {name: read_annotations(path) for name, path in sorted(annotations.items())}
    homes = {name: _home(root, annotations[name], found) for name, found in read.items()}
    below = all((root / "images") in (home, home.parent) for home in homes.values())
    base = root / "images" if below else root
    outlines: dict[str, Outlines] = {}
    images: dict[str, list[Path]] = {}
    groups: dict[str, list[str]] = {}
    for name, found in read.items():
        paths = [homes[name] / image for image in found.images]
        groups[name] = [path.relative_to(base).with_suffix("").as_posix() for path in paths]
        outlines |= zip(groups[name], found.images.values(), strict=True)
        for key, path in zip(groups[name], paths, strict=True):
            if path.is_file() and path not in images.get(key, []):
                images.setdefault(key, []).append(path)
    return Layout(
        root,
        Folder(base, IMAGES, images),
        Folder(root / "annotations", (".json",), {}),
        outlines=outlines,
        groups=groups,
        names=Names(["background", *_categories(annotations, read)]),
        orphans=tuple((annotations[name], found.orphans) for name, found in read.items()),
    )


def _categories(annotations: Mapping[str, Path], read: Mapping[str, Annotations]) -> list[str]:
    """The names of the categories, which all COCO files of a data set must share."""
    first, *others = read
    for other in others:
        if read[other].categories != read[first].categories:
            got = f"got {annotations[other]} with other categories than {annotations[first]}"
            raise DataError(f"{got}; give all files the same list")
    return list(read[first].categories.values())


def _home(root: Path, path: Path, found: Annotations) -> Path:
    """The folder of the images of a COCO file: the first one that contains any."""
    split = path.stem.removeprefix("instances_")
    names = split, without_year(split)
    homes = [root / name for name in (*names, *(f"images/{name}" for name in names), "images", "")]
    homes = [home for home in homes if home.is_dir()]  # at least root
    image = next(iter(found.images), "")
    return next((home for home in homes if (home / image).is_file()), homes[0])
