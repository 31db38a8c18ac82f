"""Images for classification, in a folder for each class.

    divided   SPLIT/CLASS/IMAGE.jpg, such as train/cat/1.jpg and val/cat/2.jpg
    plain     CLASS/IMAGE.jpg; about every fifth image is "val" and the others are "train", by
              a hash of the name, so that an image stays in its split when others are added

Classes have the names of their folders and are numbered alphabetically. A class folder has images
of its own; images in its subfolders belong to the class as well.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from unpool import distributed
from unpool.data.crops import Draw, View
from unpool.errors import DataError
from unpool.vision.images import SUFFIXES, Pixels, image_size, read_image

if TYPE_CHECKING:
    from unpool.vision.boxes import Crops

_OF_MASKS = (  # the folders of data sets for segmentation, see unpool.data.layouts
    {"JPEGImages", "SegmentationClass"},
    {"images", "masks"},
    {"images", "annotations"},
    {"train2017", "annotations"},
    {"img", "cls"},
    {"train", "trainannot"},
)


class LabeledImage(NamedTuple):
    """An image and its class."""

    name: str  #: its path below the root
    path: Path
    label: int  #: class id

    def read(self) -> Pixels:
        """The upright image, (H, W, 3) uint8, RGB."""
        return read_image(self.path)


class ClassFolders(NamedTuple):
    """One split of images in class folders."""

    root: Path
    split: str
    samples: list[LabeledImage]
    classes: list[str]  #: names by class id


def open_folders(
    root: str | Path, split: str, classes: Sequence[str] | None = None
) -> ClassFolders:
    """List the images of a split, sorted by class and name; they are not read.

    Args:
        root: a folder in one of the layouts above.
        split: "train", "val", or another folder; in a plain layout also "all".
        classes: names by class id of another split, which may have more classes.

    Raises:
        DataError: no such folder or split, no class folders, a class without images or not in
            `classes`.

    >>> import tempfile
    >>> from unpool.vision.images import write_image
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ["cat/4", "cat/5", "cat/6", "dog/4", "dog/5", "dog/6"]:
    ...     write_image(root / f"{name}.jpg", np.zeros((4, 6, 3), np.uint8))
    >>> data = open_folders(root, "val")
    >>> data.classes, [image.name for image in data.samples]
    (['cat', 'dog'], ['cat/4.jpg', 'dog/6.jpg'])
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"got {root}, which is not a folder; pass one with a folder for each class")
    there = {folder.name for folder in _folders(root)}
    if with_masks := [names for names in _OF_MASKS if names <= there]:
        raise DataError(
            f"got {root} with {'/ and '.join(sorted(with_masks[0]))}/, a data set with masks; "
            "wanted a folder for each class, such as cat/ and dog/: make such folders, or use a "
            "segmentation recipe"
        )
    divided = any(_holds_classes(root / name) for name in ("train", "val", split))
    home = root / split if divided else root
    if divided and not _holds_classes(home):
        known = [folder.name for folder in _folders(root) if _holds_classes(folder)]
        raise DataError(
            f"got split {split!r} of {root}, which has {', '.join(known)}; pass one of these, or "
            f"put images into {home}/CLASS/"
        )
    found = {folder.name: _images(folder) for folder in _folders(home)}
    _require_classes(home, found, least=2 if classes is None else 1)
    names = sorted(found) if classes is None else list(classes)
    if unknown := sorted(set(found) - set(names)):
        raise DataError(
            f"got {home} with the classes {', '.join(unknown[:5])}, which the training split does "
            "not have; remove these folders, or add them there"
        )
    samples = [
        LabeledImage(path.relative_to(root).as_posix(), path, names.index(name))
        for name in sorted(found)
        for path in found[name]
    ]
    if not divided:
        samples = _part(samples, root, split, names)
    return ClassFolders(root, split, samples, names)


def require_images(data: ClassFolders) -> None:
    """Read the header of every image; raise an `ImageError` for a file that is none."""
    for sample in data.samples:
        image_size(sample.path)


def draw_crops(data: ClassFolders, crops: "Crops", seed: int = 0) -> Draw:
    """Random crops (S, S, 3) of images with their class (), in a new order in each epoch."""

    def draw(place: int) -> View:
        sample = data.samples[distributed.sample_index(place, len(data.samples), seed)]
        rng = np.random.default_rng([seed, 1, place])
        return View(crops.draw(sample.read(), rng), np.asarray(sample.label))

    return draw


def _part(
    samples: list[LabeledImage], root: Path, split: str, names: list[str]
) -> list[LabeledImage]:
    """The images of a split of a plain folder."""
    if split == "all":
        return samples
    if split not in ("train", "val"):
        raise DataError(
            f"got split {split!r} of {root}; without folders for splits there are train, val, all: "
            f"pass one of these, or put images into {root / split}/CLASS/"
        )
    chosen = [s for s in samples if (_number(s.name) % 5 == 0) == (split == "val")]
    bare = sorted({s.label for s in samples} - {s.label for s in chosen})
    if not chosen or (bare and split == "train"):
        of = f"the class {names[bare[0]]}" if chosen else root
        raise DataError(
            f"got no image of {of} for {split}; too few images, of which about every fifth is "
            f"for val: add images, or divide them into {root / 'train'}/CLASS/ and "
            f"{root / 'val'}/CLASS/"
        )
    return chosen


def _number(name: str) -> int:
    """A hash of a name that is the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _require_classes(home: Path, found: dict[str, list[Path]], least: int) -> None:
    """Refuse a folder without class folders, or with images beside them."""
    wanted = f"wanted a folder for each class, such as {home}/cat/1.jpg and {home}/dog/1.jpg"
    if loose := [path for path in home.iterdir() if _is_image(path)]:
        raise DataError(
            f"got {home} with {len(loose)} images in no class folder, such as "
            f"{min(loose).name}; {wanted}: move each into the folder of its class"
        )
    if inner := [name for name in found if _holds_classes(home / name)]:
        raise DataError(
            f"got {home / min(inner)}, which has folders but no images of its own; {wanted}: if "
            f"{min(inner)} is a split, set split or val to it, else move its images up"
        )
    if not any(found.values()):
        raise DataError(
            f"got {home}, where no folder holds an image ({' '.join(SUFFIXES[:5])} ...); {wanted}"
        )
    if len(found) < least:
        raise DataError(f"got {home} with the class {min(found)} alone; {wanted}, two or more")
    if empty := [name for name, paths in found.items() if not paths]:
        raise DataError(
            f"got {home / min(empty)} without images ({' '.join(SUFFIXES[:5])} ...); put some "
            "there, or remove the folder if it is no class"
        )


def _holds_classes(folder: Path) -> bool:
    """Whether a folder is a split: it has folders, but no images of its own."""
    if not folder.is_dir() or any(_is_image(path) for path in folder.iterdir()):
        return False
    return bool(_folders(folder))


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    """The images below a folder, at any depth."""
    found = (path for path in folder.rglob("*") if _is_image(path))
    return sorted(p for p in found if "/." not in f"/{p.relative_to(folder).as_posix()}")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
