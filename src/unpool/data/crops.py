"""Training crops: views of whole images, and windows, exact on image and mask together."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.data.classes import VOID
from unpool.data.copy_paste import Paster
from unpool.data.datasets import DataSet, read_sample
from unpool.data.instances import read_instances
from unpool.data.windows import Box, Window
from unpool.errors import DataError
from unpool.vision.boxes import Crop
from unpool.vision.images import Pixels

Draw = Callable[[int], tuple[Pixels, Pixels]]
"""Gives the crop and labels, (S, S, 3) and (S, S), at a place of an endless sequence."""


class Views(NamedTuple):
    """How a random view is drawn: enlarge the image, cut a square, flip it, change its colors."""

    side: int = 224  #: S, of the square in pixels
    long_side: tuple[int, int] = (224, 448)  #: range of the enlarged image's long side
    aspect: float = 0.15  #: largest change of the aspect ratio, as a logarithm
    flip: bool = True
    color: float = 0.2  #: largest relative change of brightness, contrast and saturation

    def draw(
        self, image: Pixels, labels: Pixels, rng: np.random.Generator
    ) -> tuple[Pixels, Pixels]:
        """A random view of an image (H, W, 3) and its labels (H, W), as (S, S, 3) and (S, S)."""
        box = self._box(image.shape[0], image.shape[1], rng)
        return _cut(image, labels, Crop(box, self.side), self.flip, self.color, rng)

    def _box(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """The box of the image that becomes the square: enlarging and cutting in one step."""
        low, high = np.log(self.long_side)
        scale = np.exp(rng.uniform(low, high)) / max(height, width)
        stretch = np.exp(rng.uniform(-self.aspect, self.aspect) / 2)
        w = max(round(self.side / (scale * stretch)), 1)
        h = max(round(self.side * stretch / scale), 1)
        x = int(rng.integers(min(0, width - w), max(0, width - w) + 1))
        y = int(rng.integers(min(0, height - h), max(0, height - h) + 1))
        return x, y, x + w, y + h


class Cut(NamedTuple):
    """How a window becomes a crop: resized to `enlarged`, of which a random square is taken.

    Stage 1 resizes to 250 pixels and takes 224 of them; stage 2 resizes to 224 straight away.
    """

    side: int = 224  #: S, of the crop in pixels
    enlarged: int = 224  #: side to which the window is resized before the crop is taken
    flip: bool = True
    color: float = 0.0  #: largest relative change of colors; the published training has none

    def draw(
        self, image: Pixels, labels: Pixels, box: Box, rng: np.random.Generator
    ) -> tuple[Pixels, Pixels]:
        """The crop of an image's box and its labels, as (S, S, 3) and (S, S)."""
        image, labels = _cut(image, labels, Crop(box, self.enlarged), self.flip, self.color, rng)
        y, x = rng.integers(0, self.enlarged - self.side + 1, 2)
        part = slice(y, y + self.side), slice(x, x + self.side)
        return np.ascontiguousarray(image[part]), np.ascontiguousarray(labels[part])


def class_balance(data: DataSet, common: float) -> NDArray[np.float64]:
    """How often each image is to be drawn, so that rare classes are seen more often.

    "We balance the number of examples across classes by adding redundant examples for the
    classes with limited number of examples." A class found in the share s of the images asks
    for them sqrt(common / s) times as often, and an image follows its rarest class.

    Args:
        data: its masks are read.
        common: the share from which on a class is not rare, 0 to 1; 0 treats all alike.

    Returns:
        A weight for each image, 1 or more.

    Noh, Hong, Han 2015, section 5.1; the square root as in Gupta, Dollar, Girshick 2019 (LVIS).
    """
    present = np.zeros((len(data.samples), len(data.classes)), bool)
    for row, sample in zip(present, data.samples, strict=True):
        labels = read_sample(sample, len(data.classes))[1]
        row[labels[labels != VOID]] = True
    share = present.mean(0).clip(1 / len(present))
    wanted = np.sqrt(np.maximum(common / share, 1))
    return np.asarray(np.where(present, wanted, 1).max(1))


