"""Prepare images for a sparse coder: gray, reduced, with normalized contrast."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unpool import distributed
from unpool.data.unlabeled import reduced_size
from unpool.models.coder import normalize_contrast
from unpool.vision.images import Pixels, read_image


def reduced(image: Pixels, long_side: int) -> Pixels:
    """Reduce an image (H, W, 3) so that its longer side has at most `long_side` pixels.

    >>> reduced(np.zeros((20, 30, 3), np.uint8), 15).shape
    (10, 15, 3)
    """
    height, width = reduced_size(image.shape[:2], long_side)
    if (height, width) == image.shape[:2]:
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def prepare(image: Pixels) -> Tensor:
    """Convert an image, (H, W, 3) uint8 RGB, to the input of a coder: gray, (1, 1, H, W).

    See `unpool.models.coder.normalize_contrast`.

    >>> prepare(np.zeros((20, 30, 3), np.uint8)).shape
    torch.Size([1, 1, 20, 30])
    """
    gray = np.array(Image.fromarray(image).convert("L"))
    return normalize_contrast(torch.from_numpy(gray)[None, None] / 255)


def draw_crops(
    images: Sequence[Path],
    batch: int,
    side: int,
    *,
    each: int = 4,
    long_side: int = 480,
    seed: int = 0,
    start: int = 0,
) -> Iterator[Tensor]:
    """Yield batches of random crops, (batch, 1, side, side), without end.

    Batch n depends only on its number, so a resumed run sees the same batches as an uninterrupted
    run.

    Args:
        images: image files, which are shuffled in each pass.
        batch: number of crops in a batch.
        side: side of a crop.
        each: number of crops from an image before the next is read.
        long_side: see `reduced`.
        seed: seed of the order and positions.
        start: number of the first batch.
    """
    count, number = -(-batch // each), start
    while True:
        crops: list[Tensor] = []
        for place in range(number * count, (number + 1) * count):
            path = images[distributed.sample_index(place, len(images), seed)]
            image, rng = read(path, long_side), np.random.default_rng([seed, place])
            for _ in range(min(each, batch - len(crops))):
                y, x = (int(rng.integers(s - side + 1)) for s in image.shape[-2:])
                crops.append(image[..., y : y + side, x : x + side])
        yield torch.cat(crops)
        number += 1


def read(path: Path, long_side: int) -> Tensor:
    """Read an image file as input of a coder, (1, 1, H, W)."""
    return prepare(reduced(read_image(path), long_side))


def center_crops(images: Sequence[Path], side: int, long_side: int) -> Tensor:
    """Center crops of images, (N, 1, side, side)."""
    crops = []
    for path in images:
        image = read(path, long_side)
        y, x = ((s - side) // 2 for s in image.shape[-2:])
        crops.append(image[..., y : y + side, x : x + side])
    return torch.cat(crops)
