"""Training crops: random views of labeled pictures, exact on picture and mask together."""

import itertools
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.data.voc import VOID, DataSet, read_sample
from unpool.vision.boxes import Crop

__all__ = ["Batch", "Views", "batches", "class_balance"]

Pixels = NDArray[np.uint8]


class Batch(NamedTuple):
    """What one training step sees."""

    images: Pixels  #: (N, S, S, 3) RGB; 0 outside the picture
    labels: Pixels  #: (N, S, S) class ids; 255 where void or outside the picture


class Views(NamedTuple):
    """How a random view is drawn: enlarge the picture, cut a square, flip it, change its colors."""

    side: int = 224  #: S, of the square in pixels
    long_side: tuple[int, int] = (224, 448)  #: range of the enlarged picture's long side
    aspect: float = 0.15  #: largest change of the aspect ratio, as a logarithm
    flip: bool = True
    color: float = 0.2  #: largest relative change of brightness, contrast and saturation

    def draw(
        self, image: Pixels, labels: Pixels, rng: np.random.Generator
    ) -> tuple[Pixels, Pixels]:
        """A random view of a picture (H, W, 3) and its labels (H, W), as (S, S, 3) and (S, S)."""
        crop = Crop(self._box(image.shape[0], image.shape[1], rng), self.side)
        view, seen = crop.take(image, antialias=False), crop.take_labels(labels, VOID)
        inside = crop.take_labels(np.ones(labels.shape, np.bool_), fill=False)
        if self.flip and rng.random() < 0.5:
            view, seen, inside = view[:, ::-1], seen[:, ::-1], inside[:, ::-1]
        return _recolor(view, inside, self.color, rng), np.ascontiguousarray(seen)

    def _box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """The box of the picture that becomes the square: enlarging and cutting in one step."""
        low, high = np.log(self.long_side)
        scale = np.exp(rng.uniform(low, high)) / max(height, width)
        stretch = np.exp(rng.uniform(-self.aspect, self.aspect) / 2)
        w = max(round(self.side / (scale * stretch)), 1)
        h = max(round(self.side * stretch / scale), 1)
        x = int(rng.integers(min(0, width - w), max(0, width - w) + 1))
        y = int(rng.integers(min(0, height - h), max(0, height - h) + 1))
        return x, y, x + w, y + h


def class_balance(data: DataSet, common: float) -> NDArray[np.float64]:
    """How often each picture is to be drawn, so that rare classes are seen more often.

    "We balance the number of examples across classes by adding redundant examples for the
    classes with limited number of examples." A class found in the share s of the pictures asks
    for them sqrt(common / s) times as often, and a picture follows its rarest class.

    Args:
        data: its masks are read.
        common: the share from which on a class is not rare, 0 to 1; 0 treats all alike.

    Returns:
        A weight for each picture, 1 or more.

    Noh, Hong, Han 2015, section 5.1; the square root as in Gupta, Dollar, Girshick 2019 (LVIS).
    """
    present = np.zeros((len(data.samples), len(data.classes)), bool)
    for row, sample in zip(present, data.samples, strict=True):
        labels = read_sample(sample, len(data.classes))[1]
        row[labels[labels != VOID]] = True
    share = present.mean(0).clip(1 / len(present))
    wanted = np.sqrt(np.maximum(common / share, 1))
    return np.asarray(np.where(present, wanted, 1).max(1))


def batches(
    data: DataSet,
    views: Views,
    size: int,
    seed: int = 0,
    start: int = 0,
    weights: NDArray[np.float64] | None = None,
) -> Iterator[Batch]:
    """Endless batches of random views; pictures come in a new order each time all were seen.

    Batch n depends on the data, the views, the size, the seed and n, and on nothing else: a run
    resumed at n sees what the uninterrupted run saw. The next batch is made meanwhile.

    Args:
        data: labeled pictures.
        views: how views are drawn.
        size: N, of the batch.
        seed: of all chance.
        start: number of the first batch.
        weights: how often each picture is drawn, relative to the others; all alike and in turn
            when not given.

    Raises:
        ImageError, DataError: a picture or mask that is found not to be usable when its turn
            comes.
    """

    def make(n: int) -> Batch:
        places = np.arange(n * size, (n + 1) * size)
        pairs = [_view(data, views, seed, int(place), weights) for place in places]
        return Batch(np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs]))

    workers = ThreadPoolExecutor(min(2, os.cpu_count() or 1))
    try:
        coming = deque(workers.submit(make, n) for n in (start, start + 1))
        for n in itertools.count(start + 2):
            batch = coming.popleft().result()
            coming.append(workers.submit(make, n))
            yield batch
    finally:  # an error, or the caller is done: of the batches to come, none is begun any more
        workers.shutdown(cancel_futures=True)


def _view(
    data: DataSet, views: Views, seed: int, place: int, weights: NDArray[np.float64] | None
) -> tuple[Pixels, Pixels]:
    """The view at a place of the endless sequence."""
    count = len(data.samples)
    epoch, number = divmod(place, count)
    rng = np.random.default_rng([seed, 0, epoch])
    if weights is None:
        order = rng.permutation(count)
    else:
        order = rng.choice(count, count, p=weights / weights.sum())
    image, labels = read_sample(data.samples[order[number]], len(data.classes))
    return views.draw(image, labels, np.random.default_rng([seed, 1, place]))


def _recolor(
    image: Pixels, inside: NDArray[np.bool_], strength: float, rng: np.random.Generator
) -> Pixels:
    """Change the colors of what is inside the picture; what is outside becomes 0."""
    brightness, contrast, saturation = (1 + rng.uniform(-strength, strength, 3)).tolist()
    x = image[inside].astype(np.float32) * brightness
    mean = x.sum() / max(x.size, 1)  # a line of pixels may be shrunk to nothing
    x = (x - mean) * contrast + mean
    gray = x.mean(1, keepdims=True)
    x = (x - gray) * saturation + gray
    recolored = np.zeros_like(image)
    recolored[inside] = x.clip(0, 255).round()
    return recolored
