"""List the files of a folder, recognize folders by their names, and read lists."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from unpool.errors import DataError
from unpool.files import read_text
from unpool.vision.images import SUFFIXES

IMAGES = SUFFIXES
NAME_FILES = (
    *("classes.txt", "class_names.txt", "labelmap.txt", "labels.txt", "label_colors.txt"),
    *("class_dict.csv", "obj.names", "classes.json"),
)
"""Files at the root of a data set that name its classes; the first one that is there counts."""

MASKS = (".png", ".bmp", ".tif", ".tiff", ".gif")


_NOT_READ = {  # masks that people have
    ".jpg": "a JPEG alters class ids: save masks as PNG",
    ".jpeg": "a JPEG alters class ids: save masks as PNG",
    ".npy": "arrays are not read: save it with unpool.vision.images.write_mask",
}


class Folder(NamedTuple):
    """The images or the masks of a data set."""

    path: Path
    suffixes: tuple[str, ...]
    files: Mapping[str, list[Path]]  #: by id; more than one per id is an error
    tail: str = ""  #: added to the first part of an id: CamVid's "annot"

    def home(self, name: str) -> Path:
        """The path of an id without suffix, whether the file exists or not."""
        first, *rest = name.split("/")
        return self.path.joinpath(first + self.tail, *rest)

    def file(self, name: str) -> Path:
        """The file of an id; a `DataError` if there is none, or more than one."""
        found, home = self.files.get(name, []), self.home(name)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            got = f"found {len(found)} files for {name!r} in {self.path}"
            raise DataError(f"{got} ({names}); keep one of them")
        there = "".join(
            f" ({home.name}{suffix} is there, but {why})"
            for suffix, why in _NOT_READ.items()
            if suffix not in self.suffixes and os.path.isfile(f"{home}{suffix}")
        )
        raise DataError(
            f"found no file for {name!r} in {home.parent if self.tail else self.path}{there}; "
            f"wanted that name with one of {' '.join(self.suffixes)}"
        )


def list_folder(root: Path, suffixes: tuple[str, ...]) -> Folder:
    """The files below a folder, which need not exist."""
    files: dict[str, list[Path]] = {}
    for parent, folders, names in os.walk(root, followlinks=True):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for path in (Path(parent, name) for name in sorted(names) if not name.startswith(".")):
            if path.suffix.lower() in suffixes:
                files.setdefault(path.relative_to(root).with_suffix("").as_posix(), []).append(path)
    return Folder(root, suffixes, files)


def list_tree(root: Path, tree: str, splits: Sequence[str], suffixes: tuple[str, ...]) -> Folder:
    """The files of all splits of a tree; their ids begin with the split, if it has SPLIT."""
    before, split, after = tree.rstrip("/").partition("SPLIT")
    if not split:
        return list_folder(root / before, suffixes)
    files = {
        f"{split}/{key}": paths
        for split in splits
        for key, paths in list_folder(root / f"{before}{split}{after}", suffixes).files.items()
    }
    return Folder(root / before, suffixes, files, tail=after)


def require_masks(folder: Folder) -> Folder:
    """Check that the folder of the masks exists."""
    if not (path := folder.path).is_dir():
        got = f"got {path.parent} without {path.name}/"
        raise DataError(f"{got}; put the masks there, named like the images")
    return folder


def list_objects(path: Path, suffixes: tuple[str, ...] = MASKS) -> Folder | None:
    """The files of a folder of object masks; None without it."""
    return list_folder(path, suffixes) if path.is_dir() else None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, stripped, without empty lines at the end."""
    return [line.strip() for line in read_text(path, DataError).rstrip().splitlines()]


def find_splits(root: Path, tree: Sequence[str]) -> list[str]:
    """The names for SPLIT with which a folder has all files and folders of a tree, sorted.

    A name with a slash at its end is a folder; without SPLIT in the tree, the one name is "".

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ("train", "trainannot", "test"):
    ...     (root / name).mkdir()
    >>> find_splits(root, ["SPLIT/", "SPLITannot/"])
    ['train']
    """
    return [split for split, missing in find_gaps(root, tree).items() if not missing]


def find_gaps(root: Path, tree: Sequence[str]) -> dict[str, list[str]]:
    """What a folder lacks of a tree, by the names for SPLIT with which it has any of it.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> (root / "trainannot").mkdir()
    >>> find_gaps(root, ["SPLIT/", "SPLITannot/"])
    {'train': ['train/']}
    """
    named = [name for name in tree if "SPLIT" in name and name != "SPLIT/"]  # any folder is no sign
    splits = {split for name in named for split in _find_names(root, name)}
    gaps = {}
    for split in sorted(splits) or (["SPLIT"] if named else [""]):
        names = [name.replace("SPLIT", split) for name in tree]
        missing = [name for name in names if not _exists(root, name)]
        if len(missing) < len(tree):
            gaps[split] = missing
    return gaps


def _exists(root: Path, name: str) -> bool:
    path = root / name
    return path.is_dir() if name.endswith("/") else path.is_file()


def _find_names(root: Path, name: str) -> set[str]:
    """What SPLIT may stand for in a name below a folder."""
    pattern = re.compile(re.escape(name.rstrip("/")).replace("SPLIT", "([^/.][^/]*)"))
    found = (path.relative_to(root).as_posix() for path in root.glob(name.replace("SPLIT", "*")))
    return {match[1] for path in found if (match := pattern.fullmatch(path))}
