"""Strong and weak labels in one data set: masks for some images, only class names for the others.

Masks are the strong labels. Images without a mask are listed in `image_classes.txt` at the root of
the data, one on each line: the id of the image, a colon, and the names of the classes that it
shows, separated by commas.

    2007_000032: aeroplane, person
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unpool.data.colors import count_ids
from unpool.data.datasets import DataSet, Sample, open_data, read_labels
from unpool.data.layouts.find import find_files
from unpool.data.layouts.listing import read_lines
from unpool.data.layouts.splits import split_names
from unpool.errors import DataError, suggest
from unpool.vision.images import VOID

FILE = "image_classes.txt"


class WeakImage(NamedTuple):
    """An image and the classes that it shows."""

    name: str  #: the id of the image, as in `Sample`
    image: Path
    shown: tuple[int, ...]  #: class ids in order, without the background


class WeakData(NamedTuple):
    """A split whose images all have classes, and some of them masks."""

    strong: DataSet  #: the images whose masks are used
    images: list[WeakImage]  #: all images of the split, including those of `strong`


def open_weak(
    root: str | Path,
    split: str,
    strong_split: str | None = None,
    per_class: int | None = None,
    seed: int = 0,
    **reading: Any,
) -> WeakData:
    """Open a split whose images need not all have masks.

    The classes of an image are those in `image_classes.txt`, or else those in its mask.

    Args:
        root: a folder that `open_data` understands.
        split: the split to open.
        strong_split: a split of the folder; only the masks of its images are used. By default all
            masks are used.
        per_class: use only the masks of this many images for each class, see `draw_strong`.
        seed: of the random choice.
        **reading: options of `open_data`.

    Raises:
        DataError, ImageError: a mask or a line cannot be used, an image has neither mask nor
            classes, or no image has a mask.
    """
    without: dict[str, str] = {}
    data = open_data(root, split, without, **reading)
    listed = read_image_classes(Path(root) / FILE, data.classes)
    masks = {sample.name: sample for sample in data.samples}
    layout = find_files(root, split, reading.get("crowd"))
    images = []
    for name in split_names(layout, split):
        if name not in masks and name not in listed:
            raise DataError(f"{without[name]}; or list its classes in {Path(root) / FILE}")
        path = masks[name].image if name in masks else layout.images.file(name)
        found = listed[name] if name in listed else _shown(masks[name], len(data.classes))
        images.append(WeakImage(name, path, found))
    strong = data.samples
    if strong_split is not None:
        names = set(split_names(find_files(root, strong_split), strong_split))
        strong = [sample for sample in strong if sample.name in names]
    if per_class is not None:
        strong = draw_strong(strong, images, len(data.classes), per_class, seed)
    if not strong:
        raise DataError(
            f"got no image of {split} in {root} with a mask to learn from; wanted a few of each "
            "class: label some, or choose another strong_split"
        )
    return WeakData(data._replace(samples=strong), images)


def draw_strong(
    samples: Sequence[Sample], images: Sequence[WeakImage], classes: int, count: int, seed: int = 0
) -> list[Sample]:
    """Draw `count` images for each class at random; rarer classes give all their images.

    Class by class, images are drawn from those that show the class and have not been drawn yet.
    They may show other classes, too. The result keeps the order of `samples`.

    Args:
        samples: the images to draw from, all with masks.
        images: the classes of these images, and possibly of others.
        classes: number of classes, background included.
        count: number of images for each class.
        seed: of the random choice.
    """
    shown, chosen = {image.name: image.shown for image in images}, set[str]()
    rng = np.random.default_rng([seed, 3])
    for label in range(1, classes):
        left = [s.name for s in samples if label in shown[s.name] and s.name not in chosen]
        chosen |= {left[i] for i in rng.permutation(len(left))[:count]}
    return [sample for sample in samples if sample.name in chosen]


def read_image_classes(path: Path, classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Read the class ids of images, by image id; empty if the file does not exist.

    Raises:
        DataError: a malformed line, an unknown class, or an image that is listed twice.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), FILE)
    >>> _ = path.write_text("1: dog, cat")
    >>> read_image_classes(path, ["background", "cat", "dog"])
    {'1': (1, 2)}
    """
    if not path.is_file():
        return {}
    numbers = {name: i for i, name in enumerate(classes) if i}
    found: dict[str, tuple[int, ...]] = {}
    for n, line in enumerate(read_lines(path), 1):
        name, colon, text = line.rpartition(":")
        names = [word.strip() for word in text.split(",") if word.strip()]
        if not colon or not name.strip() or name.strip() in found:
            raise DataError(
                f"got {line[:80]!r} in line {n} of {path}; wanted IMAGE: CLASS, CLASS, once for "
                "each image"
            )
        if unknown := [word for word in names if word not in numbers]:
            got = f"got {unknown[0][:80]!r} in line {n} of {path}"
            raise DataError(f"{got}; {suggest(unknown[0], numbers)}")
        found[name.strip()] = tuple(sorted({numbers[word] for word in names}))
    return found


def _shown(sample: Sample, classes: int) -> tuple[int, ...]:
    counts = count_ids(read_labels(sample, classes))[1:VOID]
    return tuple((np.flatnonzero(counts) + 1).tolist())
