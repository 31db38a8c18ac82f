"""Training crops: random views and windows, exact on image and labels together, in batches."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from unpool.data.datasets import (
    DataSet,
    Object,
    Sample,
    objects,
    read_instances,
    read_sample,
    read_soft,
)
from unpool.data.loading import load_ahead
from unpool.distributed import sample_index
from unpool.errors import DataError
from unpool.vision.boxes import Crop
from unpool.vision.images import VOID, Labels, Pixels

if TYPE_CHECKING:
    from unpool.data.windows import Box, Window

SOFT_STEP = 8  # pixels of a crop for each soft label of a batch


class View(NamedTuple):
    """A crop of an image, its labels, and possibly soft labels."""

    image: Pixels  #: (S, S, 3) RGB
    labels: Labels  #: (S, S) class ids, or () of the whole image
    soft: NDArray[np.float32] | None = None
    """(K, S, S) logits of another network; NaN where it says nothing: outside the image, and where
    an object was pasted."""


Draw = Callable[[int], View]
"""Gives the view at a position of an endless sequence."""

_SMALL = 400  # pixels; smaller objects would be blurred when they are enlarged for pasting


class Batch(NamedTuple):
    """The input of one forward pass in training."""

    images: Pixels  #: (N, S, S, 3) RGB; outside the image 0, or `Views.fill`
    labels: Labels  #: (N, S, S) class ids, 255 where void or outside the image; or (N,) of images
    soft: NDArray[np.float32] | None = None
    """(N, K, s, s) logits of another network, at every eighth pixel; NaN where it says nothing."""


class Views(NamedTuple):
    """Settings of random views: enlarge the image, crop a square, flip it, change its colors."""

    side: int = 224  #: S, of the square in pixels
    long_side: tuple[int, int] | None = (224, 448)
    """Range of the enlarged image's long side; None: none, and small ones are at the top left."""
    aspect: float = 0.15  #: largest change of the aspect ratio, as a logarithm
    flip: bool = True
    color: float = 0.2  #: largest relative change of brightness, contrast and saturation
    fill: Sequence[int] = (0, 0, 0)  #: the color outside the image, RGB

    def draw(
        self,
        image: Pixels,
        labels: Pixels,
        rng: np.random.Generator,
        soft: NDArray[np.float32] | None = None,
    ) -> View:
        """A random view of an image (H, W, 3), its labels (H, W), and soft labels (K, h, w)."""
        # the box of the image that becomes the square: enlarging and cropping in one step
        height, width = labels.shape
        if self.long_side is None:
            w = h = self.side
            height, width = max(height, h), max(width, w)  # padded
        else:
            scale = np.exp(rng.uniform(*np.log(self.long_side))) / max(height, width)
            stretch = np.exp(rng.uniform(-self.aspect, self.aspect) / 2)
            w = max(round(self.side / (scale * stretch)), 1)
            h = max(round(self.side * stretch / scale), 1)
        x = int(rng.integers(min(0, width - w), max(0, width - w) + 1))
        y = int(rng.integers(min(0, height - h), max(0, height - h) + 1))
        crop = Crop((x, y, x + w, y + h), self.side)
        return _crop(image, labels, crop, self.flip, self.color, rng, soft, self.fill)


class WholeImages(NamedTuple):
    """Settings of whole images: resize to one size, flip, change the colors."""

    size: tuple[int, int] = (360, 480)  #: height and width, pixels
    flip: bool = True
    color: float = 0.0  #: largest relative change of brightness, contrast and saturation

    def draw(
        self,
        image: Pixels,
        labels: Pixels,
        rng: np.random.Generator,
        soft: NDArray[np.float32] | None = None,
    ) -> View:
        """An image (H, W, 3), its labels (H, W), and soft labels (K, h, w), resized."""
        height, width = self.size
        way = cv2.INTER_AREA if width < labels.shape[1] else cv2.INTER_LINEAR
        view = np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)
        seen = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        planes = None
        if soft is not None:
            planes = np.stack([cv2.resize(plane, (width, height)) for plane in soft])
        if self.flip and rng.random() < 0.5:
            view, seen = view[:, ::-1], seen[:, ::-1]
            planes = None if planes is None else planes[:, :, ::-1]
        inside = np.ones(self.size, np.bool_)
        return View(_recolor(view, inside, self.color, rng), np.ascontiguousarray(seen), planes)


