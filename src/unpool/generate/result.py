"""A drawn object: colors and a mask, on nothing, on a background, or in a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor
from torch import Tensor

from unpool.errors import ImageError, OptionError
from unpool.files import atomic

_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Drawn:
    """An object as a generative network drew it."""

    rgba: NDArray[np.uint8]  #: (S, S, 4) uint8: RGB, not multiplied by the mask, and the mask
    note: str = ""  #: what is to be said of it, such as a view beyond those of the training

    def __repr__(self) -> str:
        side = self.rgba.shape[0]
        return f"Drawn({side} x {side}{', ' * bool(self.note)}{self.note})"

    def on(self, background: str | Sequence[int] = "white") -> NDArray[np.uint8]:
        """The object on a background, as the authors show it: rgb * m + background * (1 - m).

        Args:
            background: a color, by its name, as "#rrggbb", or three numbers from 0 to 255.

        Returns:
            (S, S, 3) uint8, RGB.

        Raises:
            OptionError: no such color.

        >>> Drawn(np.zeros((1, 1, 4), np.uint8)).on("#0a141e").tolist()
        [[[10, 20, 30]]]
        """
        color = np.array(find_color(background), np.float64)
        alpha = self.rgba[:, :, 3:] / 255
        shown = self.rgba[:, :, :3] * alpha + color * (1 - alpha)
        return np.rint(shown).astype(np.uint8)

    def save(
        self,
        path: str | Path,
        background: str | Sequence[int] | None = None,
        *,
        scale: int = 1,
    ) -> Path:
        """Write the object as PNG or JPEG, whole or not at all.

        Args:
            path: ending in .png, .jpg or .jpeg.
            background: a color, as of `on`. Without one a PNG is transparent where the mask is 0,
                and a JPEG is white there.
            scale: how many times as large as it was drawn.

        Raises:
            OptionError: another suffix, no such color, or a scale below 1.

        >>> import tempfile
        >>> drawn = Drawn(np.full((8, 8, 4), 255, np.uint8))
        >>> drawn.save(Path(tempfile.mkdtemp()) / "chair.png").name
        'chair.png'
        """
        path = Path(path)
        if path.suffix.lower() not in _SUFFIXES:
            raise OptionError(f"got the path {path}; images end in {', '.join(_SUFFIXES)}")
        if background is None and path.suffix.lower() != ".png":
            background = "white"
        pixels = self.rgba if background is None else self.on(background)
        image = Image.fromarray(enlarge(pixels, scale))
        with atomic(path) as temporary:  # PNG takes no notice of the two options
            image.save(temporary, quality=92, subsampling=0)
        return path


def postprocess(rgb: Tensor, mask: Tensor, notes: Sequence[str] = ()) -> list[Drawn]:
    """What a network gives, as images: both are clipped to 0 to 1.

    Args:
        rgb: (N, 3, S, S), any range.
        mask: (N, C, S, S), any range; of several channels, which the published network trains to
            be the same, the mean is taken after clipping.
        notes: one an image, or none.

    Raises:
        ImageError: values that are not finite.

    Dosovitskiy, Springenberg, Brox 2015; display as in the authors' `generate_pics.m`.

    >>> postprocess(torch.ones(1, 3, 2, 2) * 2, -torch.ones(1, 1, 2, 2))[0].rgba[0, 0].tolist()
    [255, 255, 255, 0]
    """
    values = clipped(rgb, mask).detach().float().cpu().numpy()
    if not np.isfinite(values).all():
        raise ImageError("the network gave values that are not finite; its weights are damaged")
    pixels = np.rint(values * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return [Drawn(np.ascontiguousarray(p), notes[i] if notes else "") for i, p in enumerate(pixels)]


def clipped(rgb: Tensor, mask: Tensor) -> Tensor:
    """Both within 0 and 1, (N, 4, S, S), the mask as one channel; as of `postprocess`."""
    return torch.cat([rgb.clamp(0, 1), mask.clamp(0, 1).mean(1, keepdim=True)], 1)


def enlarge(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """An image some whole number of times as large, bicubic; what is transparent lends no color.

    Args:
        image: (H, W, 3) or (H, W, 4) uint8, the fourth being alpha.
        scale: how many times, from 1.

    Raises:
        OptionError: a scale below 1.

    >>> enlarge(np.zeros((2, 3, 3), np.uint8), 2).shape
    (4, 6, 3)
    """
    if scale < 1:
        raise OptionError(f"got scale={scale}; wanted 1 or more")
    height, width = image.shape[:2]
    side = scale * width, scale * height
    return np.array(Image.fromarray(image).resize(side, Image.Resampling.BICUBIC))


def find_color(color: str | Sequence[int]) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a color by its name, as "#rrggbb", or in numbers.

    Raises:
        OptionError: no such color.

    >>> find_color("white"), find_color((1, 2, 3))
    ((255, 255, 255), (1, 2, 3))
    """
    try:
        values = ImageColor.getrgb(color) if isinstance(color, str) else tuple(map(int, color))
    except (TypeError, ValueError):
        values = ()
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise OptionError(
            f"got the color {color!r}; wanted a name such as white, or #rrggbb, such as #f0f0f0"
        )
    return values
