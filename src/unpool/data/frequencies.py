"""How often classes occur in labeled images, and the weights that make rare ones count more."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.data.colors import count_ids
from unpool.data.datasets import DataSet, read_labels, read_sample
from unpool.errors import OptionError
from unpool.vision.images import VOID, image_size


class Frequencies(NamedTuple):
    """Counts for each class of a data set, as (K,) arrays."""

    images: NDArray[np.int64]  #: that show it
    pixels: NDArray[np.int64]  #: of it
    area: NDArray[np.int64]  #: pixels of the images that show it, void ones included


def count_classes(data: DataSet) -> Frequencies:
    """Count how often each class occurs. Reads every mask.

    Raises:
        ImageError, DataError: a mask cannot be used, or has another size than its image.
    """
    classes = len(data.classes)
    counts = np.zeros((3, classes), np.int64)
    for sample in data.samples:
        labels = read_labels(sample, classes)
        if image_size(sample.image) != labels.shape:
            read_sample(sample, classes)  # raises the error
        pixels = count_ids(labels)[:classes]
        seen = pixels > 0
        counts += np.stack([seen, pixels, seen * labels.size])
    return Frequencies(*counts)


def median_frequency(found: Frequencies, power: float = 1.0) -> NDArray[np.float64]:
    """The weight of each class in the loss, (K,): median frequency balancing.

    The frequency of a class is its part of the pixels of those images that show it, and its weight
    the median of all frequencies divided by its own. Classes without pixels have weight 0.

    Args:
        found: counts of a data set.
        power: of the weights, from 0 (all alike) to 1 (as published).

    Raises:
        OptionError: no class has a pixel.

    Eigen, Fergus 2015, section 3.3; Badrinarayanan, Kendall, Cipolla 2017, section 4.

    >>> counts = Frequencies(*np.array([[2, 2, 1], [60, 30, 10], [100, 100, 50]]))
    >>> median_frequency(counts)
    array([0.5, 1. , 1.5])
    """
    seen = found.pixels > 0
    if not seen.any():
        raise OptionError("got masks without a labeled pixel; wanted some of each class")
    frequency = found.pixels[seen] / found.area[seen]
    weights = np.zeros(len(seen))
    weights[seen] = (np.median(frequency) / frequency) ** power
    return weights


def class_balance(data: DataSet, common: float) -> NDArray[np.float64]:
    """Sampling weights, (images,), 1 or more, by which rare classes are seen more often.

    A class found in a fraction f < `common` of the images asks for them sqrt(common / f) times as
    often, and an image follows its rarest class. Reads all masks.

    Noh, Hong, Han 2015, section 5.1 ("adding redundant examples for the classes with limited
    number of examples"); the square root as in Gupta, Dollar, Girshick 2019 (LVIS).
    """
    present = np.zeros((len(data.samples), len(data.classes)), bool)
    for row, sample in zip(present, data.samples, strict=True):
        labels = read_sample(sample, len(data.classes))[1]
        row[labels[labels != VOID]] = True
    fraction = present.mean(0).clip(1 / len(present))
    wanted = np.sqrt(np.maximum(common / fraction, 1))
    return np.asarray(np.where(present, wanted, 1).max(1))


def draw_weights(data: DataSet, balance: float) -> NDArray[np.float64] | None:
    """How often to draw each image: its own weight times that of `class_balance`; None if alike."""
    weights = np.array([sample.weight for sample in data.samples])
    if balance:
        weights = weights * class_balance(data, balance)
    return weights if (weights != weights[0]).any() else None
