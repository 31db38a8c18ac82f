"""Generated images: RGB and a mask, composited, saved, and written as animations."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import Tensor

from unpool.errors import ImageError, OptionError, ShapeError, require_int, require_path
from unpool.files import write_bytes
from unpool.vision.images import Pixels, encode_image, encode_png
from unpool.vision.video import write_video

_IMAGES = (".png", ".jpg", ".jpeg")
_ANIMATIONS = (".gif", ".webp", ".mp4")
_SAMPLED = 32  # frames from which the palette of a GIF is computed


@dataclass(frozen=True)
class GeneratedImage:
    """An image from a `Generator`. A notebook shows it with a transparent background."""

    rgba: Pixels  #: (S, S, 4) uint8: straight RGB (not premultiplied), and the mask as alpha
    note: str = ""  #: what of the request lies beyond the training data, such as the elevation

    def __repr__(self) -> str:
        side = self.rgba.shape[0]
        return f"GeneratedImage({side} x {side}{', ' * bool(self.note)}{self.note})"

    def _repr_png_(self) -> bytes:
        return encode_png(self.rgba)

    def on(self, background: str | Sequence[int] = "white") -> Pixels:
        """Composite onto a background, as the authors do: rgb * m + background * (1 - m).

        Args:
            background: a color by its name, as "#rrggbb", or as three numbers from 0 to 255.

        Returns:
            (S, S, 3) uint8, RGB.

        >>> GeneratedImage(np.zeros((1, 1, 4), np.uint8)).on("#0a141e").tolist()
        [[[10, 20, 30]]]
        """
        color = np.array(parse_color(background), np.float64)
        alpha = self.rgba[:, :, 3:] / 255
        shown = self.rgba[:, :, :3] * alpha + color * (1 - alpha)
        return np.rint(shown).astype(np.uint8)

    def save(
        self, path: str | Path, background: str | Sequence[int] | None = None, *, scale: int = 1
    ) -> Path:
        """Write a PNG or JPEG file, atomically.

        Args:
            path: ending in .png, .jpg or .jpeg.
            background: a color, as for `on`. By default a PNG is transparent where the mask is 0,
                and a JPEG is white there.
            scale: factor by which the image is enlarged.

        Raises:
            OptionError: another suffix, no such color, or a scale below 1.
        """
        path = require_path("path", path)
        if path.suffix.lower() not in _IMAGES:
            raise OptionError(f"got the path {path}; images end in {', '.join(_IMAGES)}")
        write_bytes(path, self.encode(path.suffix, background, scale=scale))
        return path

    def encode(
        self, suffix: str = ".png", background: str | Sequence[int] | None = None, scale: int = 1
    ) -> bytes:
        """The bytes of the file that `save` writes; the suffix is .png, .jpg or .jpeg.

        >>> GeneratedImage(np.zeros((1, 1, 4), np.uint8)).encode()[1:4]
        b'PNG'
        """
        if background is None and suffix.lower() != ".png":
            background = "white"
        pixels = self.rgba if background is None else self.on(background)
        return encode_image(Image.fromarray(enlarge(pixels, scale)), suffix)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the size, the fraction of the image inside the mask, and the note."""
        height, width = self.rgba.shape[:2]
        inside = float((self.rgba[:, :, 3] > 127).mean())
        return {"size": [width, height], "mask_fraction": inside, "note": self.note}


def postprocess(rgb: Tensor, mask: Tensor, notes: Sequence[str] = ()) -> list[GeneratedImage]:
    """Turn the outputs of the network into images, clipped to 0..1.

    Args:
        rgb: (N, 3, S, S), any range.
        mask: (N, C, S, S), any range. The published network trains several equal channels; their
            mean is taken after clipping.
        notes: one per image, or none.

    Raises:
        ImageError: values that are not finite.

    Dosovitskiy, Springenberg & Brox 2015; display as in the authors' `generate_pics.m`.

    >>> postprocess(torch.ones(1, 3, 2, 2) * 2, -torch.ones(1, 1, 2, 2))[0].rgba[0, 0].tolist()
    [255, 255, 255, 0]
    """
    values = clipped(rgb, mask).detach().float().cpu().numpy()
    if not np.isfinite(values).all():
        raise ImageError("the output is not finite: the weights are damaged; copy them again")
    pixels = np.ascontiguousarray(np.rint(values * 255).astype(np.uint8).transpose(0, 2, 3, 1))
    pairs = zip(pixels, notes or [""] * len(pixels), strict=True)
    return [GeneratedImage(image, note) for image, note in pairs]


def clipped(rgb: Tensor, mask: Tensor) -> Tensor:
    """RGB and mask clipped to 0..1, (N, 4, S, S), the mask as one channel; see `postprocess`."""
    return torch.cat([rgb.clamp(0, 1), mask.clamp(0, 1).mean(1, keepdim=True)], 1)


