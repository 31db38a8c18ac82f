"""Test images: three photos from scikit-image, or synthetic ones if it is not installed."""

from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from unpool.vision.images import read_image

_NAMES = ("astronaut", "chelsea", "coffee")


def photos(size: tuple[int, int]) -> dict[str, NDArray[np.uint8]]:
    """Three images (H, W, 3) uint8, RGB, of the size (height, width), by name.

    >>> [photo.shape for photo in photos((20, 30)).values()]
    [(20, 30, 3), (20, 30, 3), (20, 30, 3)]
    """
    if find_spec("skimage") is None:
        return {f"made up {seed}": made_up(size, seed) for seed in range(len(_NAMES))}
    folder = resources.files("skimage")
    found = {}
    for name in _NAMES:
        image = read_image(Path(str(folder / f"data/{name}.png")))
        shrinks = image.shape[0] * image.shape[1] > size[0] * size[1]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        found[name] = np.asarray(cv2.resize(image, size[::-1], interpolation=how), np.uint8)
    return found


def made_up(size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """A synthetic image (H, W, 3) uint8: colored noise, stronger in large structures, like photos.

    >>> made_up((20, 30), 0).shape
    (20, 30, 3)
    """
    random = np.random.default_rng(seed)
    image = np.zeros((*size, 3), np.float32)
    for octave in range(1, 9):
        spots = random.standard_normal((2**octave, 2**octave, 3)).astype(np.float32)
        enlarged = cv2.resize(spots, size[::-1], interpolation=cv2.INTER_CUBIC)
        image += np.asarray(enlarged, np.float32) / 1.6**octave
    image = (image - image.min()) / (image.max() - image.min())
    return (255 * image).astype(np.uint8)
