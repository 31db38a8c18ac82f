"""Boxes and sizes of images, and crops that take pixels into a square and paste scores back.

Boxes are arrays (P, 4) of x0, y0, x1, y1 in image pixels, 0-based, with x1 and y1 excluded: pixel i
covers the interval from i to i + 1, and x1 - x0 is the width. Coordinates may be fractional and
may lie outside the image. All functions raise a `ShapeError` for other arrays.

Scores of large images are kept at a reduced size, labels at the full one: scores of 21 classes take
84 bytes a pixel, two gigabytes for an image of 24 megapixels, and no network here uses so much
detail. So beyond `LARGEST` pixels, the reduced image is segmented, and its scores are interpolated,
a band of rows at a time.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unpool.errors import ShapeError
from unpool.vision.images import Pixels, check_image

LARGEST = 2**21
"""The largest number of pixels of an image whose scores are kept at full size."""

_BAND = 256  # rows


def area(boxes: NDArray[Any]) -> NDArray[np.float64]:
    """The area of each box in pixels, (P,).

    >>> area(np.array([[0, 0, 4, 3]])).tolist()
    [12.0]
    """
    boxes = _as_boxes(boxes)
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def iou(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """The intersection over union of boxes `a`, (A, 4), and `b`, (B, 4): a matrix (A, B).

    For two boxes without area it is 0.

    >>> iou(np.array([[0, 0, 4, 4]]), np.array([[0, 0, 4, 2], [4, 0, 8, 4]])).tolist()
    [[0.5, 0.0]]
    """
    a, b = _as_boxes(a), _as_boxes(b)
    low = np.maximum(a[:, None, :2], b[:, :2])
    high = np.minimum(a[:, None, 2:], b[:, 2:])
    sides = np.maximum(high - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    union = area(a)[:, None] + area(b) - shared
    ratio = np.zeros(union.shape)
    np.divide(shared, union, out=ratio, where=union > 0)
    return ratio


def clip(boxes: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Clip boxes to an image of `size` (height, width); the dtype is kept.

    A box outside the image has no area afterwards.

    >>> clip(np.array([[-3, 2, 5, 99]]), (10, 20)).tolist()
    [[0, 2, 5, 10]]
    """
    height, width = size
    clipped = np.clip(_as_boxes(boxes), 0, [width, height, width, height])
    return clipped.astype(boxes.dtype)


