"""Read and write images and masks.

An image in memory is an (H, W, 3) uint8 array, RGB, upright; a mask is an (H, W) array of class
indices. Reading is strict: a file is read completely and as a viewer shows it, or an `ImageError`
says why not. Color profiles are not applied.
"""

import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.Image import Transpose

from unpool.errors import ImageError, ShapeError, require_path
from unpool.files import atomic
from unpool.limits import MAX_PIXELS

Readable: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO
Pixels: TypeAlias = NDArray[np.uint8]
"""An image, (H, W, 3) RGB unless said otherwise, or class ids, (H, W)."""

Labels: TypeAlias = NDArray[np.integer]

VOID = 255
"""The id of pixels that training and evaluation ignore."""

FORMATS = {  # Pillow's names and the file suffixes; no other decoder is used
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}

_TURNS = {  # EXIF orientation -> the operation that makes the image upright
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SIDEWAYS = [_TURNS[n] for n in range(5, 9)]

_lock, _reading = threading.Lock(), 0  # the number of files open in all threads
_IGNORED = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)  # as in warnings.filters

_COLOR_CODED = (
    "as a color-coded mask does, wanted class indices 0 to 255; map each color to the index "
    "of its class and save an index PNG with write_mask"
)


def read_image(source: Readable, *, max_pixels: int = MAX_PIXELS, animated: bool = False) -> Pixels:
    """Read an image as a viewer shows it: upright, RGB, on white.

    Transparent pixels are composited over white. 16-bit values are reduced to their high byte;
    larger integers and floating-point values have no known range and are refused.

    Args:
        source: a path, the bytes of a file, or a binary file, read from its position.
        max_pixels: the largest number of pixels to decode, checked in the header. Pillow's own
            limit, twice `PIL.Image.MAX_IMAGE_PIXELS`, stays in force.
        animated: read the first frame or page of a file with several, rather than refuse it.

    Raises:
        ImageError: the file is missing, broken, truncated, too large, or not an image.

    >>> file = io.BytesIO()
    >>> Image.new("RGBA", (3, 2), (255, 0, 0, 0)).save(file, "PNG")
    >>> image = read_image(file.getvalue())
    >>> image.shape, image[0, 0].tolist()
    ((2, 3, 3), [255, 255, 255])
    """
    with open_image(source, max_pixels) as im:
        if not animated:
            _refuse_frames(im)
        return upright(im)


def upright(im: Image.Image) -> Pixels:
    """A Pillow image of any mode as a viewer shows it; an `ImageError` if its range is unknown."""
    turn = _turn(im)
    im.load()
    rgb = _to_rgb(im)
    return np.array(rgb if turn is None else rgb.transpose(turn))


def read_mask(source: Readable) -> Pixels:
    """Read class indices, (H, W): the indices (not the colors) of an index PNG, or gray values.

    The file is of mode P, L, 1 (read as 0 and 1) or 16-bit gray.

    Raises:
        ImageError: the file cannot be read, has colors or values above 255, is a JPEG, or has an
            EXIF rotation.

    >>> file = io.BytesIO()
    >>> Image.fromarray(np.array([[0, 15], [255, 0]], np.uint8)).save(file, "PNG")
    >>> read_mask(file.getvalue()).tolist()
    [[0, 15], [255, 0]]
    """
    with open_mask(source) as im:
        if im.mode not in ("P", "L", "1") and not im.mode.startswith("I"):
            raise ImageError(f"has mode {im.mode}, {_COLOR_CODED}")
        im.load()
        labels = np.array(im)
        low, high = labels.min(), labels.max()
        if low < 0 or high > 255:
            raise ImageError(f"holds values from {low} to {high}, {_COLOR_CODED}")
        return labels.astype(np.uint8)


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
        return im.size if _turn(im) in _SIDEWAYS else (im.height, im.width)


