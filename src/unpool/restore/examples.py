"""Training examples for networks that deblur: sharp images, blurred by random PSFs."""

import io
import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unpool import distributed
from unpool.ops.blur import blur
from unpool.vision.images import LUMA, Pixels, read_image
from unpool.vision.kernels import Kernel, disk, gaussian, motion, shake
from unpool.vision.psf import find_psf

if TYPE_CHECKING:
    from unpool.recipes.restore import RestorationRecipe

_RESERVED = 2**20
"""Seeds below are not used for shakes in training, so that `shake:0` ... can be tested on."""

VALIDATED = 160
"""Side of the squares that are validated on."""

_FAMILIES = "shake", "gaussian:1.4", "disk:3", "motion:11,70"  # in validation
_QUALITIES = 70, 95  # of JPEG
Values = NDArray[np.float32]


class BlurBatch(NamedTuple):
    """Images, and what has blurred them."""

    blurred: Tensor  #: (N, C, S, S), 0 to 1 and beyond
    sharp: Tensor  #: of the same size
    psf: Tensor  #: (N, 1, h, w), as it is given to a network
    sigma: Tensor  #: standard deviation of the noise, (N,)


def draw_examples(
    images: Sequence[Path], recipe: "RestorationRecipe", batch: int, start: int = 0
) -> Iterator[BlurBatch]:
    """Yield batches of random crops, blurred, without end.

    Batch n depends only on its number, so a resumed run sees the same batches as an uninterrupted
    run.

    Args:
        images: image files, which are shuffled in each pass.
        recipe: the data it describes, and the seed.
        batch: number of crops in a batch.
        start: number of the first batch.
    """
    count, number = -(-batch // recipe.crops), start
    side = recipe.patch + recipe.psf_side - 1
    while True:
        examples: list[BlurBatch] = []
        for place in range(number * count, (number + 1) * count):
            image = read_image(images[distributed.sample_index(place, len(images), recipe.seed)])
            # by place, so that a resumed run sees the same examples
            rng = np.random.default_rng([recipe.seed, place])
            for _ in range(min(recipe.crops, batch - len(examples))):
                sharp = draw_crop(image, side, recipe.channels, recipe.halved, rng)
                # evenly in logarithms, or little noise would be rare
                sigma = math.exp(rng.uniform(*np.log(recipe.noise)))
                examples.append(make_example(sharp, draw_psf(recipe, rng), sigma, recipe, rng))
        yield BlurBatch(*(torch.cat(parts) for parts in zip(*examples, strict=True)))
        number += 1


def draw_crop(
    image: Pixels, side: int, channels: int, halved: float, rng: np.random.Generator
) -> Values:
    """A random square of an image, flipped and transposed at random: (channels, side, side).

    Args:
        image: (H, W, 3), of sides of `side` or more.
        side: of the square.
        channels: 3, or 1 for gray.
        halved: how often a square of twice the side is halved by averaging, which removes noise and
            the blocks of JPEG. Images that are too small for that are not halved.
        rng: draws.
    """
    # halved photos are sharper, and have no blocks of JPEG
    factor = 2 if rng.random() < halved and min(image.shape[:2]) >= 2 * side else 1
    y, x = (int(rng.integers(n - factor * side + 1)) for n in image.shape[:2])
    part = _scaled(image[y : y + factor * side, x : x + factor * side])
    planes = _planes(part.reshape(side, factor, side, factor, 3).mean((1, 3)), channels)
    planes = np.flip(planes, tuple(axis for axis in (1, 2) if rng.random() < 0.5))
    planes = planes.swapaxes(1, 2) if rng.random() < 0.5 else planes
    return np.ascontiguousarray(planes)


def _scaled(image: Pixels) -> Values:
    return image.astype(np.float32) / np.float32(255)


def _planes(image: Values, channels: int) -> Values:
    """An image (H, W, 3) as (channels, H, W), gray for one channel."""
    values = (image @ np.array(LUMA, np.float32))[..., None] if channels == 1 else image
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def draw_psf(recipe: "RestorationRecipe", rng: np.random.Generator) -> Kernel:
    """A random PSF of the recipe's families, or its only one, (psf_side, psf_side)."""
    if recipe.psf is not None:
        return fitted(_fixed(recipe.psf), recipe.psf_side)
    side, scale = recipe.psf_side, recipe.psf_side / 21
    family = rng.choice(4, p=np.array(recipe.psfs) / sum(recipe.psfs))
    if family == 0:
        kernel = shake(int(rng.integers(_RESERVED, 2**62)), side)
    elif family == 1:
        widths = scale * rng.uniform(0.4, 3.2, 2)
        widths = widths if rng.random() < 0.3 else widths[:1]
        kernel = gaussian(*widths, **({"angle": rng.uniform(0, 180)} if len(widths) > 1 else {}))
    elif family == 2:
        kernel = disk(scale * rng.uniform(0.6, 5.5))
    else:
        kernel = motion(scale * rng.uniform(2, 19), rng.uniform(0, 180))
    return fitted(kernel, side)


@cache
def _fixed(source: str) -> Kernel:
    return find_psf(source).kernel


def fitted(kernel: Kernel, side: int) -> Kernel:
    """A PSF with zeros around it, or cropped, to a square of an odd side; its sum is 1.

    >>> fitted(np.ones((1, 3), np.float32) / 3, 5).shape
    (5, 5)
    """
    pads = [(max(0, side - n) // 2,) * 2 for n in kernel.shape]
    square = np.pad(kernel, pads)
    top, left = ((n - side) // 2 for n in square.shape)
    square = square[top : top + side, left : left + side]
    return square / square.sum(dtype=np.float64).astype(np.float32)


def make_example(
    sharp: Values,
    kernel: Kernel,
    sigma: float,
    recipe: "RestorationRecipe",
    rng: np.random.Generator,
) -> BlurBatch:
    """Blur an image (C, H, W) without borders, and add noise: a batch of one."""
    x, psf = torch.from_numpy(sharp)[None], torch.from_numpy(kernel)
    # the light of what lies outside reaches the image, as in a photo
    y = blur(x, psf, "valid")[0].numpy()
    y = y + np.float32(sigma) * rng.standard_normal(y.shape, np.float32)
    if rng.random() < recipe.jpeg:
        y = _compressed(y, int(rng.integers(*_QUALITIES, endpoint=True)))
    elif rng.random() < recipe.rounded:
        y = np.rint(y.clip(0, 1) * 255) / 255
    # the network is given a PSF that is slightly wrong, as those of users are
    if recipe.psf_noise:
        errors = rng.normal(0, recipe.psf_noise, kernel.shape)
        noisy = np.maximum(kernel + errors, 0).astype(np.float32)
        psf = torch.from_numpy(noisy / noisy.sum())
    top, left = (n // 2 for n in kernel.shape)
    truth = x[..., top : top + y.shape[1], left : left + y.shape[2]]
    return BlurBatch(
        torch.from_numpy(y.astype(np.float32))[None], truth, psf[None, None],
        torch.tensor([sigma], dtype=torch.float32),
    )  # fmt: skip


def _compressed(y: Values, quality: int) -> Values:
    """An image (C, H, W) after JPEG."""
    pixels = np.rint(y.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    with io.BytesIO() as file:
        Image.fromarray(pixels[..., 0] if len(y) == 1 else pixels).save(
            file, "JPEG", quality=quality
        )
        found = np.array(Image.open(file, formats=("JPEG",)), np.float32) / 255
    return found.reshape(pixels.shape).transpose(2, 0, 1)


def validation_cases(
    images: Sequence[Path], recipe: "RestorationRecipe"
) -> list[tuple[str, float, BlurBatch]]:
    """The middle of images, blurred by fixed PSFs, with their names and levels of noise.

    Shakes, or the recipe's only PSF, come with its lowest and highest noise and with that in
    between; the other families with that in between.
    """
    low, high = recipe.noise
    middle = math.sqrt(low * high)
    families = zip(_FAMILIES, recipe.psfs, strict=True)
    names = [recipe.psf] if recipe.psf else [name for name, part in families if part]
    pairs = [(names[0], sigma) for sigma in sorted({low, middle, high})]
    pairs += [(name, middle) for name in names[1:]]
    pixels = [read_image(path) for path in images]
    side = VALIDATED + recipe.psf_side - 1
    side = min(side, *(n for image in pixels for n in image.shape[:2]))
    found = []
    for name, sigma in pairs:
        rng, examples = np.random.default_rng(0), []
        for i, image in enumerate(pixels):
            y, x = ((n - side) // 2 for n in image.shape[:2])
            sharp = _planes(_scaled(image[y : y + side, x : x + side]), recipe.channels)
            source = f"shake:{i},{recipe.psf_side}" if name == "shake" else name
            kernel = fitted(find_psf(source).kernel, recipe.psf_side)
            examples.append(make_example(sharp, kernel, sigma, recipe, rng))
        found.append((name, sigma, BlurBatch(*map(torch.cat, zip(*examples, strict=True)))))
    return found