def draw_views(
    data: DataSet,
    views: Views,
    seed: int = 0,
    weights: NDArray[np.float64] | None = None,
    paster: Paster | None = None,
) -> Draw:
    """Random views of images, in a new order each time all were seen.

    Args:
        data: labeled images.
        views: how views are drawn.
        seed: of all chance.
        weights: how often each image is drawn, relative to the others; all alike and in turn
            when not given.
        paster: puts objects of other images into them.
    """

    def draw(place: int) -> tuple[Pixels, Pixels]:
        number = in_turn(place, len(data.samples), seed, weights)
        image, labels = read_sample(data.samples[number], len(data.classes))
        view, seen = views.draw(image, labels, np.random.default_rng([seed, 1, place]))
        if paster is None:
            return view, seen
        return paster.paste(view, seen, np.random.default_rng([seed, 2, place]))

    return draw


def draw_windows(windows: Sequence[Window], classes: int, cut: Cut, seed: int = 0) -> Draw:
    """Crops of windows, in a new order each time all were seen.

    Args:
        windows: of stage 1 or 2; those that stand there more often are seen more often.
        classes: how many there are.
        cut: how windows become crops.
        seed: of all chance.
    """
    if not windows:
        raise DataError("got no window to learn from: no object is large enough, or none there")

    def draw(place: int) -> tuple[Pixels, Pixels]:
        sample, box, _, instance = windows[in_turn(place, len(windows), seed)]
        image, labels = read_sample(sample, classes)
        if instance:
            others = read_instances(sample, classes) != instance
            labels = np.where(others & (labels != VOID), np.uint8(0), labels)
        return cut.draw(image, labels, box, np.random.default_rng([seed, 1, place]))

    return draw


def take_turns(draws: Sequence[Draw]) -> Draw:
    """One sequence that takes from several in turn."""
    return lambda place: draws[place % len(draws)](place // len(draws))


def in_turn(place: int, count: int, seed: int, weights: NDArray[np.float64] | None = None) -> int:
    """Whose turn it is at a place: each one once in every `count` places, or by chance."""
    epoch, number = divmod(place, count)
    if weights is None:
        return int(_shuffled(count, seed, epoch)[number])
    rng = np.random.default_rng([seed, 0, epoch])
    return int(rng.choice(count, count, p=weights / weights.sum())[number])


@lru_cache(8)
def _shuffled(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 0, epoch]).permutation(count)


def _cut(
    image: Pixels, labels: Pixels, crop: Crop, flip: bool, color: float, rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Cut image and labels, flip every other one, and change the colors."""
    view, seen = crop.take(image, antialias=False), crop.take_labels(labels, VOID)
    inside = crop.take_labels(np.ones(labels.shape, np.bool_), fill=False)
    if flip and rng.random() < 0.5:
        view, seen, inside = view[:, ::-1], seen[:, ::-1], inside[:, ::-1]
    return _recolor(view, inside, color, rng), np.ascontiguousarray(seen)


def _recolor(
    image: Pixels, inside: NDArray[np.bool_], strength: float, rng: np.random.Generator
) -> Pixels:
    """Change the colors of what is inside the image; what is outside becomes 0."""
    brightness, contrast, saturation = (1 + rng.uniform(-strength, strength, 3)).tolist()
    x = image[inside].astype(np.float32) * brightness
    mean = x.sum() / max(x.size, 1)  # a line of pixels may be shrunk to nothing
    x = (x - mean) * contrast + mean
    gray = x.mean(1, keepdims=True)
    x = (x - gray) * saturation + gray
    recolored = np.zeros_like(image)
    recolored[inside] = x.clip(0, 255).round()
    return recolored
