"""Write images as an animation, GIF or MP4."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from unpool.errors import OptionError, ShapeError
from unpool.files import atomic
from unpool.generate.result import enlarge
from unpool.vision.images import Pixels

ANIMATIONS = (".gif", ".mp4")
"""Suffixes of animation files."""

_SAMPLED = 32  # frames from which the palette of a GIF is computed


def write_animation(
    path: str | Path, frames: Sequence[Pixels], *, fps: float = 15.0, scale: int = 1
) -> Path:
    """Write images as an animation, atomically.

    A GIF loops forever. All its frames share one palette of 256 colors, without dithering, so that
    static parts do not flicker; GIF durations are hundredths of a second, so few values of `fps`
    are exact. An MP4 is MPEG-4 part 2 (`mp4v`), which players show and most browsers do not.

    Args:
        path: ending in .gif or .mp4.
        frames: two or more, each (H, W, 3) uint8, RGB, of one size.
        fps: frames per second, at most 50.
        scale: factor by which frames are enlarged.

    Raises:
        OptionError: another suffix, a rate or scale out of bounds, or no encoder for MP4.
        ShapeError: fewer than two frames, or frames of other or different shapes.

    >>> import tempfile
    >>> frames = [np.full((16, 16, 3), v, np.uint8) for v in (0, 128, 255)]
    >>> write_animation(Path(tempfile.mkdtemp()) / "steps.gif", frames).name
    'steps.gif'
    """
    path = Path(path)
    if path.suffix.lower() not in ANIMATIONS:
        raise OptionError(f"got the path {path}; animations end in {' or '.join(ANIMATIONS)}")
    if not 0 < fps <= 50:
        raise OptionError(f"got fps={fps:g}; wanted more than 0, at most 50")
    shapes = sorted({frame.shape for frame in frames})
    if len(frames) < 2 or len(shapes) > 1 or len(shapes[0]) != 3 or shapes[0][2] != 3:
        raise ShapeError(
            f"got {len(frames)} frames of {shapes}; wanted two or more (H, W, 3) of one size"
        )
    images = [Image.fromarray(enlarge(frame, scale)) for frame in frames]
    with atomic(path) as temporary:
        write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
        write(temporary, images, fps)
    return path


def _write_gif(path: Path, images: list[Image.Image], fps: float) -> None:
    sample = images[:: -(-len(images) // _SAMPLED)]
    sheet = np.concatenate([np.asarray(image) for image in sample])
    palette = Image.fromarray(sheet).quantize(256, dither=Image.Dither.NONE)
    indexed = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    duration = max(round(100 / fps), 2) * 10
    first, *rest = indexed
    first.save(path, save_all=True, append_images=rest, duration=duration, loop=0)


def _write_mp4(path: Path, images: list[Image.Image], fps: float) -> None:
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), code, fps, images[0].size)
    if not writer.isOpened():
        raise OptionError(
            f"got the path {path.name}, but this build of OpenCV has no MP4 encoder; write a .gif"
        )
    try:
        for image in images:
            writer.write(np.asarray(image)[:, :, ::-1].copy())
    finally:
        writer.release()
