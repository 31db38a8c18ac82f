"""Read and write images and masks.

An image in memory is an (H, W, 3) uint8 array, RGB, upright; a mask is an (H, W) array of class
indices. Reading is strict: a file is read completely and as a viewer shows it, or an `ImageError`
says why not. Color profiles are not applied.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unpool.errors import ImageError, ShapeError, require_path
from unpool.files import write_bytes
from unpool.limits import MAX_PIXELS
from unpool.vision.opening import SUFFIXES as SUFFIXES
from unpool.vision.opening import Readable
from unpool.vision.opening import open_image as open_image
from unpool.vision.tiff import DeepImage, white_is_zero
from unpool.vision.upright import orientation, stored_numbers, upright, upright_size

Pixels: TypeAlias = NDArray[np.uint8]
"""An image, (H, W, 3) RGB unless said otherwise, or class ids, (H, W)."""

Labels: TypeAlias = NDArray[np.integer]

MAX_JPEG_SIDE = 65_500
"""Pixels of a side of a JPEG, at most, by libjpeg."""

LUMA = 0.299, 0.587, 0.114
"""The weights of red, green and blue in the luminance of a color."""

VOID = 255
"""The id of pixels that training and evaluation ignore."""

_COLOR_CODED = (
    "as a color-coded mask does, wanted class indices 0 to 255; map each color to the index "
    "of its class and save an index PNG with write_mask"
)


def read_image(source: Readable, *, max_pixels: int = MAX_PIXELS, animated: bool = False) -> Pixels:
    """Read an image as a viewer shows it: upright, RGB, on white.

    Transparent pixels are composited over white. Of values of 16 bits the upper 8 are kept; where
    none is above 4095 and the file does not state its bits, those of 12 (10, 8), with a warning.
    Larger integers and floating-point values have no known range and are refused. The image of a
    TIFF is its only page that is not a reduced copy of another.

    Args:
        source: a path, the bytes of a file, or a binary file, read from its position.
        max_pixels: the largest number of pixels to decode, checked in the header. Pillow's own
            limit, twice `PIL.Image.MAX_IMAGE_PIXELS`, stays in force, and formats that need more
            memory for a pixel have lower ones.
        animated: read the first frame or page of a file with several, rather than refuse it.

    Raises:
        ImageError: the file is missing, broken, truncated, too large, or not an image.

    >>> file = io.BytesIO()
    >>> Image.new("RGBA", (3, 2), (255, 0, 0, 0)).save(file, "PNG")
    >>> image = read_image(file.getvalue())
    >>> image.shape, image[0, 0].tolist()
    ((2, 3, 3), [255, 255, 255])
    """
    with open_image(source, max_pixels, animated) as im:
        return upright(im)


def read_mask(source: Readable) -> Pixels:
    """Read class indices, (H, W): the indices (not the colors) of an index PNG, or gray values.

    The file is of mode P, L, 1 (read as 0 and 1), 16-bit gray, floating-point with whole numbers,
    or in 8-bit color with equal bands, as some programs save gray. Gray of 2 or 4 bits gives its
    numbers, not the gray values that a viewer shows.

    Raises:
        ImageError: the file cannot be read, has colors or values above 255, is a JPEG, or has an
            EXIF rotation.

    >>> file = io.BytesIO()
    >>> Image.fromarray(np.array([[0, 15], [255, 0]], np.uint8)).save(file, "PNG")
    >>> read_mask(file.getvalue()).tolist()
    [[0, 15], [255, 0]]
    """
    with open_mask(source) as im:
        if im.mode in ("P", "L", "1", "F") or im.mode.startswith("I"):
            labels = stored_numbers(im)
        elif (gray := _equal_bands(im)) is not None:
            labels = gray
        else:
            raise ImageError(f"has mode {im.mode}, {_COLOR_CODED}")
        low, high = labels.min(), labels.max()
        if low < 0 or high > 255:
            raise ImageError(f"holds values from {low} to {high}, {_COLOR_CODED}")
        return labels.astype(np.uint8)


def _equal_bands(im: Image.Image) -> Pixels | None:
    """The gray values of an opaque image in 8-bit color whose bands are equal; None for others."""
    deep = any(";16" in str(tile[3]) for tile in getattr(im, "tile", []))
    deep = deep or isinstance(im, DeepImage)
    if im.mode not in ("RGB", "RGBA", "LA") or deep:
        return None
    first, *others = im.getbands()
    if im.mode != "RGB" and im.getchannel(others.pop()).getextrema() != (255, 255):
        return None
    gray = np.array(im.getchannel(first))
    equal = all(np.array_equal(gray, np.asarray(im.getchannel(band))) for band in others)
    return gray if equal else None


@contextmanager
def open_mask(source: Readable) -> Iterator[Image.Image]:
    """Open a mask like `open_image`; refuse what other tools may read as other ids."""
    with open_image(source, MAX_PIXELS, animated=False) as im:
        if (turn := orientation(im)) != 1:
            raise ImageError(
                f"carries EXIF orientation {turn}, which tools treat differently, wanted "
                "a mask stored upright; turn its pixels and save it without EXIF"
            )
        if im.format in ("JPEG", "MPO", "JPEG2000"):
            raise ImageError("is a JPEG, which alters class indices; save masks as PNG")
        if im.mode != "1" and white_is_zero(im):
            raise ImageError(
                "is a TIFF in which 0 is white, so that tools read its numbers differently; "
                "save class indices as PNG"
            )
        yield im


def image_size(source: Readable) -> tuple[int, int]:
    """The height and width of an upright image, read from its header.

    Raises:
        ImageError: the file is missing, too large, or not an image.

    >>> file = io.BytesIO()
    >>> Image.new("RGB", (3, 2)).save(file, "PNG")
    >>> image_size(file.getvalue())
    (2, 3)
    """
    with open_image(source, MAX_PIXELS) as im:
        return upright_size(im)


def read_orientation(source: Readable) -> int:
    """The EXIF orientation in the header of an image file, from 1, upright, to 8."""
    with open_image(source, MAX_PIXELS) as im:
        return orientation(im)


def voc_palette() -> Pixels:
    """The colors of PASCAL VOC, (256, 3) uint8, RGB; 0 is black and 255 (void) is cream.

    Every three bits of a class id, from the lowest, give the next lower bits of R, G and B.

    >>> voc_palette()[[0, 1, 15, 255]].tolist()
    [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]
    """
    classes = np.arange(256)[:, None]
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        palette |= ((classes >> 3 * bit + np.arange(3) & 1) << 7 - bit).astype(np.uint8)
    return palette


def write_mask(path: str | os.PathLike[str], labels: Labels, palette: Pixels | None = None) -> None:
    """Write class indices as an 8-bit index PNG with a palette, atomically.

    Args:
        path: the file, ending in `.png`.
        labels: class indices 0 to 255, (H, W), of any integer type.
        palette: colors of the first K classes, (K, 3) uint8, RGB; then those of `voc_palette`.

    Raises:
        ImageError, ShapeError: suffix, labels or palette are none of these.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/mask.png"
    >>> write_mask(path, np.array([[0, 255]]))
    >>> read_mask(path).tolist()
    [[0, 255]]
    """
    _check_suffix(path, ".png")
    write_bytes(path, encode_mask(labels, palette))


def encode_mask(labels: Labels, palette: Pixels | None = None) -> bytes:
    """The bytes of the file that `write_mask` writes.

    >>> read_mask(encode_mask(np.array([[0, 255]]))).tolist()
    [[0, 255]]
    """
    return encode_image(indexed_image(labels, palette))


def write_image(path: str | os.PathLike[str], image: Pixels) -> None:
    """Write an image as JPEG (quality 92, no chroma subsampling) or PNG, atomically.

    Raises:
        ImageError: the suffix is not `.jpg`, `.jpeg` or `.png`, or a JPEG exceeds 65500 pixels.
        ShapeError: the array is not (H, W, 3) uint8.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/gray.jpg"
    >>> write_image(path, np.full((2, 3, 3), 128, np.uint8))
    >>> image_size(path)
    (2, 3)
    """
    check_image(image)
    _check_suffix(path, ".png", ".jpg", ".jpeg")
    suffix = Path(path).suffix
    if max(image.shape) > MAX_JPEG_SIDE and suffix.lower() != ".png":
        got = f"got an image of {image.shape[1]} x {image.shape[0]} pixels for {path}"
        raise ImageError(f"{got}; a JPEG has at most {MAX_JPEG_SIDE} a side: write .png")
    write_bytes(path, encode_image(Image.fromarray(image), suffix))


def encode_image(im: Image.Image, suffix: str = ".png") -> bytes:
    """An image of Pillow as the bytes of a PNG, or of a JPEG without chroma subsampling."""
    file = io.BytesIO()
    if suffix.lower() == ".png":
        im.save(file, "PNG")
    else:
        im.save(file, "JPEG", quality=92, subsampling=0)
    return file.getvalue()


def encode_png(image: Pixels) -> bytes:
    """An image, (H, W, 3) or (H, W, 4) uint8, as the bytes of a PNG file, for notebooks.

    >>> image_size(encode_png(np.zeros((2, 3, 3), np.uint8)))
    (2, 3)
    """
    return encode_image(Image.fromarray(image))


def indexed_image(labels: Labels, palette: Pixels | None) -> Image.Image:
    """Labels as an image of mode P, with the given colors and then those of VOC."""
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer) or not labels.size:
        got = f"got labels of shape {labels.shape} and type {labels.dtype}"
        raise ShapeError(f"{got}; wanted (H, W) of an integer type, not empty")
    low, high = labels.min(), labels.max()
    if low < 0 or high > 255:
        raise ImageError(f"got labels from {low} to {high}; wanted class indices 0 to 255")
    colors = voc_palette()
    if palette is not None:
        if palette.shape != (len(palette), 3) or len(palette) > 256 or palette.dtype != np.uint8:
            got = f"got a palette of shape {palette.shape} and type {palette.dtype}"
            raise ShapeError(f"{got}; wanted (K, 3) uint8, RGB, with K to 256")
        colors[: len(palette)] = palette
    im = Image.fromarray(labels.astype(np.uint8))
    im.putpalette(colors.tobytes())
    return im


def check_image(image: Pixels) -> None:
    """Raise a `ShapeError` unless the image is (H, W, 3) uint8."""
    if not isinstance(image, np.ndarray):
        got = f"got a {type(image).__name__} for an image"
    elif image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        got = f"got an image of shape {image.shape} and type {image.dtype}"
    else:
        return
    raise ShapeError(f"{got}; wanted (H, W, 3) uint8, RGB, not empty: use unpool.read_image")


def _check_suffix(path: str | os.PathLike[str], *suffixes: str) -> None:
    suffix = require_path("path", path).suffix.lower()
    if suffix not in suffixes:
        got = f"{path}: cannot be written as {suffix or 'a file without suffix'!r}"
        raise ImageError(f"{got}; give a name that ends in {' or '.join(suffixes)}")
