"""Images of every usual kind as arrays (H, W, 3) uint8, RGB."""

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unpool.errors import ImageError, ShapeError
from unpool.vision.images import Pixels, read_image
from unpool.vision.upright import upright

_KINDS = "a path, a Pillow image, an array (H, W, 3) or a tensor (3, H, W)"


def as_image(image: Any) -> Pixels:
    """An image of any usual kind as (H, W, 3) uint8, RGB, upright.

    Args:
        image: a path, the bytes of an image file or a binary file; a Pillow image of any mode,
            turned upright by its EXIF orientation; an array, gray (H, W) or (H, W, 1), RGB
            (H, W, 3) or RGBA (H, W, 4); or a tensor (C, H, W) or (1, C, H, W) with as many
            channels. Numbers are uint8, uint16 (their high byte counts), booleans, or
            floating-point from 0 to 1. Transparent pixels are composited over white.

    Raises:
        ImageError: another type, an unreadable file, or values outside their range.
        ShapeError: another shape, a batch among them.

    >>> as_image(np.full((2, 3), 0.5)).tolist()[0][0]
    [128, 128, 128]
    >>> as_image(Image.new("RGBA", (3, 2), (255, 0, 0, 0)))[0, 0].tolist()
    [255, 255, 255]
    """
    if isinstance(image, Image.Image):
        try:
            return upright(image)
        except ImageError as error:
            raise ImageError(f"got a Pillow image that {error}") from None
        except Exception as error:  # Pillow decodes lazily, and raises nearly every type
            got = f"got a Pillow image whose pixels cannot be read ({error})"
            raise ImageError(f"{got}; do not close it before") from error
    if isinstance(image, np.ndarray):
        return _from_array(image, "an array")
    if hasattr(image, "permute"):  # a tensor; vision does not need torch
        return _from_array(_channels_last(image.detach().cpu()), "a tensor")
    if isinstance(image, str | os.PathLike | bytes) or hasattr(image, "read"):
        return read_image(image)
    kind = type(image).__name__
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    raise ImageError(f"got {article} {kind} for an image; wanted {_KINDS}: convert it to one")


def _channels_last(tensor: Any) -> NDArray[Any]:
    """(C, H, W) or (1, C, H, W) as (H, W, C)."""
    if tensor.dim() == 4 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.dim() != 3 or tensor.shape[0] not in (1, 3, 4):
        raise ShapeError(
            f"got a tensor of {tuple(tensor.shape)} for an image; wanted (3, H, W), (4, H, W) or "
            f"(1, H, W){_shape_cure(tensor, 'image[None]', 'image.permute(2, 0, 1)', -1)}"
        )
    if str(tensor.dtype) in ("torch.bfloat16", "torch.float16"):
        tensor = tensor.float()
    return np.asarray(tensor.permute(1, 2, 0).numpy())


def _from_array(array: NDArray[Any], kind: str) -> Pixels:
    channels = 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0
    if channels not in (1, 3, 4) or not array.size:
        raise ShapeError(
            f"got {kind} of {array.shape} for an image; wanted (H, W, 3), (H, W, 4) or (H, W), not "
            f"empty{_shape_cure(array, '', 'image.transpose(1, 2, 0)', 0)}"
        )
    pixels = _as_uint8(array, kind).reshape(*array.shape[:2], channels)
    if channels == 4:
        return upright(Image.fromarray(np.ascontiguousarray(pixels)))
    return np.repeat(pixels, 3, axis=2) if channels == 1 else pixels


def _shape_cure(image: Any, gray: str, moved: str, channels: int) -> str:
    """What to pass instead of an image whose channels are not where they should be.

    Args:
        gray: for an image without channels.
        moved: for one whose channels are the axis `channels`.
    """
    match image.ndim:
        case 2 if gray:
            return f": pass {gray}"
        case 3 if image.shape[channels] in (1, 3, 4):
            return f": pass {moved}"
        case 4:
            return ": of a batch pass list(images)"
    return ""


def _as_uint8(array: NDArray[Any], kind: str) -> Pixels:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if not np.issubdtype(array.dtype, np.floating):
        cure = ": use image.astype(np.uint8)" * np.issubdtype(array.dtype, np.integer)
        got = f"got {kind} of {array.dtype} for an image"
        raise ImageError(f"{got}; wanted uint8 from 0 to 255, or real numbers from 0 to 1{cure}")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # NaN, too
        finite = math.isfinite(low) and math.isfinite(high)
        cure = "divide them by 255, or convert them to uint8"
        raise ImageError(
            f"got {kind} of {array.dtype} from {low:g} to {high:g} for an image; floating-point "
            f"pixels go from 0 to 1: {cure if finite else 'replace those that are not finite'}"
        )
    return np.rint(array * 255).astype(np.uint8)
