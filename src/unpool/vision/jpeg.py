"""How far a JPEG is from the image that was compressed."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unpool.vision.images import LUMA

if TYPE_CHECKING:
    from PIL import Image

_BLOCKS = 4096  # number of blocks from which errors are estimated
_ROUNDING = 1 / 12  # the variance of rounding to whole numbers


def compression_noise(pixels: NDArray[np.uint8], table: ArrayLike) -> float:
    """Estimate the standard deviation of the compression error of a decoded JPEG, in gray levels.

    The DCT coefficients of 8 x 8 blocks were rounded to multiples of their step q. Where the result
    is not 0, the error has the variance q² / 12. A coefficient that became 0 is itself the error:
    those of a frequency are taken to follow a Laplacian distribution, of which the fraction of
    coefficients that are not 0 tells the width. Frequencies at which all became 0 do not count.
    Pixels are rounded, too, when they are decoded.

    Args:
        pixels: (H, W) or RGB, (H, W, 3), not rotated; of colors, the luminance is measured.
        table: steps of the luminance, 64, row by row.

    Reininger, Gibson 1983 (distribution of the coefficients).

    >>> ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    >>> round(compression_noise(ramp, np.full(64, 16)), 1)
    1.0
    """
    # the steps of a damaged file may be 0, where 1 is the smallest that a decoder can mean
    steps = np.maximum(np.reshape(table, (8, 8)).astype(np.float64), 1.0)
    blocks = _blocks(pixels)
    if not len(blocks):
        return 0.0
    coefficients = _DCT @ (blocks - 128) @ _DCT.T
    kept = (np.rint(coefficients / steps) != 0).mean(0)
    some = np.clip(kept, 1e-9, 1 - 1e-4)
    ratio = -np.log(some)  # q / 2b for a Laplacian of width b, as exp(-q / 2b) are not 0
    zeroed = (2 / ratio**2) * (1 - some) - some * (1 + 2 / ratio)  # mean square, times 4 / q²
    variance = steps**2 * (kept / 12 + np.where(kept > 0, zeroed, 0) / 4)
    return float(np.sqrt(variance.mean() + _ROUNDING))


def compression_of(image: "Image.Image", pixels: NDArray[np.uint8]) -> float:
    """The `compression_noise` of an image that Pillow opened, as a fraction of 255.

    It is 0 unless the file is a JPEG. `pixels` are those of the image, (H, W) or RGB, not rotated.
    """
    tables = getattr(image, "quantization", {})
    # the first table is that of the luminance, in the order of rows
    return compression_noise(pixels, tables[min(tables)]) / 255 if tables else 0.0


def _blocks(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Blocks (N, 8, 8) of the luminance, evenly chosen; incomplete ones are left out."""
    height, width = (n // 8 for n in pixels.shape[:2])
    if not height * width:
        return np.zeros((0, 8, 8))
    tiles = pixels[: 8 * height, : 8 * width].reshape(height, 8, width, 8, -1).swapaxes(1, 2)
    chosen = np.arange(0, height * width, max(1, height * width // _BLOCKS))
    found = tiles[np.divmod(chosen, width)].astype(np.float64)
    return found @ LUMA if pixels.ndim == 3 else found[..., 0]


def _dct() -> NDArray[np.float64]:
    """The orthonormal matrix of the DCT-II of 8 values."""
    n = np.arange(8)
    matrix = np.cos(np.pi * (2 * n + 1) * n[:, None] / 16) / 2
    matrix[0] /= np.sqrt(2)
    return matrix


_DCT = _dct()
