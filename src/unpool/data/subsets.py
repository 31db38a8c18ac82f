"""Combinatorial cropping: training examples that separate a subset of classes from all others.

An image with several classes gives one binary mask for each subset of its classes, and each binary
mask gives several crops. So a few images with masks become many examples for a network that
segments any given classes. Hong, Noh, Han 2015.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.data.colors import count_ids
from unpool.data.datasets import DataSet, Sample, read_labels, read_sample
from unpool.distributed import sample_index
from unpool.errors import DataError
from unpool.vision.boxes import iou, square
from unpool.vision.images import VOID, Labels, Pixels, read_image

if TYPE_CHECKING:
    from unpool.data.crops import WindowCrop
    from unpool.data.weak import WeakImage
    from unpool.data.windows import Box


class SubsetWindow(NamedTuple):
    """A square of an image, and the classes that are foreground in it."""

    sample: Sample
    box: "Box"  #: x0, y0, x1, y1 in pixels, x1 and y1 excluded; may reach beyond the image
    subset: tuple[int, ...]  #: class ids


class Example(NamedTuple):
    """A training crop and its foreground classes."""

    image: Pixels  #: (S, S, 3) RGB
    shown: NDArray[np.float32]  #: (K - 1,), 1 for the foreground classes; no background entry
    labels: Labels | None = None  #: (S, S): 1 foreground, 0 others, 255 void; None without a mask


class Examples(NamedTuple):
    """A batch of training examples."""

    images: Pixels  #: (N, S, S, 3)
    shown: NDArray[np.float32]  #: (N, K - 1)
    labels: Labels | None  #: (N, S, S)


def stack(examples: Sequence[Example]) -> Examples:
    """Stack examples into a batch; either all have labels, or none has."""
    images, shown, labels = zip(*examples, strict=True)
    known = None if labels[0] is None else np.stack(labels)
    return Examples(np.stack(images), np.stack(shown), known)


def subsets(labels: Labels, largest: int = 3) -> Iterator[tuple[int, ...]]:
    """The subsets of the classes in a mask (H, W), up to `largest` classes, small ones first.

    >>> list(subsets(np.array([[0, 3, 7, 255]], np.uint8)))
    [(3,), (7,), (3, 7)]
    """
    found = (np.flatnonzero(count_ids(labels)[1:VOID]) + 1).tolist()
    for size in range(1, min(largest, len(found)) + 1):
        yield from combinations(found, size)


def binary_labels(labels: Labels, subset: Sequence[int]) -> Labels:
    """Binarize a mask (H, W): 1 for the classes of `subset`, 0 for others, 255 where it is void.

    >>> binary_labels(np.array([[0, 3, 7, 255]], np.uint8), [7]).tolist()
    [[0, 0, 1, 255]]
    """
    table = np.zeros(VOID + 1, np.uint8)
    table[[*subset]], table[VOID] = 1, VOID
    return table[labels]


def subset_windows(
    data: DataSet,
    proposals: Sequence[NDArray[np.int64]],
    most: int = 16,
    largest: int = 3,
    threshold: float = 0.5,
    enlarge: float = 1.2,
) -> list[SubsetWindow]:
    """The windows to crop for all subsets of the classes in each image.

    The windows of a subset are the whole image, padded to a square, and squares around the best
    proposals that overlap its mask: by their IoU with its bounding box, or by the fraction of the
    mask that they cover. The paper says only that proposals overlap the foreground.

    Args:
        data: images and masks; the masks are read.
        proposals: boxes (P, 4) for each image, best first, see `find_proposals`.
        most: largest number of proposals for each subset.
        largest: largest number of classes in a subset.
        threshold: smallest IoU, or smallest fraction of the mask.
        enlarge: side of a square, relative to the long side of its proposal.

    Raises:
        DataError: no image has an object.
    """
    windows = []
    for sample, boxes in zip(data.samples, proposals, strict=True):
        labels = read_labels(sample, len(data.classes))
        for subset in subsets(labels, largest):
            windows.append(SubsetWindow(sample, whole_square(labels.shape), subset))
            chosen = boxes[_overlapping(boxes, np.isin(labels, subset), threshold)][:most]
            for x0, y0, x1, y1 in square(chosen, enlarge).tolist():
                windows.append(SubsetWindow(sample, (x0, y0, x1, y1), subset))
    if not windows:
        raise DataError(
            f"got masks of {data.title} without objects; wanted some to learn from: label them"
        )
    return windows


def whole_square(size: tuple[int, ...]) -> "Box":
    """The square to which an image of size (H, W) is padded, at the right and at the bottom.

    >>> whole_square((300, 400))
    (0, 0, 400, 400)
    """
    return 0, 0, max(size), max(size)


def draw_subsets(
    windows: Sequence[SubsetWindow], classes: int, crop: "WindowCrop", seed: int = 0
) -> Callable[[int], Example]:
    """Draw crops with binary labels, in a new order in each epoch.

    Args:
        windows: the windows to draw from.
        classes: number of classes, background included.
        crop: turns a window into a crop.
        seed: of the order and of the crops.
    """

    def draw(place: int) -> Example:
        sample, box, subset = windows[sample_index(place, len(windows), seed)]
        image, labels = read_sample(sample, classes)
        view = crop.draw(image, labels, box, np.random.default_rng([seed, 1, place]))
        return Example(view.image, flags(subset, classes), binary_labels(view.labels, subset))

    return draw


def draw_weak(
    images: Sequence["WeakImage"], classes: int, crop: "WindowCrop", seed: int = 0
) -> Callable[[int], Example]:
    """As `draw_subsets`, but whole images padded to squares, with their classes and no labels."""

    def draw(place: int) -> Example:
        found = images[sample_index(place, len(images), seed)]
        image = read_image(found.image)
        void = np.full(image.shape[:2], VOID, np.uint8)
        random = np.random.default_rng([seed, 1, place])
        view = crop.draw(image, void, whole_square(void.shape), random)
        return Example(view.image, flags(found.shown, classes))

    return draw


def flags(shown: Sequence[int], classes: int) -> NDArray[np.float32]:
    """Class ids as an array of zeros and ones, (classes - 1,); the background has no entry.

    >>> flags([1, 3], classes=4).tolist()
    [1.0, 0.0, 1.0]
    """
    found = np.zeros(classes - 1, np.float32)
    found[[label - 1 for label in shown]] = 1
    return found


def _overlapping(
    boxes: NDArray[np.int64], mask: NDArray[np.bool_], threshold: float
) -> NDArray[np.bool_]:
    """Whether each box overlaps a mask (H, W) that is not empty, (P,)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    tight = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]])
    sums = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    x0, y0, x1, y1 = boxes.T
    inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    covers = inside >= threshold * sums[-1, -1]
    return np.asarray(covers | (iou(boxes, tight)[:, 0] >= threshold))