def nms(boxes: NDArray[Any], scores: NDArray[Any], threshold: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression; returns the indices of the kept boxes, best first.

    A box is dropped if its IoU with a better, kept box is above the threshold. Of equal scores,
    (P,), the first is the better.

    >>> nms(np.array([[0, 0, 4, 4], [0, 0, 4, 5], [9, 9, 12, 12]]), np.array([1, 3, 2]), 0.5)
    array([1, 2])
    """
    boxes, scores = _as_boxes(boxes), np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(boxes),):
        raise ShapeError(f"got scores of {scores.shape} for {len(boxes)} boxes; pass one each")
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        waiting = waiting[iou(boxes[best, None], boxes[waiting])[0] <= threshold]
    return np.array(kept, dtype=np.intp)


def square(boxes: NDArray[Any], enlarge: float = 1.2) -> NDArray[np.int64]:
    """The square of whole pixels around the center of each box.

    Its side is `enlarge` times the long side of the box, rounded, at least 1. Its corner is
    rounded, too, so the center moves by at most half a pixel. The square may extend beyond the
    image. Noh, Hong, Han 2015 extend boxes 1.2 times; the authors' lists of boxes contain squares.

    >>> square(np.array([[10, 10, 20, 15]])).tolist()
    [[9, 7, 21, 19]]
    """
    boxes = _as_boxes(boxes)
    low, high = boxes[:, :2], boxes[:, 2:]
    # halves are rounded up, not to even: a box shifted by whole pixels has the same square, shifted
    side = np.maximum(np.floor(enlarge * (high - low).max(axis=1, keepdims=True) + 0.5), 1)
    corner = np.floor((low + high - side) / 2 + 0.5)
    return np.hstack([corner, corner + side]).astype(np.int64)


class Crop(NamedTuple):
    """A box of an image and the square it is resized to: the mapping between the two frames.

    `paste` writes where `take` reads, without the shift by one pixel in the authors' code. The box
    may extend beyond the image. Noh, Hong, Han 2015, section 5.1.

    >>> crop = Crop((-2, 0, 2, 4), side=4)
    >>> crop.take(np.full((8, 8, 3), 9, np.uint8))[0, :, 0].tolist()
    [0, 0, 9, 9]
    >>> canvas = np.zeros((1, 8, 8), np.float32)
    >>> crop.paste(np.ones((1, 4, 4), np.float32), canvas)
    >>> canvas[0, 0].tolist()
    [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """

    box: tuple[int, int, int, int]  # x0, y0, x1, y1 in image pixels; x1, y1 excluded
    side: int = 224

    def take(self, image: Pixels, fill: int = 0, antialias: bool = True) -> Pixels:
        """Crop the box from an image, (H, W, 3) uint8, and resize it bilinearly to (side, side, 3).

        Pixels outside the image are `fill` (0 *before* the mean is subtracted). With `antialias`,
        shrinking is that of MATLAB's imresize, which the authors used for testing; without, that
        of OpenCV's INTER_LINEAR, which they used for training.
        """
        check_image(image)
        return _bilinear(self._cut(image, fill), (self.side, self.side), antialias)

    def take_labels(self, labels: NDArray[Any], fill: int = 255) -> NDArray[Any]:
        """Crop the box from labels, (H, W), and resize it to (side, side) with nearest neighbors.

        Nearest to the centers of the new pixels. (OpenCV's INTER_NEAREST, which the authors used
        for training, rounds down, which shifts labels by up to half a pixel.)
        """
        if labels.ndim != 2:
            raise ShapeError(f"got labels of {labels.shape}, wanted (H, W): one class per pixel")
        cut = self._cut(labels, fill)
        centers = 2 * np.arange(self.side) + 1  # in half pixels of the square
        rows, columns = (centers * length // (2 * self.side) for length in cut.shape)
        return cut[np.ix_(rows, columns)]

    def paste(
        self, scores: NDArray[np.float32], canvas: NDArray[np.float32], merge: np.ufunc = np.maximum
    ) -> None:
        """Resize scores, (K, side, side), to the box and merge them into a canvas, (K, H, W).

        The canvas, float32, is changed in place where box and image overlap. Merging with the
        maximum into a canvas of zeros is eq. (1) of the paper, where negative scores become 0;
        merging with `np.add` is eq. (2).
        """
        wanted = (len(canvas), self.side, self.side)
        if scores.shape != wanted or canvas.ndim != 3 or scores.dtype != np.float32:
            raise ShapeError(
                f"got scores of {scores.shape} {scores.dtype} for a canvas of {canvas.shape}, "
                f"wanted {wanted} float32; paste with the crop that took the image"
            )
        in_image, in_box = self._overlap((canvas.shape[1], canvas.shape[2]))
        x0, y0, x1, y1 = self.box
        # plane by plane is faster than one resize of (side, side, K), with two transposes
        for plane, merged in zip(scores, canvas, strict=True):
            visible = _bilinear(plane, (y1 - y0, x1 - x0))[in_box]
            merge(merged[in_image], visible, out=merged[in_image])

    def _cut(self, image: NDArray[Any], fill: int) -> NDArray[Any]:
        in_image, in_box = self._overlap((image.shape[0], image.shape[1]))
        x0, y0, x1, y1 = self.box
        cut = np.full((y1 - y0, x1 - x0, *image.shape[2:]), fill, image.dtype)
        cut[in_box] = image[in_image]
        return cut

    def _overlap(self, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The rows and columns shared by box and image, as slices of the image and of the box."""
        x0, y0, x1, y1 = self.box
        if x1 <= x0 or y1 <= y0:
            raise ShapeError(f"got the empty box {self.box}; wanted x0 < x1 and y0 < y1")
        left, top, right, bottom = clip(np.array([self.box]), size)[0].tolist()
        in_image = slice(top, bottom), slice(left, right)
        return in_image, (slice(top - y0, bottom - y0), slice(left - x0, right - x0))


class Crops(NamedTuple):
    """Square crops for classification: the central square is resized, and a part of it cropped.

    Zeiler, Fergus 2014, section 3: the short side is resized to 256, and of the central 256 x 256
    ten crops of 224 x 224 are used (corners and center, flipped or not).
    """

    size: int = 224  #: S, the side of the crop in pixels
    enlarged: int = 256  #: side to which the central square is resized
    corners: bool = True  #: random crops are at the corners or in the center; else anywhere
    flip: bool = True  #: random crops are mirrored half of the time

    def draw(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """A random crop (S, S, 3) of an image (H, W, 3)."""
        room = self.enlarged - self.size
        corners = [(0, 0), (0, room), (room, 0), (room, room), (room // 2, room // 2)]
        y, x = corners[rng.integers(5)] if self.corners else rng.integers(0, room + 1, 2).tolist()
        crop = self._cut(image, y, x)
        return np.ascontiguousarray(crop[:, ::-1]) if self.flip and rng.random() < 0.5 else crop

    def center(self, image: Pixels) -> Pixels:
        """The central crop (S, S, 3) of an image (H, W, 3).

        >>> image = np.arange(60, dtype=np.uint8)[None, :, None].repeat(40, 0).repeat(3, 2)
        >>> Crops(20, 40).center(image)[0, :, 0].tolist() == list(range(20, 40))
        True
        """
        return self._cut(image, *[(self.enlarged - self.size) // 2] * 2)

    def _cut(self, image: Pixels, y: int, x: int) -> Pixels:
        """The crop at row y and column x of the resized central square."""
        height, width = image.shape[:2]
        side = min(height, width)
        scale = side / self.enlarged
        top, left = (height - side) // 2 + y * scale, (width - side) // 2 + x * scale
        box = left, top, left + self.size * scale, top + self.size * scale
        square, bilinear = (self.size, self.size), Image.Resampling.BILINEAR
        return np.array(Image.fromarray(image).resize(square, bilinear, box=box))


def resize(image: Pixels, long_side: int, least: int = 1) -> Pixels:
    """Resize an image (H, W, 3) to a long side of `long_side`; both sides are at least `least`.

    >>> resize(np.zeros((30, 60, 3), np.uint8), 20).shape
    (10, 20, 3)
    """
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    size = max(round(width * scale), least), max(round(height * scale), least)
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def reduced_size(size: tuple[int, int], largest: int = LARGEST) -> tuple[int, int]:
    """Height and width to which an image is reduced to have at most `largest` pixels.

    >>> reduced_size((375, 500)), reduced_size((4000, 6000))
    ((375, 500), (1182, 1773))
    """
    height, width = size
    shrink = min((largest / (height * width)) ** 0.5, 1.0)
    height = min(max(int(height * shrink), 1), largest)
    return height, min(max(int(width * shrink), 1), largest // height)


def reduced(image: Pixels, largest: int = LARGEST) -> Pixels:
    """Reduce an image, (H, W, 3), to at most `largest` pixels; a smaller one is returned as it is.

    >>> reduced(np.zeros((40, 90, 3), np.uint8), largest=400).shape
    (13, 30, 3)
    """
    height, width = reduced_size((image.shape[0], image.shape[1]), largest)
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def labels_at(scores: NDArray[np.float32], size: tuple[int, int]) -> Pixels:
    """The best class of each pixel of a larger image, by bilinear interpolation of the scores.

    From scores (K, h, w) float32, with K up to 256, follow class ids (H, W) uint8 for `size`; of
    equal scores the first class wins.

    >>> scores = np.float32([[[1, 0]], [[0, 1]]])
    >>> labels_at(scores, (1, 4)).tolist()
    [[0, 0, 1, 1]]
    """
    if scores.ndim != 3 or not 0 < len(scores) <= 256:
        raise ShapeError(f"got scores of {scores.shape}; wanted (K, h, w) of up to 256 classes")
    height, width = size
    fy, fx = scores.shape[1] / height, scores.shape[2] / width
    labels = np.zeros(size, np.uint8)
    for top in range(0, height, _BAND):
        rows = min(_BAND, height - top)
        # maps pixel centers of the band to those of the scores
        where = np.array([[fx, 0, fx / 2 - 0.5], [0, fy, (top + 0.5) * fy - 0.5]])
        best = np.full((rows, width), -np.inf, np.float32)
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        for k, plane in enumerate(scores):
            band = cv2.warpAffine(plane, where, (width, rows), None, how, cv2.BORDER_REPLICATE)
            better = band > best
            best[better] = band[better]
            labels[top : top + rows][better] = k
    return labels


def _as_boxes(boxes: NDArray[Any]) -> NDArray[np.float64]:
    """Check boxes and convert them to float64, where products of integers are exact."""
    found = np.asarray(boxes, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] != 4:
        raise ShapeError(f"got boxes of {found.shape}, wanted (P, 4); pass rows of x0, y0, x1, y1")
    right = np.isfinite(found).all(axis=1) & (found[:, :2] <= found[:, 2:]).all(axis=1)
    if not right.all():
        raise ShapeError(
            f"got the box {found[~right][0].tolist()}, wanted finite x0 <= x1 and y0 <= y1; "
            "convert from x, y, width, height if that is what it holds"
        )
    return found


def _bilinear(image: NDArray[Any], size: tuple[int, int], antialias: bool = True) -> NDArray[Any]:
    """Resize (h, w, 3) uint8 or (h, w) float32 bilinearly, with aligned pixel centers.

    Antialiasing shrinks with triangular filters as wide as the new pixels, as MATLAB and Pillow do.
    """
    if antialias and (size[0] < image.shape[0] or size[1] < image.shape[1]):
        shrunk = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
        return np.array(shrunk)  # a copy: a view of a Pillow image is read-only
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR))
