"""Training crops: random views of labeled pictures, exact on picture and mask together."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.data.voc import VOID, DataSet, read_sample
from unpool.vision.boxes import Crop

__all__ = ["Batch", "Views", "batches"]

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
        if self.flip and rng.random() < 0.5:
            view, seen = view[:, ::-1], seen[:, ::-1]
        return _recolor(view, self.color, rng), np.ascontiguousarray(seen)

    def _box(
        self, height: int, width: int, rng: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """The box of the picture that becomes the square: enlarging and cutting in one step."""
        low, high = np.log(self.long_side)
        scale = np.exp(rng.uniform(low, high)) / max(height, width)
        stretch = np.exp(rng.uniform(-self.aspect, self.aspect) / 2)
        w = max(round(self.side / (scale * stretch)), 1)
        h = max(round(self.side * stretch / scale), 1)
        x = int(rng.integers(min(0, width - w), max(0, width - w) + 1))
        y = int(rng.integers(min(0, height - h), max(0, height - h) + 1))
        return x, y, x + w, y + h


def batches(
    data: DataSet, views: Views, size: int, seed: int = 0, start: int = 0
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
    """

    def make(n: int) -> Batch:
        places = np.arange(n * size, (n + 1) * size)
        pairs = [_view(data, views, seed, int(place)) for place in places]
        return Batch(np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs]))

    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as workers:
        coming = [workers.submit(make, n) for n in (start, start + 1)]
        n = start + 2
        while True:
            batch = coming.pop(0).result()
            coming.append(workers.submit(make, n))
            n += 1
            yield batch


def _view(data: DataSet, views: Views, seed: int, place: int) -> tuple[Pixels, Pixels]:
    """The view at a place of the endless sequence."""
    epoch, number = divmod(place, len(data.samples))
    order = np.random.default_rng([seed, epoch]).permutation(len(data.samples))
    image, labels = read_sample(data.samples[order[number]], len(data.classes))
    return views.draw(image, labels, np.random.default_rng([seed, 1, place]))


def _recolor(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    brightness, contrast, saturation = 1 + rng.uniform(-strength, strength, 3)
    x = image.astype(np.float32) * np.float32(brightness)
    mean = x.mean()
    x = (x - mean) * np.float32(contrast) + mean
    gray = x.mean(2, keepdims=True)
    x = (x - gray) * np.float32(saturation) + gray
    return x.clip(0, 255).round().astype(np.uint8)
