"""Data sets of labeled images, one split at a time: samples, their labels and their objects.

`unpool.data.layouts` lists the formats. Labels are class ids; 255 is void, which training and
evaluation ignore. In an instance map 0 is background, 255 is void (in labels or annotation), and
every other number is one object of the image; numbers may be skipped.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.data.colors import Coloring, count_ids, read_colored, read_object_numbers
from unpool.data.layouts import (
    Layout,
    class_names,
    find_files,
    numbered_classes,
    split_names,
    why_empty,
)
from unpool.data.mat import read_mat
from unpool.data.outlines import Crowd, Outlines, rasterize, require_size
from unpool.data.palettes import describe, find_coloring, find_conflict
from unpool.errors import DataError, ImageError, UnpoolError, few, require_choice
from unpool.files import require_regular
from unpool.formats.objects import find_objects
from unpool.limits import MAX_SCORES
from unpool.vision.arrays import read_header, read_values
from unpool.vision.images import VOID as VOID  # the room offers it, too
from unpool.vision.images import Pixels, image_size, read_image, read_mask

_NEAR = 20  # an id up to which gaps are usual, since one class of VOC may have it
_FILLED = 4  # ids apart on average, and more, are gray values

_ANY = ["background", *map(str, range(1, VOID))]  # names of classes, of which none is used
_SPECK = 5  # pixels; smaller components come from careless annotation or resizing


class Sample(NamedTuple):
    """The files of an image and its mask."""

    name: str  #: the image's id: its path below the images folder, without suffix
    image: Path
    mask: Path | Outlines | None
    """An index image, SBD's .mat, or the objects of a COCO file; None: all pixels are void."""
    instances: Path | None = None  #: an index image or SBD's .mat with the objects
    void: int = VOID  #: the id in the mask that is read as 255
    coloring: Coloring | None = None  #: how to read the colors of the mask; None reads indices
    soft: Path | None = None  #: logits of another network, see `read_soft`
    weight: float = 1.0  #: how often it is drawn in training, relative to the others


class DataSet(NamedTuple):
    """One split of labeled images."""

    root: Path
    split: str
    samples: list[Sample]
    classes: list[str]  #: names by class id; the first is the background
    assumed: str = ""  #: the data set whose names these are, for want of a file with names
    notes: tuple[str, ...] = ()  #: what users should know of how it is read
    warnings: tuple[str, ...] = ()  #: what users should know of its files
    titles: tuple[str, ...] = ()  #: of the parts, if it is made of several, see `open_parts`

    @property
    def title(self) -> str:
        """Its name and split, or those of its parts, for protocols and cards."""
        return " + ".join(self.titles) or f"{self.root.name} {self.split}"


class Object(NamedTuple):
    """One object of an image."""

    label: int  #: class id
    box: tuple[int, int, int, int]  #: x0, y0, x1, y1, tight; x1 and y1 excluded
    instance: int  #: its number in the instance map
    area: int  #: in pixels


