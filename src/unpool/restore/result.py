"""The result of a restoration: the image in its original type, and how it was computed."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unpool.errors import OptionError
from unpool.vision.figures import Tile, add_caption, contact_sheet, join
from unpool.vision.images import Pixels, encode_png, write_image
from unpool.vision.stacks import stack_of

if TYPE_CHECKING:
    from unpool.vision.psf import PSF

_LONGEST = 1600  # long side of a comparison in pixels

_HIGH = 1.4
"""A residual that the estimated noise does not explain: with the true PSF it was 0.7 to 1.1 for PNG
and JPEG, and 1.6 to 1.9 for the pixels of JPEGs of quality 80 without their quantization tables,
for which three times the noise is better."""


@dataclass(frozen=True)
class Restored:
    """A restored image."""

    image: NDArray[Any]  #: the restored image, in the shape and type of the input, or float32
    before: NDArray[Any]  #: the input
    psf: "PSF"
    method: str
    reason: str  #: why this method was chosen
    parameter: str  #: the name of the method's parameter: "balance", "lam" or "steps"; or none
    value: float
    chosen: bool  #: whether the parameter was chosen from the noise
    noise: float  #: standard deviation, as a fraction of the largest value of the type
    estimated: bool  #: whether the noise was estimated
    compression: float  #: the part of an estimated noise that is the error of JPEG compression
    residual: float | None
    """The deviation of the restored image, blurred again, from the input, divided by that of the
    noise: about 1 if only noise is left, far below 1 if noise was amplified. It does not detect a
    wrong PSF."""
    clipped: float  #: fraction of the values that were out of the range of the type
    largest: float  #: the largest value of the type; 1 for floating point
    tiles: int
    memory: int  #: estimated memory in bytes

    @property
    def noise_to_try(self) -> float | None:
        """A larger noise, if that which was estimated does not explain the residual."""
        if not self.estimated or (self.residual or 0) <= _HIGH:
            return None
        return self.noise * max(3.0, self.residual or 0)

    def to_dict(self) -> dict[str, Any]:
        """All but the pixels, as plain values."""
        return {
            **self.psf.to_dict(),
            "method": self.method,
            "reason": self.reason,
            **({self.parameter: self.value} if self.parameter else {}),
            "chosen_by_noise": self.chosen,
            "noise": self.noise,
            "noise_estimated": self.estimated,
            "noise_of_compression": self.compression,
            "residual": self.residual,
            "noise_to_try": self.noise_to_try,
            "clipped": self.clipped,
            "tiles": self.tiles,
            "memory": self.memory,
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the image in its type as .tif, .png or .jpg; returns the path.

        PNG holds 8 or 16 bits, JPEG 8. `unpool restore` copies tags and metadata, too.
        """
        path = Path(path)
        stack = stack_of(self.image, path.suffix.lower())
        stack.write(path, iter(stack))
        return path

    def comparison(self) -> Pixels:
        """Left half before and right half after, with captions; volumes show the middle slice."""
        before, after = (shown(self._slice(image), self.before) for image in self._both())
        half = before.shape[1] // 2
        caption = f"{self._how}, {self.psf.name}"
        left, right = before[:, :half], after[:, half:]
        parts = [add_caption(left, "before"), add_caption(right, caption)]
        return join(parts, 1, 4)

    def save_comparison(self, path: str | os.PathLike[str]) -> None:
        """Write `comparison`, with a long side of 1600 pixels at most."""
        write_image(path, reduced(self.comparison()))

    def tile(self) -> Tile:
        """The image with its method, value and PSF, for a contact sheet."""
        after = shown(self._slice(self.image), self.before)
        return after, f"{self.psf.name}: {self._how}"

    @property
    def _how(self) -> str:
        """The method, and its value if it has one."""
        value = f", {self.parameter} {self.value:.3g}" if self.parameter else ""
        return f"{self.method}{value}"

    def _both(self) -> tuple[NDArray[Any], NDArray[Any]]:
        return self.before, self.image

    def _slice(self, image: NDArray[Any]) -> NDArray[Any]:
        volume = self.psf.kernel.ndim == 3
        return image[len(image) // 2] if volume else image

    def _repr_png_(self) -> bytes:
        return encode_png(reduced(self.comparison()))


def shown(image: NDArray[Any], like: NDArray[Any]) -> Pixels:
    """Convert an image, (H, W) or (H, W, C), for display: (H, W, 3) uint8.

    8-bit images keep their range. For other types, black is 0 or the lowest value, and white is
    the 99.9 % quantile of `like`.
    """
    planes = image if image.ndim == 3 else image[..., None]
    planes = planes[..., :3] if planes.shape[2] >= 3 else planes[..., :1]
    low, high = 0.0, 255.0
    if image.dtype != np.uint8:
        some = like.ravel()[:: max(1, like.size // 1_000_000)].astype(np.float64)
        low, high = min(0.0, float(np.quantile(some, 0.001))), float(np.quantile(some, 0.999))
    scaled = (planes.astype(np.float32) - low) * (255 / max(high - low, 1e-12))
    pixels = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels


def reduced(image: Pixels) -> Pixels:
    """Reduce an image to sides of at most 1600 pixels."""
    step = -(-max(image.shape[:2]) // _LONGEST)
    return np.ascontiguousarray(image[::step, ::step])


def sheet(results: list[Restored]) -> Pixels:
    """A contact sheet: the input and several restorations of it."""
    if not results:
        raise OptionError("got no results for a contact sheet; give one or more")
    first = results[0]
    before = shown(first._slice(first.before), first.before), "before"
    tiles = [before, *(result.tile() for result in results)]
    columns = 2 if len(tiles) == 4 else min(len(tiles), 3)
    return contact_sheet([(reduced(image), text) for image, text in tiles], columns)