class WindowCrop(NamedTuple):
    """Settings of crops from windows: resize to `enlarged`, then crop a random square.

    Stage 1 resizes to 250 pixels and crops 224 of them; stage 2 resizes to 224.
    """

    side: int = 224  #: S, of the crop in pixels
    enlarged: int = 224  #: side to which the window is resized before the crop is taken
    flip: bool = True
    color: float = 0.0  #: largest relative change of colors; the published training has none

    def draw(
        self,
        image: Pixels,
        labels: Pixels,
        box: "Box",
        rng: np.random.Generator,
        soft: NDArray[np.float32] | None = None,
    ) -> View:
        """The crop of an image's box, its labels, and soft labels (K, h, w) of the whole image."""
        crop = Crop(box, self.enlarged)
        view = _crop(image, labels, crop, self.flip, self.color, rng, soft)
        y, x = rng.integers(0, self.enlarged - self.side + 1, 2)
        part = slice(y, y + self.side), slice(x, x + self.side)
        return View(
            np.ascontiguousarray(view.image[part]),
            np.ascontiguousarray(view.labels[part]),
            None if view.soft is None else view.soft[:, *part],
        )


class Paster(NamedTuple):
    """Pastes objects of other images into views (Ghiasi et al. 2021, "Simple copy-paste")."""

    pool: list[tuple[Sample, Object]]
    probabilities: NDArray[np.float64]  #: of each object
    classes: int
    most: int  #: largest number of objects pasted into a view
    sides: tuple[float, float] = (0.15, 0.7)  #: range of an object's long side, of the view's

    def paste(self, view: View, rng: np.random.Generator) -> View:
        """A view with up to `most` more objects on it."""
        image, labels = view.image.copy(), view.labels.copy()
        soft = None if view.soft is None else view.soft.copy()
        for _ in range(rng.integers(self.most + 1)):
            sample, found = self.pool[rng.choice(len(self.pool), p=self.probabilities)]
            cut, mask = self._cut_out(sample, found, len(labels), rng)
            height, width = mask.shape
            # two thirds of the object's height and width stay inside the view
            y = int(rng.integers(-height // 3, len(labels) - 2 * height // 3))
            x = int(rng.integers(-width // 3, len(labels) - 2 * width // 3))
            rows, columns = slice(max(y, 0), y + height), slice(max(x, 0), x + width)
            covered = labels[rows, columns]
            top, left = max(-y, 0), max(-x, 0)
            part = np.s_[top : top + covered.shape[0], left : left + covered.shape[1]]
            image[rows, columns][mask[part]] = cut[part][mask[part]]
            covered[mask[part]] = found.label
            if soft is not None:
                soft[:, rows, columns][:, mask[part]] = np.nan
        return View(image, labels, soft)

    def _cut_out(
        self, sample: Sample, found: Object, side: int, rng: np.random.Generator
    ) -> tuple[Pixels, NDArray[np.bool_]]:
        """An object and its mask, resized, and flipped half of the time."""
        x0, y0, x1, y1 = found.box
        image = read_sample(sample, self.classes)[0][y0:y1, x0:x1]
        mask = read_instances(sample, self.classes)[y0:y1, x0:x1] == found.instance
        scale = side * np.exp(rng.uniform(*np.log(self.sides))) / max(mask.shape)
        size = max(round(mask.shape[1] * scale), 1), max(round(mask.shape[0] * scale), 1)
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, size, interpolation=way), np.uint8)
        mask = cv2.resize(mask.astype(np.float32), size, interpolation=way) > 0.5
        return (image[:, ::-1], mask[:, ::-1]) if rng.random() < 0.5 else (image, mask)


def find_paster(data: DataSet, most: int, power: float = 0.75) -> Paster | None:
    """Collect the objects of a data set that can be pasted; None if no object is large enough.

    At most `most` are pasted into a view. A power of 1 makes the classes equally frequent, 0 leaves
    them as they are.
    """
    pool = [
        (sample, found)
        for sample in data.samples
        for found in objects(sample, len(data.classes))
        if found.area >= _SMALL
    ]
    if not pool:
        return None
    count = np.bincount([found.label for _, found in pool])
    weights = np.array([float(count[found.label]) for _, found in pool]) ** -power
    return Paster(pool, weights / weights.sum(), len(data.classes), most)


def draw_views(
    data: DataSet,
    views: Views | WholeImages,
    seed: int = 0,
    weights: NDArray[np.float64] | None = None,
    paster: Paster | None = None,
) -> Draw:
    """Random views of images, in a new order in each epoch.

    The weights say how often to draw each image, relative to the others; by default once an epoch.
    The paster adds objects of other images to the views.
    """

    def draw(place: int) -> View:
        number = sample_index(place, len(data.samples), seed, weights)
        image, labels = read_sample(data.samples[number], len(data.classes))
        soft = read_soft(data.samples[number], len(data.classes))
        view = views.draw(image, labels, np.random.default_rng([seed, 1, place]), soft)
        return paster.paste(view, np.random.default_rng([seed, 2, place])) if paster else view

    return draw


def draw_windows(
    windows: Sequence["Window"], classes: int, crop: WindowCrop, seed: int = 0
) -> Draw:
    """Random crops of windows, in a new order in each epoch.

    A window that is listed n times is drawn n times an epoch.

    Raises:
        DataError: there are no windows.
    """
    if not windows:
        raise DataError(
            "got no window to learn from, wanted one or more: label objects, larger ones if there "
            "are some, or use a recipe that trains on views"
        )

    def draw(place: int) -> View:
        sample, box, _, instance = windows[sample_index(place, len(windows), seed)]
        image, labels = read_sample(sample, classes)
        if instance:
            others = read_instances(sample, classes) != instance
            labels = np.where(others & (labels != VOID), np.uint8(0), labels)
        soft = None if instance else read_soft(sample, classes)  # it knows of the others
        return crop.draw(image, labels, box, np.random.default_rng([seed, 1, place]), soft)

    return draw


def interleave(draws: Sequence[Draw]) -> Draw:
    """Interleave several sequences."""
    return lambda place: draws[place % len(draws)](place // len(draws))


def batches(
    draw: Draw, size: int, start: int = 0, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Endless batches of crops, see `load_ahead`.

    Batch n holds the crops at positions n * size and following, and depends on nothing else: a
    resumed run sees the same batches as an uninterrupted one, and the processes of a distributed
    run together see those of a single process.

    Args:
        draw: gives the crop at a position; called in threads.
        size: N, of the batch.
        start: number of the first batch.
        rank, world: number of this process and of all, which take turns.
    """

    def make(n: int) -> Batch:
        views = list(map(draw, range(n * size, (n + 1) * size)))
        images = np.stack([view.image for view in views])
        labels = np.stack([view.labels for view in views])
        return Batch(images, labels, _stack_soft(views))

    return load_ahead(make, start, rank, world)


def _stack_soft(views: Sequence[View]) -> NDArray[np.float32] | None:
    """The soft labels of a batch at every eighth pixel; None if no view has any."""
    known = [view.soft for view in views if view.soft is not None]
    if not known:
        return None
    unknown, at = np.full_like(known[0], np.nan), slice(SOFT_STEP // 2, None, SOFT_STEP)
    every = (unknown if view.soft is None else view.soft for view in views)
    return np.stack([soft[:, at, at] for soft in every])


def _crop(
    image: Pixels,
    labels: Pixels,
    crop: Crop,
    flip: bool,
    color: float,
    rng: np.random.Generator,
    soft: NDArray[np.float32] | None = None,
    fill: Sequence[int] = (0, 0, 0),
) -> View:
    """Crop image and labels, flip them half of the time, and change the colors."""
    view, seen = crop.take(image, antialias=False), crop.take_labels(labels, VOID)
    inside = crop.take_labels(np.ones(labels.shape, np.bool_), fill=False)
    logits = None if soft is None else _crop_soft(soft, crop, inside, labels.shape)
    if flip and rng.random() < 0.5:
        view, seen, inside = view[:, ::-1], seen[:, ::-1], inside[:, ::-1]
        logits = None if logits is None else logits[:, :, ::-1]
    view = _recolor(view, inside, color, rng)
    view[~inside] = fill
    return View(view, np.ascontiguousarray(seen), logits)


def _crop_soft(
    soft: NDArray[np.float32], crop: Crop, inside: NDArray[np.bool_], size: tuple[int, ...]
) -> NDArray[np.float32]:
    """Soft labels (K, h, w) of a whole image of a size (H, W), at the pixels of a crop."""
    (height, width), (x0, y0, x1, y1) = size, crop.box
    fy, fx = soft.shape[1] / height, soft.shape[2] / width
    dy, dx = (y1 - y0) / crop.side, (x1 - x0) / crop.side
    # maps pixel centers of the crop to those of the soft labels
    where = np.array(
        [[dx * fx, 0, (x0 + dx / 2) * fx - 0.5], [0, dy * fy, (y0 + dy / 2) * fy - 0.5]]
    )
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    square = crop.side, crop.side
    planes = [
        cv2.warpAffine(plane, where, square, None, how, cv2.BORDER_REPLICATE) for plane in soft
    ]
    return np.where(inside, np.asarray(planes, np.float32), np.float32(np.nan))


def _recolor(
    image: Pixels, inside: NDArray[np.bool_], strength: float, rng: np.random.Generator
) -> Pixels:
    """Change the colors of what is inside the image; what is outside becomes 0."""
    brightness, contrast, saturation = (1 + rng.uniform(-strength, strength, 3)).tolist()
    x = image[inside].astype(np.float32) * brightness
    mean = x.sum() / max(x.size, 1)  # an image one pixel high may be resized to no pixel
    x = (x - mean) * contrast + mean
    gray = x.mean(1, keepdims=True)
    x = (x - gray) * saturation + gray
    recolored = np.zeros_like(image)
    recolored[inside] = x.clip(0, 255).round()
    return recolored
