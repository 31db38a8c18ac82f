"""Labeled pictures on disk: VOC folders, and plain folders of images and masks.

The layouts:

    VOC      JPEGImages/ID.jpg  SegmentationClass/ID.png  ImageSets/Segmentation/SPLIT.txt
    plain    images/...  masks/...  of equal names; the splits are lists (SPLIT.txt beside them)
             or folders (images/SPLIT/...); without either, every fifth picture is "val" and
             the others are "train"

Both may have a `classes.txt`: a class name a line, the line's number (from 0) being the class id.
Masks are 8-bit index pictures; 255 is void and takes no part in training or evaluation.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from unpool.errors import DataError
from unpool.vision.images import read_image, read_mask

__all__ = ["VOC_CLASSES", "VOID", "DataSet", "Sample", "open_data", "read_sample"]

VOID = 255

VOC_CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()

_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_MASKS = (".png", ".bmp", ".tif", ".tiff", ".gif")


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


def open_data(root: str | Path, split: str) -> DataSet:
    """Find the pictures and masks of a split; files are listed, not read.

    Args:
        root: a folder in one of the two layouts above.
        split: "train", "val", or whatever the folder has; "all" for every picture.

    Returns:
        The samples in the order of the list, or sorted by name.

    Raises:
        DataError: the folder, the split, a picture or a mask is missing; the message tells
            what was looked for and which splits there are.
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
    names = _names(root, root / images, lists, split)
    samples = [
        Sample(name, _find(root / images, name, _IMAGES), _find(root / masks, name, _MASKS))
        for name in names
    ]
    return DataSet(root, split, samples, _classes(root, images == "JPEGImages", samples))


def read_sample(sample: Sample, classes: int) -> tuple[np.ndarray, np.ndarray]:
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
    wrong = np.setdiff1d(labels, [*range(classes), VOID])
    if wrong.size:
        raise DataError(
            f"{sample.mask} has the ids {', '.join(map(str, wrong[:5]))}; wanted 0 to "
            f"{classes - 1}, or {VOID} for void: correct the mask or add names to classes.txt"
        )
    return image, labels


def _names(root: Path, images: Path, lists: Path, split: str) -> list[str]:
    """The ids of a split: from a list, from a folder, or by the fixed rule."""
    listed = lists / f"{split}.txt"
    if listed.is_file() and split != "classes":
        names = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
        if not names:
            raise DataError(f"got an empty list {listed}; write a picture's id on each line")
        return [name.removesuffix(Path(name).suffix) if "." in name else name for name in names]
    found = sorted(
        str(path.relative_to(images).with_suffix("").as_posix())
        for path in images.rglob("*")
        if path.suffix.lower() in _IMAGES and not path.name.startswith(".")
    )
    if not found:
        raise DataError(f"got {images} without pictures; wanted files ending in {', '.join(_IMAGES)}")
    folders = sorted(path.name for path in images.iterdir() if path.is_dir())
    known = sorted({p.stem for p in lists.glob("*.txt") if p.stem != "classes"} | set(folders))
    if split == "all":
        return found
    if split in folders:
        return [name for name in found if name.startswith(f"{split}/")]
    if not known and split in ("train", "val"):
        names = [name for i, name in enumerate(found) if (i % 5 == 4) == (split == "val")]
        if names:
            return names
        raise DataError(f"got {len(found)} pictures in {images}; wanted at least 5 to set aside val")
    raise DataError(
        f"got split {split!r} of {root}; there are {', '.join([*known, 'all'])}: pass one of "
        f"them, or write the ids into {listed}"
    )


def _find(folder: Path, name: str, suffixes: tuple[str, ...]) -> Path:
    for suffix in suffixes:
        for form in (suffix, suffix.upper()):
            path = folder / f"{name}{form}"
            if path.is_file():
                return path
    raise DataError(f"found no file for {name!r} in {folder}; wanted {name}{suffixes[0]} or the like")


def _classes(root: Path, voc: bool, samples: list[Sample]) -> list[str]:
    listed = root / "classes.txt"
    if listed.is_file():
        classes = [line.strip() for line in listed.read_text().splitlines() if line.strip()]
        if len(classes) < 2 or len(classes) > VOID:
            raise DataError(f"got {len(classes)} names in {listed}; wanted 2 to {VOID}, one a line")
        return classes
    if voc:
        return list(VOC_CLASSES)
    highest = max(_highest(sample) for sample in samples)
    return ["background", *(f"class {i}" for i in range(1, max(highest, 1) + 1))]


def _highest(sample: Sample) -> int:
    labels = read_mask(sample.mask)
    return int(labels[labels != VOID].max(initial=0))


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
