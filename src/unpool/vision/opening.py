"""Open image files: what is read, from where, and how much; failures become an `ImageError`.

The decoders are those of the formats below, which run in this process. None starts a program, as
Pillow does for EPS.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TypeAlias

from PIL import Image, UnidentifiedImageError

from unpool.errors import ImageError
from unpool.files import require_regular
from unpool.limits import MAX_IMAGE_MEMORY, MAX_IMAGE_STREAM, MIB
from unpool.vision.quiet import without_warnings
from unpool.vision.tiff import MAGIC, SEVERAL, DeepImage, open_tiff

Readable: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO

FORMATS = {  # Pillow's names and the file suffixes; no other decoder is used
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe", ".jif", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c"),
}

BY_NAME = {"TGA": (".tga",), "PCX": (".pcx",), "SGI": (".sgi", ".rgb", ".bw")}
"""Formats that other content looks like: only files with these suffixes are tried as such."""

SUFFIXES = tuple(s for table in (FORMATS, BY_NAME) for suffixes in table.values() for s in suffixes)
"""The suffixes of image files, lower case."""

_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# of several: the MPO of a phone is one photo with a depth map or second view; see open_tiff
_ONE_IMAGE = ("MPO", "TIFF")


@contextmanager
def open_image(source: Readable, max_pixels: int, animated: bool = True) -> Iterator[Image.Image]:
    """Open an image lazily; failures here and in the body become an ImageError.

    Args:
        source: see `unpool.vision.images.read_image`.
        max_pixels: the largest number of pixels to accept.
        animated: accept files of several frames or pages, and give the first.
    """
    name, suffix = getattr(source, "name", "image"), ""
    if isinstance(source, str | os.PathLike):
        name = require_regular(source, ImageError)
        suffix = name.suffix.lower()
    try:
        with without_warnings(), _stream(source) as file, _open(file, animated, suffix) as im:
            pixels, most = im.width * im.height, max_pixels
            if pixels <= most:
                most = min(most, MAX_IMAGE_MEMORY // _cost(im))
            if pixels > most:
                size = f"{im.width} x {im.height} pixels, at most {most} are read"
                raise Image.DecompressionBombError(size)
            if not animated and im.format not in _ONE_IMAGE and getattr(im, "is_animated", False):
                raise ImageError(SEVERAL)
            yield im
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except Warning:  # ours, where the caller makes them errors
        raise
    except Exception as error:  # Pillow's decoders raise nearly every type for broken files
        raise ImageError(f"{name}: {_cure(error)}") from error


def _cost(im: Image.Image) -> int:
    """Bytes of memory for a pixel, measured, to decode an image and to convert it to RGB."""
    if isinstance(im, DeepImage):
        return im.cost
    bands = len(im.getbands())
    match im.format:
        case "JPEG" | "MPO" if "progressive" in im.info:  # all coefficients are kept
            return max(8, 5 + 2 * bands)
        case "JPEG2000":
            return 5 + 5 * bands
        case "WEBP" | "AVIF":
            return 16
        case _:
            return 8


def _open(file: io.BufferedReader, animated: bool, suffix: str) -> Image.Image:
    head = file.peek(16)[:16]
    if not head:
        raise ImageError("is empty (0 bytes); copy or download it again")
    if head.startswith(MAGIC):
        return open_tiff(file, animated)
    if head.startswith(b"RIFF") or head[4:8] == b"ftyp":  # Pillow reads WebP and AVIF as a whole
        if file.seek(0, os.SEEK_END) > MAX_IMAGE_STREAM:
            raise ImageError(f"has more than {MAX_IMAGE_STREAM} bytes; convert it to PNG")
        file.seek(0)
    try:
        more = [kind for kind, suffixes in BY_NAME.items() if suffix in suffixes]
        return Image.open(file, formats=(*FORMATS, *more))
    except UnidentifiedImageError:
        if head[4:8] == b"ftyp" and head[8:12] in _HEIF:
            raise ImageError("is a HEIC photo, which is not read; convert it to JPEG") from None
        raise


class _Stream(io.BufferedReader):
    """A file from which no more memory is asked than it has bytes, whatever a header says."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MIB:
            at = self.tell()
            size = min(size, max(0, self.seek(0, os.SEEK_END) - at))
            self.seek(at)
        return super().read(size)


def _stream(source: Readable) -> io.BufferedReader:
    if isinstance(source, str | os.PathLike):
        return _Stream(io.FileIO(source))
    if isinstance(source, bytes):
        return _Stream(io.BytesIO(source))
    content, left = io.BytesIO(), MAX_IMAGE_STREAM + 1
    while left and (part := source.read(min(left, MIB))):
        content.write(part)
        left -= len(part)
    if not left:
        raise ImageError(f"has more than {MAX_IMAGE_STREAM} bytes; name the file instead")
    content.seek(0)
    return _Stream(content)


def _cure(error: Exception) -> str:
    match error:
        case PermissionError():
            return "may not be read; change its permissions"
        case UnidentifiedImageError():
            return f"is not an image of a known format ({', '.join(FORMATS)}); convert it to PNG"
        case Image.DecompressionBombError():
            return f"is too large by its header ({error}); scale it down or cut it into parts"
        case _:
            return f"is broken or cut short ({error}); copy or download it again"
