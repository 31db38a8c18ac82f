"""Samples of 9 to 16 bits as bytes: images of 8 to 12 bits are often stored in 16."""

import warnings

import numpy as np
from numpy.typing import NDArray

from unpool.errors import ImageWarning


def significant_bits(largest: int, stated: int | None = None) -> int:
    """The bits of the samples of an image, of which the upper 8 are shown.

    Args:
        largest: the largest value of the image.
        stated: the bits that the file states. Without them the largest value decides, with a
            warning: shown as 16 bits, an image whose upper bits are all zero is nearly black.

    >>> significant_bits(65280)
    16
    >>> significant_bits(900, stated=12)
    12
    """
    if stated or not largest:
        return max(8, stated or 16, largest.bit_length())
    bits = next(bits for bits in (8, 10, 12, 16) if largest < 2**bits)
    if bits < 16:
        warnings.warn(
            f"16-bit images without values above {2**bits - 1} are read as {bits}-bit images; if "
            "that is wrong, reduce them to 8 bits yourself",
            ImageWarning,
            stacklevel=2,
        )
    return bits


def to_bytes(
    words: NDArray[np.uint16], colors: int, stated: int | None = None
) -> NDArray[np.uint8]:
    """The upper 8 significant bits of the bands of an image, (H, W, C), which it overwrites.

    Args:
        words: bands of colors, and then of opacity.
        colors: the number of the former, which decide on the significant bits.
        stated: see `significant_bits`.

    >>> to_bytes(np.array([[[0, 2048, 4095]]], np.uint16), 3, stated=12).tolist()
    [[[0, 128, 255]]]
    """
    bits = significant_bits(int(words[..., :colors].max()), stated)
    if words[..., colors:].max(initial=0) >= 2**bits:  # opacity of the full range
        words[..., colors:] >>= 16 - bits
    words >>= bits - 8
    return words.astype(np.uint8)