def open_data(
    root: str | Path,
    split: str,
    missing: dict[str, str] | None = None,
    *,
    by_color: bool | None = None,
    crowd: Crowd | None = None,
) -> DataSet:
    """Open one split, with samples in the order of the list or of COCO's file, or sorted by name.

    Files are listed, not read, with three exceptions: if the classes have no names, all masks are
    read for the highest id; the COCO file of the split is read once; and the palettes of all masks
    are compared, see `unpool.data.palettes`.

    Args:
        root: a folder in one of the layouts of `unpool.data.layouts`.
        split: "train", "val", or another split of the folder; "all" for all images.
        missing: if given, collects the ids whose image or mask is missing or ambiguous, with the
            reasons, instead of raising; unreadable masks are then ignored, too.
        by_color: read masks by their colors rather than their indices, True, or trust the indices
            whatever the palettes are, False. By default indices are read, and palettes must agree.
        crowd: read COCO's annotations with `iscrowd=1` as "object" or as "void". By default they
            are objects in classes most of whose annotations are such, as exports of labeling tools
            mark brush masks, and void in others, as COCO marks groups.

    Raises:
        DataError, ImageError: something is missing, a mask cannot be read for its ids, or palettes
            disagree.

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
    if crowd is not None:
        require_choice("crowd", crowd, ("void", "object"))
    layout = find_files(root, split, crowd)
    ids = split_names(layout, split)
    if not ids:
        raise DataError(f"got split {split!r} of {root}, which {why_empty(layout, split)}")
    names = class_names(layout)
    void = names.void if names else VOID
    coloring = find_coloring(layout.mask_images(), names, by_color)
    if by_color is None and (conflict := find_conflict(layout.mask_images(), names)):
        raise DataError(f"{conflict.mask}: {conflict.message}")
    samples = []
    for name in ids:
        try:
            files = layout.images.file(name), layout.mask(name), layout.objects(name)
        except DataError as error:
            if missing is None:
                raise
            missing[name] = str(error)
        else:
            samples.append(Sample(name, *files, void, coloring))
    classes = names.classes if names else _numbered(layout, coloring, strict=missing is None)
    assumed = names.assumed if names else ""
    crowds = [note.message.partition(" (")[0] for note in layout.notes if note.kind == "crowds"]
    notes = (*describe(coloring), *(f"the file {message}" for message in crowds))
    warnings = tuple(f"{note.file}: {note.message}" for note in layout.notes)
    return DataSet(layout.root, split, samples, classes, assumed, notes, warnings)


def read_sample(sample: Sample, classes: int) -> tuple[Pixels, Pixels]:
    """Read an image, (H, W, 3) uint8 RGB, upright, and its labels, see `read_labels`.

    Raises:
        ImageError, DataError: a file cannot be used, or sizes differ.
    """
    image, labels = read_image(sample.image), read_labels(sample, classes)
    if image.shape[:2] != labels.shape:
        image_size, mask_size = (f"{a.shape[1]} x {a.shape[0]}" for a in (image, labels))
        raise DataError(
            f"{sample.image} is {image_size} (upright) but its mask {sample.mask} is "
            f"{mask_size}; resize the mask (nearest) or undo the image's EXIF rotation"
        )
    return image, labels


def read_labels(sample: Sample, classes: int) -> Pixels:
    """Read the labels of a sample: (H, W) uint8 class ids, 255 for void.

    Raises:
        ImageError, DataError: a file cannot be used, or has unknown ids.
    """
    if sample.mask is None:
        return np.full(image_size(sample.image), VOID, np.uint8)
    if isinstance(sample.mask, Outlines):
        require_size(sample.mask, image_size(sample.image))
    labels = load_labels(sample.mask, sample.void, sample.coloring)
    ids = np.flatnonzero(count_ids(labels))
    wrong = ids[(ids >= classes) & (ids != VOID)]
    if wrong.size:
        raise DataError(
            f"{sample.mask} has the ids {few(wrong)}; wanted 0 to "
            f"{classes - 1}, or {VOID} for void: correct the mask, or name its ids in classes.txt "
            "at the root of the data set, one name per line, whose number (from 0) is the id"
        )
    return labels


def load_labels(
    mask: Path | Outlines, void: int = VOID, coloring: Coloring | None = None
) -> Pixels:
    """Read the labels (H, W) uint8 of a mask of any form, with any ids; `void` is read as 255."""
    if isinstance(mask, Outlines):
        return rasterize(mask).labels
    if mask.suffix == ".mat":
        labels = read_mat(mask, "GTcls")
    else:
        labels = read_colored(mask, coloring) if coloring else read_mask(mask)
    labels[labels == void] = VOID
    return labels


def only_background(pixels: NDArray[np.integer]) -> str:
    """What is wrong with masks without objects, by their number of pixels of each id, (256,)."""
    if pixels[1:VOID].any() or not pixels.any():
        return ""
    return (
        f"contain only 0 (background) and {VOID} (void); label objects with 1, 2 ..., or, if white "
        "means a class, give its color in labelmap.txt (name:255,255,255) and pass by_color=True"
    )


def gray_values(ids: NDArray[np.integer]) -> str:
    """What is wrong with ids without names, ascending, that are few and far apart.

    >>> gray_values(np.array([0, 1, 2, 11]))
    ''
    """
    if not ids.size or ids[-1] <= _NEAR or _FILLED * len(ids) > ids[-1]:
        return ""
    return (
        f"contain the ids {few(ids)} and no others, as gray values do; number the classes 0, 1, "
        f"2 ..., or give their colors in labelmap.txt (name:{ids[-1]},{ids[-1]},{ids[-1]} ...) and "
        "pass by_color=True"
    )


def require_objects(data: DataSet, *, empty: bool = True) -> None:
    """Refuse a split whose masks contain only 0 and 255. Reads masks until one has other ids.

    Args:
        data: labeled images.
        empty: accept masks that contain only 0, which are right for images without objects.

    Raises:
        DataError: no mask has an object.
    """
    pixels = np.zeros(VOID + 1, np.int64)
    for sample in data.samples:
        if sample.mask is None:
            continue
        try:
            labels = load_labels(sample.mask, sample.void, sample.coloring)
        except UnpoolError:
            continue  # reported where it is used
        pixels += count_ids(labels)
        if pixels[1:VOID].any():
            return
    if (message := only_background(pixels)) and ((pixels[0] and pixels[VOID]) or not empty):
        raise DataError(f"the masks of {data.split} in {data.root} {message}")


def read_soft(sample: Sample, classes: int) -> NDArray[np.float32] | None:
    """The soft labels of a sample, (K, h, w) logits of another network for the whole image.

    They may be coarser than the image. None for a sample without.

    Raises:
        DataError: the file is no `.npy` with finite logits of all classes.
    """
    if sample.soft is None:
        return None
    path = require_regular(sample.soft, DataError)
    wanted = f"finite logits ({classes}, h, w) of the same classes, as a .npy: write them again"
    try:
        with path.open("rb") as file:
            header = read_header(file)
            size = math.prod(header.shape)
            if len(header.shape) != 3 or header.shape[0] != classes or not 0 < size <= MAX_SCORES:
                raise DataError(f"got soft labels {path} of {header.shape}; wanted {wanted}")
            if header.dtype.kind not in "fiu":
                raise DataError(f"got soft labels {path} of {header.dtype}; wanted {wanted}")
            soft = read_values(file, header, np.dtype(np.float32))
    except DataError:
        raise
    except Exception:  # NumPy's reader raises many kinds
        raise DataError(f"got soft labels {path}, which are damaged; wanted {wanted}") from None
    if not np.isfinite(soft).all():
        raise DataError(f"got soft labels {path}, some not finite; wanted {wanted}")
    return soft


def read_instances(sample: Sample, classes: int) -> NDArray[np.int32]:
    """Read the instance map of an image, (H, W) int32.

    It comes from SegmentationObject (VOC), instances/ (plain), inst/ (SBD) or the annotations
    (COCO). Without such a file, objects are the connected components of each class except the
    background, of 5 pixels or more: touching objects of a class are then one, and an object behind
    a pole is two.

    Raises:
        ImageError, DataError: a file cannot be used, has unknown ids, or another size.

    >>> import tempfile
    >>> from unpool.vision.images import write_mask
    >>> mask = Path(tempfile.mkdtemp(), "mask.png")
    >>> write_mask(mask, np.kron([[3, 0, 3]], np.ones((4, 4), np.uint8)))
    >>> read_instances(Sample("cat", mask, mask), 4)[0]
    array([1, 1, 1, 1, 0, 0, 0, 0, 2, 2, 2, 2], dtype=int32)
    """
    return _read_maps(sample, classes)[1]


def objects(sample: Sample, classes: int) -> list[Object]:
    """The objects of `read_instances`, in the order of their numbers."""
    return instance_objects(*_read_maps(sample, classes))


def instance_objects(labels: Pixels, instances: NDArray[np.int32]) -> list[Object]:
    """The objects of an instance map (H, W), each with the most frequent class of its pixels.

    Objects that are only background in the labels (H, W) are omitted.

    >>> instance_objects(np.array([[0, 3, 3]], np.uint8), np.array([[0, 7, 7]], np.int32))
    [Object(label=3, box=(1, 0, 3, 1), instance=7, area=2)]
    """
    y, x = np.nonzero((instances != 0) & (instances != VOID))
    numbers = instances[y, x]
    order = np.argsort(numbers, kind="stable")
    found = []
    for part in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        rows, columns = y[part], x[part]
        count = np.bincount(labels[rows, columns], minlength=VOID + 1)[1:VOID]
        if count.any():
            low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
            box = int(low[0]), int(low[1]), int(high[0]), int(high[1])
            number = int(numbers[part[0]])
            found.append(Object(int(count.argmax()) + 1, box, number, len(part)))
    return found


def components(labels: Pixels) -> NDArray[np.int32]:
    """The connected components of each class except the background, as an instance map (H, W).

    Connectivity is 8; components of fewer than 5 pixels become background.
    """
    found = find_objects(labels, _ANY)
    large = np.flatnonzero(found.areas >= _SPECK)
    numbers = np.zeros(len(found.areas) + 1, np.int32)
    numbers[large + 1] = 1 + np.arange(len(large)) + (np.arange(len(large)) >= VOID - 1)
    instances = numbers[found.numbers]
    instances[labels == VOID] = VOID
    return instances


def load_objects(path: Path) -> NDArray[np.int32]:
    """Read an instance map (H, W) int32 from an index image or SBD's .mat."""
    if path.suffix == ".mat":
        return read_mat(path, "GTinst").astype(np.int32)
    return read_object_numbers(path)


