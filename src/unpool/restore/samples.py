"""Images as a `Restorer` takes them: their samples, what it refuses, and what it measures."""

import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unpool.errors import ImageError, ShapeError
from unpool.ops.blur import blur
from unpool.ops.inversion import noise_level
from unpool.vision.jpeg import compression_of
from unpool.vision.stacks import Frame, read_stack, stack_of

if TYPE_CHECKING:
    from unpool.restore.light import Gamma
    from unpool.restore.tiles import Plane
    from unpool.vision.psf import PSF

_SOME = 1_000_000  # number of values from which quantiles are computed
_PHOTO = 1.5  # photos in floating point end at 1, and noise or sharpening exceeds it a little
_STRIP = 2**18  # number of values that are converted at a time
_SEEN = 1024  # side in pixels of the part on which the residual is measured
_DEEP = "I", "I;16", "I;16B", "I;16L"  # modes of Pillow with more than 8 bits


def as_samples(image: Any) -> tuple[NDArray[Any], Frame]:
    """The samples of any kind of image, and their frame."""
    if isinstance(image, str | os.PathLike | bytes):
        stack = read_stack(image)
        if len(stack) > 1:
            raise ImageError(
                f"got a stack of {len(stack)} pages; restore them one by one, as images of "
                "unpool.vision.stacks.read_stack, or stack them for a volume"
            )
        values = stack[0]
        return (values[..., 0] if values.shape[2] == 1 else values), stack.frames[0]
    error = 0.0
    if isinstance(image, Image.Image):
        if image.mode in ("L", "RGB"):
            error = compression_of(image, np.array(image))
        if image.mode not in ("L", "LA", "RGB", "RGBA", "F", *_DEEP):
            image = image.convert("RGB")
        image = np.array(image)
    elif hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
    values = np.asarray(image)
    if values.ndim not in (2, 3) or not values.size or values.dtype.kind not in "uif":
        raise ShapeError(
            f"got an image of {values.shape} and {values.dtype}; wanted numbers (H, W), "
            "(H, W, C), or a volume (D, H, W)"
        )
    (frame, *_) = stack_of(values).frames
    return values, replace(frame, compression=error)


def require_fit(values: NDArray[Any], frame: Frame, volume: bool) -> None:
    """Refuse a volume for a PSF of two dimensions, the reverse, and types of 64 bits."""
    if volume and values.ndim != 3:
        raise ShapeError(
            f"got an image of {values.shape} for a PSF of three dimensions; wanted a volume "
            "(D, H, W): choose one page or channel of the PSF"
        )
    if not volume and values.ndim == 3 and values.shape[2] != frame.shape[2]:
        raise ShapeError(
            f"got a volume of {values.shape} for a PSF of two dimensions; wanted one (d, h, w), or "
            "the slices one by one; colors come last, (H, W, C)"
        )
    if frame.dtype.kind == "f" or frame.dtype.itemsize <= 4:
        return
    raise ImageError(f"got {frame.dtype}; wanted integers of 32 bits or less, or floating point")


def strips(plane: NDArray[Any]) -> list[slice]:
    """Parts along the first axis, so that temporary arrays are small."""
    step = max(1, _STRIP // max(1, math.prod(plane.shape[1:])))
    return [slice(start, start + step) for start in range(0, len(plane), step)]


def require_finite(planes: NDArray[Any]) -> None:
    """Refuse NaN and infinity."""
    if planes.dtype.kind == "f" and (bad := planes.size - int(np.isfinite(planes).sum())):
        raise ImageError(f"got {bad} values that are not finite; replace them before, as by 0")


def require_room(shape: tuple[int, ...], psf: "PSF") -> None:
    """Refuse a PSF wider or higher than the image, of which nothing would be right."""
    size, sides = shape[-3:-1], psf.kernel.shape[-2:]
    if any(side > n for side, n in zip(sides, size, strict=True)):
        got = f"got a PSF of {sides[0]} x {sides[1]} pixels for an image of {size[0]} x {size[1]}"
        raise ShapeError(f"{got}; wanted a smaller one: cut the spot out")


def lowest(planes: list["Plane"]) -> float:
    """The lowest value of all channels."""
    return min(float(plane.min()) for plane in planes)


def noise_of(plane: "Plane") -> float:
    """The estimated standard deviation of the noise of a channel."""
    if min(plane.shape[-2:]) < 2:
        return 0.0
    return float(noise_level(torch.from_numpy(plane)[None, None]))


def compression_in(planes: list["Plane"], frame: Frame, gamma: "Gamma") -> float:
    """The standard deviation of the error of JPEG compression, in linear light."""
    if not frame.compression:
        return 0.0
    some = [plane.ravel()[:: max(1, plane.size // _SOME)] for plane in planes]
    return gamma.noise(np.concatenate(some), frame.compression)


def brightest(plane: "Plane") -> float:
    """The value that is brighter than 99.9 % of a channel."""
    return float(np.quantile(abs(plane.ravel()[:: max(1, plane.size // _SOME)]), 0.999))


def why_no_photo(frame: Frame, bright: float) -> str:
    """What says that an image is no photo, by its file or its `brightest` value; "" if nothing."""
    if not frame.no_photo and frame.dtype.kind == "f" and bright > _PHOTO:
        return f"the values are floating point up to {bright:.3g}, not to 1"
    return frame.no_photo


def residual_of(before: "Plane", after: "Plane", kernel: "Plane", sigma: float) -> float | None:
    """Compute `Restored.residual`; for large images, on the middle part."""
    places = []
    for n, side in zip(before.shape, kernel.shape, strict=True):
        # nothing would be left of the interior, or to divide by
        if n < 2 * side or sigma == 0:
            return None
        start = max(0, (n - _SEEN) // 2)
        places.append(slice(start, min(n, start + _SEEN)))
    y, x = (torch.from_numpy(np.ascontiguousarray(p[tuple(places)])) for p in (before, after))
    again = blur(x[None, None], torch.from_numpy(kernel), "valid")[0, 0]
    for axis, side in enumerate(kernel.shape):
        y = y.narrow(axis, side // 2, again.shape[axis])
    return float((again - y).std() / sigma)
