"""Labeled pictures on disk: VOC folders, and plain folders of images and masks.

The layouts:

    VOC      JPEGImages/ID.jpg  SegmentationClass/ID.png  ImageSets/Segmentation/SPLIT.txt
    plain    images/...  masks/...  of equal names; the splits are lists (SPLIT.txt beside them)
             or folders (images/SPLIT/...); without either, every fifth picture is "val" and
             the others are "train"

A list has an id a line: the picture's path below the images folder, with or without its suffix.
Both layouts may have a `classes.txt`: a class name a line, the line's number (from 0) being the
class id. Masks are 8-bit index pictures; 255 is void and takes no part in training or evaluation.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.errors import DataError
from unpool.vision.images import read_image, read_mask

__all__ = [
    "VOC_CLASSES",
    "VOID",
    "DataSet",
    "Folder",
    "Layout",
    "Sample",
    "class_names",
    "find_files",
    "list_splits",
    "numbered_classes",
    "open_data",
    "read_sample",
    "split_names",
]

VOID = 255

VOC_CLASSES = (  # noqa: SIM905 - as a list, ruff would give every name a line
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()

_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_MASKS = (".png", ".bmp", ".tif", ".tiff", ".gif")
_USUAL = ("train", "val", "test", "trainval")


class Sample(NamedTuple):
    """A picture and its mask, by their paths."""

    name: str  #: the picture's id: its path below the images folder, without suffix
    image: Path
    mask: Path


class DataSet(NamedTuple):
    """One split of labeled pictures."""

    root: Path
    split: str
    samples: list[Sample]
    classes: list[str]  #: names by class id; the first is the background


class Folder(NamedTuple):
    """The pictures, or the masks, of a data set."""

    path: Path
    suffixes: tuple[str, ...]
    files: dict[str, list[Path]]  #: by id; more than one of an id is a mistake

    def file(self, name: str) -> Path:
        """The one file of an id.

        Raises:
            DataError: there is none, or more than one.
        """
        found = self.files.get(name, [])
        if not found:
            raise DataError(
                f"found no file for {name!r} in {self.path}; wanted that name "
                f"with one of {' '.join(self.suffixes)}"
            )
        if len(found) > 1:
            raise DataError(
                f"found {len(found)} files for {name!r} in {self.path} "
                f"({', '.join(path.name for path in found)}); keep one of them"
            )
        return found[0]


class Layout(NamedTuple):
    """Where the files of a data set are."""

    root: Path
    images: Folder
    masks: Folder
    lists: Path  #: the folder of the lists


def open_data(root: str | Path, split: str) -> DataSet:
    """Find the pictures and masks of a split.

    Files are listed, not read; but where nothing names the classes, all masks are read, for
    the highest id.

    Args:
        root: a folder in one of the two layouts above.
        split: "train", "val", or whatever the folder has; "all" for every picture.

    Returns:
        The samples in the order of the list, or sorted by name.

    Raises:
        DataError: the folder, the split, a picture or a mask is missing; the message tells
            what was looked for and which splits there are.
        ImageError: a mask cannot be read for its ids.

    >>> import tempfile
    >>> from unpool.vision.images import write_image, write_mask
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ["ant", "bee", "cat", "dog", "elk"]:
    ...     write_image(root / f"images/{name}.jpg", np.zeros((4, 6, 3), np.uint8))
    ...     write_mask(root / f"masks/{name}.png", np.eye(4, 6, dtype=np.uint8))
    >>> data = open_data(root, "val")
    >>> [sample.name for sample in data.samples], data.classes
    (['elk'], ['background', 'class 1'])
    """
    layout = find_files(root)
    names = split_names(layout, split)
    if not names:
        raise DataError(
            f"got split {split!r} of {root} without pictures; write their ids into "
            f"{layout.lists / split}.txt (without any list, every fifth picture is val)"
        )
    samples = [Sample(name, layout.images.file(name), layout.masks.file(name)) for name in names]
    return DataSet(layout.root, split, samples, class_names(layout) or _numbered(layout))


def read_sample(sample: Sample, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read a picture and its mask, checked against each other.

    Args:
        sample: from `open_data`.
        classes: how many classes there are.

    Returns:
        The picture (H, W, 3) uint8 RGB, upright, and its labels (H, W) uint8, 255 for void.

    Raises:
        ImageError: a file that cannot be used.
        DataError: the two differ in size, or the mask has ids of no class.
    """
    image, labels = read_image(sample.image), read_mask(sample.mask)
    if image.shape[:2] != labels.shape:
        raise DataError(
            f"{sample.image} is {_size(image)} (upright) but its mask {sample.mask} is "
            f"{_size(labels)}; resize the mask (nearest) or undo the picture's EXIF rotation"
        )
    ids = np.flatnonzero(np.bincount(labels.ravel(), minlength=VOID))
    wrong = ids[(ids >= classes) & (ids != VOID)]
    if wrong.size:
        raise DataError(
            f"{sample.mask} has the ids {', '.join(map(str, wrong[:5]))}; wanted 0 to "
            f"{classes - 1}, or {VOID} for void: correct the mask or add names to classes.txt"
        )
    return image, labels