def _numbered(layout: Layout, coloring: Coloring | None, strict: bool) -> list[str]:
    """Numbered classes up to the highest id of all masks, since all splits must agree."""
    found = np.zeros(VOID + 1, bool)
    for path in layout.mask_images():
        try:
            mask = load_labels(path, VOID, coloring)
        except ImageError:
            if strict:
                raise
        else:
            found[mask.ravel()] = True
    ids = np.flatnonzero(found[:VOID])
    if message := gray_values(ids):
        raise DataError(f"the masks of {layout.root} {message}")
    return numbered_classes(int(ids.max(initial=0)))


def _read_maps(sample: Sample, classes: int) -> tuple[Pixels, NDArray[np.int32]]:
    """The labels and the instance map of a sample, each (H, W)."""
    if isinstance(sample.mask, Outlines):
        rasters = rasterize(sample.mask)
        return rasters.labels, rasters.instances
    labels = read_labels(sample, classes)
    if sample.instances is None:
        return labels, components(labels)
    instances = load_objects(sample.instances)
    if instances.shape != labels.shape:
        raise DataError(
            f"{sample.instances} is (H, W) {instances.shape} but the mask {sample.mask} is "
            f"{labels.shape}; wanted one size: redraw one of them"
        )
    instances[labels == VOID] = VOID
    return labels, instances
