"""Folders of images without labels, for training."""

from collections.abc import Sequence
from pathlib import Path

from unpool.errors import DataError, ImageError
from unpool.limits import MAX_SIDE
from unpool.vision.images import image_size
from unpool.vision.sources import find_images


def find_training_images(folder: Path, side: int, long_side: int = MAX_SIDE) -> list[Path]:
    """Find the images in a folder, sorted, and read their headers.

    Args:
        folder: searched recursively.
        side: smallest height and width that images must have after reduction.
        long_side: see `reduced_size`.

    Raises:
        DataError: the folder does not exist, or an image is too small or unreadable.
    """
    if not folder.is_dir():
        raise DataError(f"got data {folder}, which is not a folder; wanted a folder of images")
    try:
        found = [source.path for source in find_images([str(folder)]).sources if source.path]
        for path in found:
            height, width = image_size(path)
            if min(reduced_size((height, width), long_side)) < side:
                raise DataError(
                    f"got {path} of {width} x {height} pixels; crops need {side} in both "
                    "directions: remove it, or set a smaller crop"
                )
    except ImageError as error:
        raise DataError(str(error)) from None
    return found


def reduced_size(shape: Sequence[int], long_side: int) -> tuple[int, int]:
    """The height and width of an image whose longer side is reduced to `long_side`, if larger.

    >>> reduced_size((20, 30), 15)
    (10, 15)
    """
    scale = min(1.0, long_side / max(shape))
    height, width = (max(round(side * scale), 1) for side in shape)
    return height, width


def hold_out(images: Sequence[Path], count: int) -> tuple[list[Path], list[Path]]:
    """Images to train on, and `count` evenly spaced ones to validate on, a quarter at most.

    >>> hold_out([Path(name) for name in "abcdefgh"], 2)[1]
    [PosixPath('a'), PosixPath('e')]
    """
    count = min(count, len(images) // 4)
    held = {i * len(images) // count for i in range(count)}
    train = [path for i, path in enumerate(images) if i not in held]
    return train, [images[i] for i in sorted(held)]
