"""Sizes of images; scores of large images are kept at a reduced size, labels at the full one.

Scores of 21 classes take 84 bytes a pixel, two gigabytes for an image of 24 megapixels, and no
network here uses so much detail: beyond `LARGEST` pixels, the reduced image is segmented, and its
scores are interpolated, a band of rows at a time.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unpool.errors import ShapeError
from unpool.vision.images import Pixels

LARGEST = 2**21
"""The largest number of pixels of an image whose scores are kept at full size."""

_BAND = 256  # rows


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

    Args:
        scores: (K, h, w) float32, with K up to 256.
        size: (H, W) of the image.

    Returns:
        Class ids, (H, W) uint8; of equal scores the first class wins.

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