def read_orientation(source: Readable) -> int:
    """The EXIF orientation in the header of an image file, from 1, upright, to 8."""
    with open_image(source, MAX_PIXELS) as im:
        return _orientation(im)


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
    >>> path = Path(tempfile.mkdtemp()) / "mask.png"
    >>> write_mask(path, np.array([[0, 255]]))
    >>> read_mask(path).tolist()
    [[0, 255]]
    """
    _check_suffix(path, ".png")
    im = indexed_image(labels, palette)
    with atomic(path) as temporary:
        im.save(temporary)


def write_image(path: str | os.PathLike[str], image: Pixels) -> None:
    """Write an image as JPEG (quality 92, no chroma subsampling) or PNG, atomically.

    Raises:
        ImageError: the suffix is not `.jpg`, `.jpeg` or `.png`, or a JPEG exceeds 65500 pixels.
        ShapeError: the array is not (H, W, 3) uint8.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "gray.jpg"
    >>> write_image(path, np.full((2, 3, 3), 128, np.uint8))
    >>> image_size(path)
    (2, 3)
    """
    check_image(image)
    _check_suffix(path, *([".png"] if max(image.shape) > 65500 else [".png", ".jpg", ".jpeg"]))
    with atomic(path) as temporary:
        # PNG ignores the two options
        Image.fromarray(image).save(temporary, quality=92, subsampling=0)


def encode_png(image: Pixels) -> bytes:
    """An image, (H, W, 3) or (H, W, 4) uint8, as the bytes of a PNG file, for notebooks.

    >>> image_size(encode_png(np.zeros((2, 3, 3), np.uint8)))
    (2, 3)
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@contextmanager
def open_image(source: Readable, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image file lazily; failures here and in the body become an `ImageError`."""
    name = source if isinstance(source, str | os.PathLike) else getattr(source, "name", "image")
    try:
        with _quiet(), _stream(source) as file:
            if not file.peek(1):
                raise ImageError("is empty (0 bytes); copy or download it again")
            with Image.open(file, formats=tuple(FORMATS)) as im:
                if im.width * im.height > max_pixels:
                    size = f"{im.width} x {im.height} pixels, at most {max_pixels} are read"
                    raise Image.DecompressionBombError(size)
                yield im
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except Exception as error:  # Pillow's decoders raise nearly every type for broken files
        raise ImageError(f"{name}: {_cure(error)}") from error


@contextmanager
def open_mask(source: Readable) -> Iterator[Image.Image]:
    """Open a mask like `open_image`; refuse frames, EXIF rotation, and JPEG, which alters ids."""
    with open_image(source, MAX_PIXELS) as im:
        _refuse_frames(im)
        if (orientation := _orientation(im)) != 1:
            raise ImageError(
                f"carries EXIF orientation {orientation}, which tools treat differently, wanted "
                "a mask stored upright; turn its pixels and save it without EXIF"
            )
        if im.format in ("JPEG", "MPO"):
            raise ImageError("is a JPEG, which alters class indices; save masks as PNG")
        yield im


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore Pillow's warnings (odd metadata; sizes, checked here) while any thread reads.

    `warnings.catch_warnings` is not thread-safe: all threads share one list of filters, so one
    could restore it while another still needs its filter, or keep that filter forever.
    """
    global _reading
    with _lock:
        _reading += 1
        if _IGNORED not in warnings.filters:
            warnings.filterwarnings("ignore", module=_IGNORED[3].pattern)
    try:
        yield
    finally:
        with _lock:
            _reading -= 1
            if not _reading and _IGNORED in warnings.filters:
                warnings.filters.remove(_IGNORED)  # type: ignore[attr-defined]


def _stream(source: Readable) -> io.BufferedReader:
    if isinstance(source, str | os.PathLike):
        return Path(source).open("rb")
    return io.BufferedReader(io.BytesIO(source if isinstance(source, bytes) else source.read()))


def _cure(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "does not exist; check the path"
        case IsADirectoryError():
            return "is a folder, wanted an image; name a file in it"
        case PermissionError():
            return "may not be read; change its permissions"
        case UnidentifiedImageError():
            return f"is not an image of a known format ({', '.join(FORMATS)}); convert it to PNG"
        case Image.DecompressionBombError():
            return f"is too large by its header ({error}); scale it down or cut it into parts"
        case _:
            return f"is broken or cut short ({error}); copy or download it again"


def _refuse_frames(im: Image.Image) -> None:
    # the MPO of a phone is one photo with a depth map or second view
    if im.format != "MPO" and getattr(im, "is_animated", False):
        raise ImageError("has several frames or pages, wanted one image; extract the one to use")


def _orientation(im: Image.Image) -> int:
    """The EXIF orientation, without decoding the pixels."""
    try:
        # im.getexif() would decode the pixels of a PNG
        value = Image.Image.getexif(im).get(ExifTags.Base.Orientation)
    except Exception:  # viewers ignore broken EXIF
        return 1
    return value if value in _TURNS else 1


def _turn(im: Image.Image) -> Transpose | None:
    """The operation that makes an image upright; None if it is, or if Pillow does it (TIFF)."""
    return None if im.format == "TIFF" else _TURNS.get(_orientation(im))


def _to_rgb(im: Image.Image) -> Image.Image:
    if im.mode == "F":
        raise ImageError("holds floating-point values; scale them to 0 to 255 and save 8 bits")
    if im.mode.startswith("I"):
        values = np.asarray(im)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ImageError(
                f"holds integers from {values.min()} to {values.max()}, wanted 8 or 16 bits; "
                "scale them to 0 to 255 and save 8 bits"
            )
        gray = (values >> 8).astype(np.uint8)  # Pillow's own conversion saturates
        if "transparency" in im.info:
            gray[values == im.info["transparency"]] = 255
        return Image.fromarray(gray).convert("RGB")
    if im.mode == "La":
        im = im.convert("LA")
    if im.has_transparency_data:
        im = im.convert("RGBA")
        im = Image.alpha_composite(Image.new("RGBA", im.size, "white"), im)
    return im.convert("RGB")


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
