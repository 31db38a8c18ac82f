"""The objects of a label map: what the formats of labeling tools list one by one.

A label map has no instances, so each connected component of a class is an object. Connectivity is
8: pixels that touch at a corner belong together, as in `unpool.data`. Background and void are no
objects. Objects do not overlap, and each pixel of the other classes is in one of them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from unpool.errors import OptionError, ShapeError
from unpool.vision.images import VOID, Labels

Mask = NDArray[np.bool_]


class Objects(NamedTuple):
    """The objects of an image, by class and then from top to bottom."""

    numbers: NDArray[np.int32]  #: (H, W) the number of the object of each pixel, from 1; 0 for none
    labels: NDArray[np.int64]  #: (N,) class ids
    boxes: NDArray[np.int64]  #: (N, 4) x0, y0, x1, y1 in pixels, x1 and y1 excluded
    areas: NDArray[np.int64]  #: (N,) pixels
    scores: NDArray[np.float64] | None  #: (N,) the mean probability of the class in each object
    classes: list[str]  #: names by class id

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the image."""
        return self.numbers.shape[0], self.numbers.shape[1]

    @property
    def first(self) -> int:
        """The first class id of objects: 1 if class 0 is the background, else 0."""
        return 1 if has_background(self.classes) else 0

    def mask(self, i: int) -> Mask:
        """The pixels of object `i` in its box, (h, w)."""
        x0, y0, x1, y1 = self.boxes[i]
        return self.numbers[y0:y1, x0:x1] == i + 1

    def score(self, i: int) -> dict[str, float]:
        """The entry `score` of object `i` in a file; none if the scores are not known."""
        return {} if self.scores is None else {"score": round(float(self.scores[i]), 4)}

    def names(self) -> list[str]:
        """The name of the class of each object."""
        return [self.classes[k] for k in self.labels]


def is_background(name: str) -> bool:
    """Whether a class is the background by its name, as "_background_" is in labelme.

    >>> is_background("_Background_"), is_background("Sky")
    (True, False)
    """
    return name.strip("_ ").casefold() == "background"


def has_background(classes: Sequence[str]) -> bool:
    """Whether class 0 is the background, and not, as in CamVid, the sky."""
    return is_background(classes[0])


def find_objects(
    labels: Labels,
    classes: Sequence[str],
    probabilities: NDArray[np.floating] | None = None,
    scores: Sequence[float] | None = None,
    connectivity: int = 8,
) -> Objects:
    """Find the objects of a label map.

    Args:
        labels: (H, W) class ids; 255 is void.
        classes: names by class id; a first class named background has no objects.
        probabilities: for the scores: of all classes, (K, h, w), or of the labels, (h, w); of any
            size.
        scores: the scores themselves, (N,), known from an earlier call.
        connectivity: 8, or 4 for pixels that touch at an edge.

    Raises:
        ShapeError: labels are not (H, W) integers, or there are not N scores.
        OptionError: a label has no name.

    >>> found = find_objects(np.array([[1, 0, 1], [1, 2, 0]]), ["background", "cat", "dog"])
    >>> found.names(), found.areas.tolist(), found.boxes[0].tolist()
    (['cat', 'cat', 'dog'], [2, 1, 1], [0, 0, 1, 2])
    """
    if labels.ndim != 2 or not labels.size or not np.issubdtype(labels.dtype, np.integer):
        got = f"got labels of shape {labels.shape} and type {labels.dtype}"
        raise ShapeError(f"{got}; wanted (H, W) of an integer type, not empty")
    present = np.unique(labels)
    if unknown := [int(k) for k in present if k != VOID and not 0 <= k < len(classes)]:
        raise OptionError(
            f"got label {unknown[0]} with {len(classes)} classes; pass the names of all classes"
        )
    numbers = np.zeros(labels.shape, np.int32)
    found: list[NDArray[np.int64]] = []
    for k in present[present != VOID]:
        if k == 0 and has_background(classes):
            continue
        where = labels == k
        x0, y0, width, height = cv2.boundingRect(where.view(np.uint8))
        box = slice(y0, y0 + height), slice(x0, x0 + width)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(
            where[box].astype(np.uint8), connectivity=connectivity
        )
        stats = stats[1:].astype(np.int64)
        pixels = np.flatnonzero(parts)[::-1]
        first = np.zeros(len(stats), np.int64)
        first[parts.ravel()[pixels] - 1] = pixels  # the last one that is written is the first pixel
        order = np.argsort(first)
        rank = np.zeros(len(order) + 1, np.int32)
        rank[order + 1] = np.arange(1, len(order) + 1) + sum(map(len, found))
        numbers[box] += rank[parts]
        x, y, w, h, area = stats[order].T
        ids = np.full(len(order), k)
        found.append(np.stack([ids, x + x0, y + y0, x + x0 + w, y + y0 + h, area], axis=1))
    table = np.concatenate([np.zeros((0, 6), np.int64), *found])
    objects = Objects(numbers, table[:, 0], table[:, 1:5], table[:, 5], None, list(classes))
    if scores is not None:
        if len(scores) != len(table):
            raise ShapeError(
                f"got {len(scores)} scores; wanted one for each of {len(table)} objects"
            )
        return objects._replace(scores=np.asarray(scores, np.float64))
    if probabilities is not None:
        return objects._replace(scores=_mean_probabilities(objects, probabilities))
    return objects


def _mean_probabilities(
    objects: Objects, probabilities: NDArray[np.floating]
) -> NDArray[np.float64]:
    """The mean probability of its class over each object, (N,)."""
    of_labels = probabilities.ndim == 2
    if not of_labels and (probabilities.ndim, len(probabilities)) != (3, len(objects.classes)):
        got = f"got probabilities of {probabilities.shape} for {len(objects.classes)} classes"
        raise ShapeError(f"{got}; wanted (K, h, w), or those of the labels, (h, w)")
    height, width = objects.size
    sums = np.zeros(len(objects.labels))
    for k in np.unique(objects.labels):
        own = np.flatnonzero(objects.labels == k)
        scores: NDArray[Any] = probabilities if of_labels else probabilities[k]
        if scores.shape != objects.size:
            scores = cv2.resize(
                scores.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
            )
        low, high = own[0] + 1, own[-1] + 1  # the numbers of a class follow one another
        inside = (objects.numbers >= low) & (objects.numbers <= high)
        total = np.bincount(objects.numbers[inside] - low, scores[inside], high - low + 1)
        sums[own] = total
    return sums / objects.areas
