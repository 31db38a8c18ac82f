"""The objects of an image: instance maps, and the class, box and area of each object.

In an instance map 0 is background, 255 is void (in labels or annotation), and every other number is
one object of the image; numbers may be skipped.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from unpool.data.classes import VOID
from unpool.data.coco import Outlines, rasterize
from unpool.data.datasets import Sample, read_labels, read_mat
from unpool.errors import DataError
from unpool.vision.images import Pixels, read_mask

_SPECK = 5  # pixels; smaller components come from careless annotation or resizing


class Object(NamedTuple):
    """One object of an image."""

    label: int  #: class id
    box: tuple[int, int, int, int]  #: x0, y0, x1, y1, tight; x1 and y1 excluded
    instance: int  #: its number in the instance map
    area: int  #: in pixels


def read_instances(sample: Sample, classes: int) -> NDArray[np.int32]:
    """Read the instance map of an image.

    It comes from SegmentationObject (VOC), instances/ (plain), inst/ (SBD) or the annotations
    (COCO). Without such a file, objects are the connected components of each class except the
    background, of 5 pixels or more: touching objects of a class are then one, and an object behind
    a pole is two.

    Args:
        sample: from `open_data`.
        classes: number of classes.

    Returns:
        (H, W) int32: 0 background, 255 void, other numbers objects.

    Raises:
        ImageError: a file cannot be used.
        DataError: mask and instance map differ in size, or the mask has unknown ids.

    >>> import tempfile
    >>> from unpool.vision.images import write_mask
    >>> mask = Path(tempfile.mkdtemp(), "mask.png")
    >>> write_mask(mask, np.kron([[3, 0, 3]], np.ones((4, 4), np.uint8)))
    >>> read_instances(Sample("cat", mask, mask), 4)[0]
    array([1, 1, 1, 1, 0, 0, 0, 0, 2, 2, 2, 2], dtype=int32)
    """
    return _read_maps(sample, classes)[1]


def objects(sample: Sample, classes: int) -> list[Object]:
    """The objects of an image, in the order of their numbers in its instance map.

    Arguments and errors are those of `read_instances`.
    """
    return find_objects(*_read_maps(sample, classes))


def find_objects(labels: Pixels, instances: NDArray[np.int32]) -> list[Object]:
    """The objects of an instance map (H, W), each with the most frequent class of its pixels.

    Objects that are only background in the labels (H, W) are omitted.

    >>> find_objects(np.array([[0, 3, 3]], np.uint8), np.array([[0, 7, 7]], np.int32))
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
    instances = np.zeros(labels.shape, np.int32)
    seen = 0
    for label in np.unique(labels[(labels != 0) & (labels != VOID)]):
        mask = (labels == label).astype(np.uint8)
        n, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        large = np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= _SPECK) + 1  # component 0 is the rest
        numbers = np.zeros(n, np.int32)
        numbers[large] = seen + 1 + np.arange(len(large))
        instances += numbers[parts]
        seen += len(large)
    instances[instances >= VOID] += 1
    instances[labels == VOID] = VOID
    return instances


def load_objects(path: Path) -> NDArray[np.int32]:
    """Read an instance map (H, W) int32 from an index image or SBD's .mat."""
    ids = read_mat(path, "GTinst") if path.suffix == ".mat" else read_mask(path)
    return ids.astype(np.int32)


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