def find_files(root: str | Path) -> Layout:
    """Find the pictures and masks of a data set, whether or not they fit one another.

    Raises:
        DataError: the folder has neither of the two layouts, or no picture.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"got {root}, which is not a folder; pass the root of the data set")
    if (root / "JPEGImages").is_dir():
        images, masks, lists = "JPEGImages", "SegmentationClass", root / "ImageSets/Segmentation"
    elif (root / "images").is_dir():
        images, masks, lists = "images", "masks", root
    else:
        raise DataError(
            f"got {root}, which has neither JPEGImages/ (VOC) nor images/ (plain); wanted one of "
            "the two layouts, with the masks in SegmentationClass/ or masks/"
        )
    if not (root / masks).is_dir():
        raise DataError(f"got {root} without {masks}/; put the masks there, named as the pictures")
    layout = Layout(root, _folder(root / images, _IMAGES), _folder(root / masks, _MASKS), lists)
    if not layout.images.files:
        raise DataError(
            f"got {root / images} without pictures; wanted files ending in {' '.join(_IMAGES)}"
        )
    return layout


def list_splits(layout: Layout) -> list[str]:
    """The splits of a data set, sorted: its lists, or else its folders, or else train and val."""
    lists = [path.stem for path in layout.lists.glob("*.txt") if _is_list(path, layout)]
    return sorted(lists) or _folders(layout) or ["train", "val"]


def split_names(layout: Layout, split: str) -> list[str]:
    """The ids of a split: from a list, from a folder, or by the fixed rule.

    A line of a list that names no picture is given as it is.

    Raises:
        DataError: there is no such split.
    """
    listed = layout.lists / f"{split}.txt"
    found = sorted(layout.images.files)
    if listed.is_file() and split != "classes":
        return [_id(line, layout) for line in _lines(listed) if line]
    if split == "all":
        return found
    if split in _folders(layout):
        return [name for name in found if name.startswith(f"{split}/")]
    known = list_splits(layout)
    if split in known:
        return [name for i, name in enumerate(found) if (i % 5 == 4) == (split == "val")]
    raise DataError(
        f"got split {split!r} of {layout.root}; there are {', '.join([*known, 'all'])}: pass one "
        f"of them, or write the ids into {listed}"
    )


def class_names(layout: Layout) -> list[str] | None:
    """The class names by id, from `classes.txt` or as VOC's; None where nothing names them.

    Raises:
        DataError: a `classes.txt` with a gap, a name that comes twice, or too few or many names.
    """
    listed = layout.root / "classes.txt"
    if not listed.is_file():
        return list(VOC_CLASSES) if layout.images.path.name == "JPEGImages" else None
    classes = _lines(listed)
    if not 2 <= len(classes) <= VOID:
        raise DataError(f"got {len(classes)} names in {listed}; wanted 2 to {VOID}, one a line")
    if "" in classes:
        raise DataError(
            f"got an empty line {classes.index('') + 1} in {listed}; wanted a name, since the "
            "line's number is the class id: write one, or remove the line if the masks skip none"
        )
    if twice := [name for i, name in enumerate(classes) if name in classes[:i]]:
        raise DataError(f"got {twice[0]!r} twice in {listed}; give every class a name of its own")
    return classes


def numbered_classes(highest: int) -> list[str]:
    """Names for classes that nothing names, from 0 to the highest id of the masks.

    >>> numbered_classes(2)
    ['background', 'class 1', 'class 2']
    """
    return ["background", *(f"class {i}" for i in range(1, max(highest, 1) + 1))]


def _numbered(layout: Layout) -> list[str]:
    """Numbered classes from all masks, not those of one split, so that the splits agree."""
    masks = (read_mask(path) for paths in layout.masks.files.values() for path in paths)
    return numbered_classes(max(int(mask[mask != VOID].max(initial=0)) for mask in masks))


def _folder(root: Path, suffixes: tuple[str, ...]) -> Folder:
    files: dict[str, list[Path]] = {}
    for parent, folders, names in os.walk(root, followlinks=True):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for path in (Path(parent, name) for name in sorted(names) if not name.startswith(".")):
            if path.suffix.lower() in suffixes:
                files.setdefault(path.relative_to(root).with_suffix("").as_posix(), []).append(path)
    return Folder(root, suffixes, files)


def _folders(layout: Layout) -> list[str]:
    folders = (path for path in layout.images.path.iterdir() if path.is_dir())
    return sorted(path.name for path in folders if not path.name.startswith("."))


def _is_list(path: Path, layout: Layout) -> bool:
    """Whether a text lists pictures, by its name or its first line; a readme does not."""
    if path.stem in (*_USUAL, "classes"):
        return path.stem in _USUAL
    try:
        first = next(filter(None, _lines(path)), "")
    except DataError:
        return False
    return _id(first, layout) in layout.images.files


def _id(line: str, layout: Layout) -> str:
    """The picture that a line names, perhaps with its suffix or with other words behind it."""
    for name in (line, *line.split()[:1]):
        stem, _, suffix = name.rpartition(".")
        if name in layout.images.files:
            return name
        if f".{suffix.lower()}" in _IMAGES and stem in layout.images.files:
            return stem
    return line


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"got {path}, which is no text in UTF-8 ({error}); save it so") from error
    return [line.strip() for line in text.rstrip().splitlines()]


def _size(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
