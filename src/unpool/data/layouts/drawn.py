"""Layouts whose masks are outlines in files of annotations, which name their images."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unpool.data.layouts.layout import Layout, Names, Note
from unpool.data.layouts.listing import IMAGES, Folder
from unpool.data.layouts.names import names_file, parse_names
from unpool.data.layouts.photos import Photos, split_path
from unpool.errors import DataError, ImageError
from unpool.formats.objects import is_background
from unpool.vision.images import VOID, image_size

if TYPE_CHECKING:
    from unpool.data.outlines import Outline, Outlines
    from unpool.data.shapes import Size

IGNORED = "__ignore__"  #: labelme's name for void

_ASKED = 20  # images that decide where the others are


class Lazy(Mapping[str, "Outlines"]):
    """Outlines by id, which are read when they are needed."""

    def __init__(self, names: Collection[str], read: "Callable[[str], Outlines]") -> None:
        self._names, self._read = dict.fromkeys(names), read

    def __getitem__(self, name: str) -> "Outlines":
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Part(NamedTuple):
    """The annotations of a split."""

    split: str  #: empty if the data set has no splits
    file: Path  #: for messages
    homes: Sequence[Path]  #: where the names of the images may begin, the likely ones first
    images: Mapping[str, "Outlines"]  #: by the name that the file gives the image


def class_ids(root: Path, outlines: Iterable["Outline"]) -> tuple[Names, dict[object, int]]:
    """The classes of annotations that name them, and the ids by these names.

    Those of a list of names come first, and then the others by the alphabet.
    """
    labels = {one.category for one in outlines if isinstance(one.category, str)}
    source = names_file(root)
    listed = parse_names(source).classes if source else []
    names = [name for name in dict.fromkeys([*listed, *sorted(labels)]) if name != IGNORED]
    classes = [name for name in names if name and not is_background(name)]
    if not 1 <= len(classes) < VOID:
        raise DataError(f"got {len(classes)} labels in {root}; wanted 1 to {VOID - 1}")
    ids: dict[object, int] = {name: i for i, name in enumerate(classes, 1)}
    ids |= {name: 0 for name in labels if is_background(name)}
    return Names(["background", *classes]), ids | {IGNORED: VOID}


def size_of(images: Sequence[Path]) -> "Size":
    """The height and width of the first image, for annotations that do not say it."""
    try:
        return image_size(images[0]) if images else (1, 1)
    except ImageError:  # found when the image is read
        return 1, 1


def assemble(
    root: Path,
    parts: Sequence[Part],
    names: Names,
    notes: Sequence[Note] = (),
    photos: Photos | None = None,
) -> Layout:
    """The layout of annotations, whose images are found by their names.

    Several parts may belong to one split.
    """
    photos = photos or Photos(root)
    homes = [_home(part, photos) for part in parts]
    paths = [
        {name: photos.find(name, home) for name in part.images}
        for part, home in zip(parts, homes, strict=True)
    ]
    base = root / "images"
    every = [*homes, *(path for found in paths for each in found.values() for path in each)]
    if not all(base in (path, *path.parents) for path in every):
        base = root
    outlines: dict[str, Outlines] = {}
    images: dict[str, list[Path]] = {}
    groups: dict[str, list[str]] = {}
    for part, home, found in zip(parts, homes, paths, strict=True):
        ids = _ids(part, home.relative_to(base), base, found)
        groups.setdefault(part.split, []).extend(ids.values())
        for name, key in ids.items():
            outlines[key] = part.images[name]
            if found[name]:
                images[key] = found[name]
    return Layout(
        root,
        Folder(base, IMAGES, images),
        Folder(root, (".json",), {}),
        outlines=outlines,
        groups={} if "" in groups else groups,
        names=names,
        notes=tuple(notes),
    )


def _home(part: Part, photos: Photos) -> Path:
    """The folder of the images of a part: the first one that contains any."""
    homes = [home for home in part.homes if home.is_dir()]  # at least root
    first = [split_path(name) for name in [*part.images][:_ASKED]]
    for home in homes:
        if any(home.joinpath(*path) in photos.paths for path in first):
            return home
    return homes[0]


def _ids(part: Part, home: Path, base: Path, found: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """The ids of images by their names: paths without suffix, unless two differ by that alone."""
    paths = {
        name: each[0].relative_to(base) if len(each) == 1 else home.joinpath(*split_path(name))
        for name, each in found.items()
    }
    if unnamed := [name for name, path in paths.items() if not path.name]:
        raise DataError(f"got {part.file} with an image named {unnamed[0]!r}; write its file name")
    count = Counter(paths.values())
    if twice := [name for name, path in paths.items() if count[path] > 1]:
        got = f"got {part.file} whose images {twice[0]} and {twice[1]} are both {paths[twice[0]]}"
        raise DataError(f"{got}; list each image once, or add the folders to the names")
    stems = Counter(path.with_suffix("") for path in paths.values())
    return {
        name: (path.with_suffix("") if stems[path.with_suffix("")] == 1 else path).as_posix()
        for name, path in paths.items()
    }