def write_animation(
    path: str | Path, frames: Sequence[Pixels], *, fps: float = 15.0, scale: int = 1
) -> Path:
    """Write images as an animation, atomically.

    A GIF loops forever. All its frames share one palette of 256 colors, without dithering, so that
    static parts do not flicker; GIF durations are hundredths of a second, so few values of `fps`
    are exact. A WebP loops, too, in all colors. An MP4 is H.264, see `unpool.vision.video`.

    Args:
        path: ending in .gif, .webp or .mp4.
        frames: two or more, each (H, W, 3) uint8, RGB, of one size.
        fps: frames per second, at most 50.
        scale: factor by which frames are enlarged.

    Raises:
        OptionError: another suffix, a rate or scale out of bounds, or an MP4 without PyAV.
        ShapeError: fewer than two frames, or frames of other or different shapes.

    >>> import tempfile
    >>> frames = [np.full((16, 16, 3), v, np.uint8) for v in (0, 128, 255)]
    >>> write_animation(Path(tempfile.mkdtemp()) / "steps.gif", frames).name
    'steps.gif'
    """
    path = require_path("path", path)
    if path.suffix.lower() not in _ANIMATIONS:
        raise OptionError(f"got the path {path}; animations end in {', '.join(_ANIMATIONS)}")
    if path.suffix.lower() == ".mp4":
        enlarged = _checked(frames, fps, scale)
        with write_video(path, fps) as write:
            for frame in enlarged:
                write(frame)
    else:
        write_bytes(path, encode_animation(path.suffix, frames, fps=fps, scale=scale))
    return path


def encode_animation(
    suffix: str, frames: Sequence[Pixels], *, fps: float = 15.0, scale: int = 1
) -> bytes:
    """The bytes of the GIF or WebP file that `write_animation` writes.

    >>> frames = [np.full((16, 16, 3), v, np.uint8) for v in (0, 255)]
    >>> encode_animation(".gif", frames)[:6]
    b'GIF89a'
    """
    images = [Image.fromarray(frame) for frame in _checked(frames, fps, scale)]
    content = io.BytesIO()
    (_write_gif if suffix.lower() == ".gif" else _write_webp)(content, images, fps)
    return content.getvalue()


def _checked(frames: Sequence[Pixels], fps: float, scale: int) -> list[Pixels]:
    """The frames, enlarged."""
    if not 0 < fps <= 50:
        raise OptionError(f"got fps={fps:g}; wanted more than 0, at most 50")
    shapes = sorted({frame.shape for frame in frames})
    if len(frames) < 2 or len(shapes) > 1 or len(shapes[0]) != 3 or shapes[0][2] != 3:
        raise ShapeError(f"got {len(frames)} frames of {shapes}; wanted two or more, all (H, W, 3)")
    return [enlarge(frame, scale) for frame in frames]


def enlarge(image: Pixels, scale: int) -> Pixels:
    """Enlarge an image, (H, W, 3) RGB or (H, W, 4) RGBA, by a whole factor, bicubic.

    Transparent pixels do not bleed their color.

    >>> enlarge(np.zeros((2, 3, 3), np.uint8), 2).shape
    (4, 6, 3)
    """
    require_int("scale", scale)
    height, width = image.shape[:2]
    side = scale * width, scale * height
    return np.array(Image.fromarray(image).resize(side, Image.Resampling.BICUBIC))


def parse_color(color: str | Sequence[int]) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a color given by its name, as "#rrggbb", or in numbers.

    >>> parse_color("white"), parse_color((1, 2, 3))
    ((255, 255, 255), (1, 2, 3))
    """
    try:
        values = ImageColor.getrgb(color) if isinstance(color, str) else tuple(map(int, color))
    except (TypeError, ValueError):
        values = ()
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise OptionError(f"got the color {color!r}; wanted a name such as white, or #rrggbb")
    return values


def _write_gif(file: io.BytesIO, images: list[Image.Image], fps: float) -> None:
    sample = images[:: -(-len(images) // _SAMPLED)]
    sheet = np.concatenate([np.asarray(image) for image in sample])
    palette = Image.fromarray(sheet).quantize(256, dither=Image.Dither.NONE)
    first, *rest = (image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images)
    duration = max(round(100 / fps), 2) * 10  # ms; viewers slow down frames below 20
    first.save(file, "GIF", save_all=True, append_images=rest, duration=duration, loop=0)


def _write_webp(file: io.BytesIO, images: list[Image.Image], fps: float) -> None:
    first, *rest = images
    duration = round(1000 / fps)  # ms
    options = {"append_images": rest, "duration": duration, "loop": 0, "quality": 92}
    first.save(file, "WEBP", save_all=True, **options)
