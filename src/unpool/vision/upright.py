"""Images of Pillow, of any mode, as a viewer shows them; and the numbers that a mask holds."""

import os
import re
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from unpool.errors import ImageError
from unpool.limits import MAX_IMAGE_MEMORY, MAX_JPEG_WORK, MIB
from unpool.vision.depths import significant_bits, to_bytes
from unpool.vision.tiff import DeepImage, deepened, is_signed

TURNS = {  # EXIF orientation -> axes exchanged, rows reversed, columns reversed, as stored
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
_UPRIGHT = (False, False, False)

_TOGETHER = 2**20  # pixels that are converted at a time, so that intermediate images stay small


def upright(im: Image.Image) -> NDArray[np.uint8]:
    """A Pillow image of any mode as a viewer shows it; an `ImageError` if its range is unknown."""
    im = deepened(im)
    exchanged, *reversed_ = _turn(im)
    im = _decoded(im)
    bits = _bits(im)
    height, width = im.height, im.width
    shown = np.empty((width, height, 3) if exchanged else (height, width, 3), np.uint8)
    stored = shown.swapaxes(0, 1) if exchanged else shown
    stored = stored[tuple(slice(None, None, -1 if back else 1) for back in reversed_)]
    rows = max(1, _TOGETHER // width)
    for top in range(0, height, rows):
        block = im.crop((0, top, width, min(top + rows, height)))
        stored[top : top + rows] = np.asarray(to_rgb(block, bits))
    return shown


def upright_size(im: Image.Image) -> tuple[int, int]:
    """The height and width of an image as a viewer shows it."""
    return im.size if _turn(im)[0] else (im.height, im.width)


def orientation(im: Image.Image) -> int:
    """The EXIF orientation, without decoding the pixels."""
    try:
        # im.getexif() would decode the pixels of a PNG
        value = Image.Image.getexif(im).get(ExifTags.Base.Orientation)
    except Exception:  # viewers ignore broken EXIF
        return 1
    return value if value in TURNS else 1


def stored_numbers(im: Image.Image) -> NDArray[Any]:
    """The numbers that a gray or index image holds, (H, W), which Pillow scales in part."""
    _, codec, rawmode, most = _storage(im)
    if codec == "ppm":
        return _netpbm(im, most)[..., 0]
    im.load()
    numbers = np.array(im)
    if im.mode == "F":
        whole = np.clip(np.nan_to_num(numbers, nan=0.5), -1, 2**16).astype(np.int64)
        if not (whole == numbers).all():
            raise ImageError("holds floating-point values, wanted class indices 0 to 255; round "
                             "them and save an index PNG with write_mask")  # fmt: skip
        return whole
    if codec == "ppm_plain" and im.mode != "1":
        return np.rint(numbers * (most / (255 if im.mode == "L" else 65535))).astype(np.int64)
    if bits := re.match("L;([24])", rawmode):
        return numbers // (255 // (2 ** int(bits[1]) - 1))
    return numbers.view(np.int8) if numbers.dtype == np.uint8 and is_signed(im) else numbers


def to_rgb(im: Image.Image, bits: int = 16) -> Image.Image:
    """An image of any mode but F on white; `bits` are the significant ones of its integers."""
    if im.mode.startswith("I"):
        values = np.asarray(im)
        gray = (values >> bits - 8).astype(np.uint8)  # Pillow's own conversion saturates
        if "white is zero" in im.info:
            gray = 255 - gray
        if "transparency" in im.info:
            gray[values == im.info["transparency"]] = 255
        return Image.fromarray(gray).convert("RGB")
    if im.mode == "La":
        im = im.convert("LA")
    if im.has_transparency_data:
        im = im.convert("RGBA")
        im = Image.alpha_composite(Image.new("RGBA", im.size, "white"), im)
    return im.convert("RGB")


def _turn(im: Image.Image) -> tuple[bool, bool, bool]:
    """How the upright image is stored; a TIFF is turned by Pillow."""
    return _UPRIGHT if im.format == "TIFF" else TURNS.get(orientation(im), _UPRIGHT)


def _storage(im: Image.Image) -> tuple[Any, str, str, int]:
    """The file of an image that is not decoded, its decoder, mode in the file, and largest value.

    Empty where Pillow does not say.
    """
    if not (tiles := getattr(im, "tile", None)):
        return None, "", "", 0
    args = tiles[0].args if isinstance(tiles[0].args, tuple) else (tiles[0].args,)
    most = args[1] if len(args) == 2 and isinstance(args[1], int) else 0
    return getattr(im, "fp", None), tiles[0].codec_name, str(args[0] if args else ""), most


def _decoded(im: Image.Image) -> Image.Image:
    """The image with its pixels, 8 bits of each color; gray may keep 16."""
    file, codec, rawmode, most = _storage(im)
    if codec == "ppm":
        table = np.full(2**16, 255, np.uint8)
        table[:most] = np.rint(np.arange(most) * (255 / most))
        return Image.fromarray(table[_netpbm(im, most)].squeeze(2 if im.mode != "RGB" else ()))
    if im.format in ("JPEG", "MPO") and file:
        _require_few_scans(im, file)
    im.load()
    if im.format == "PNG" and rawmode in ("RGB;16B", "RGBA;16B", "LA;16B") and not file.closed:
        colors = len(im.getbands()) - (im.mode[-1] == "A")
        limits = np.reshape(im.getextrema(), (-1, 2))[:colors]
        if limits.max() < 16 and "transparency" not in im.info:
            return _deep_png(im, file)
    return im


def _require_few_scans(im: Image.Image, file: Any) -> None:
    """Raise an `ImageError` for a JPEG that takes too long, before it is decoded."""
    place = file.tell()
    file.seek(0)
    scans = sum(part.count(b"\xff\xda") for part in iter(lambda: file.read(MIB), b""))
    file.seek(place)
    if im.width * im.height * scans > MAX_JPEG_WORK:
        raise ImageError(f"is a JPEG of {scans} scans, which take too long; save it anew")


def _deep_png(im: Image.Image, file: Any) -> Image.Image:
    """A color PNG of 16 bits, the upper ones of which are zero: Pillow keeps no others."""
    if im.width * im.height * 16 > MAX_IMAGE_MEMORY:
        raise ImageError("uses few of its 16 bits and is too large; reduce it to 8 bits")
    file.seek(0)
    words = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if words is None or words.dtype != np.uint16 or words.shape[:2] != (im.height, im.width):
        raise ImageError("uses few of its 16 bits and cannot be decoded; reduce it to 8 bits")
    pixels = to_bytes(words.astype(np.uint16, copy=False), 3)
    return Image.fromarray(pixels[..., [2, 1, 0, 3][: words.shape[2]]])


def _netpbm(im: Image.Image, most: int) -> NDArray[Any]:
    """The numbers of a binary PGM or PPM, (H, W, C), which Pillow decodes one by one in Python."""
    file, *_ = _storage(im)
    file.seek(im.tile[0].offset, os.SEEK_SET)  # type: ignore[attr-defined]
    bands = len(im.getbands())
    kind = np.dtype(">u2" if most > 255 else "u1")
    content = file.read(im.height * im.width * bands * kind.itemsize)
    return np.frombuffer(content, kind).reshape(im.height, im.width, bands)


def _bits(im: Image.Image) -> int:
    """The significant bits of an image of integers."""
    if im.mode == "F":
        raise ImageError("holds floating-point values; scale them to 0 to 255 and save 8 bits")
    if not im.mode.startswith("I"):
        if is_signed(im) and np.max(im.getextrema()) > 127:
            raise ImageError("holds integers below 0; scale them to 0 to 255 and save 8 bits")
        return 8
    values = np.asarray(im)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 0xFFFF:
        raise ImageError(
            f"holds integers from {low} to {high}, wanted 8 or 16 bits; scale them to 0 to 255 "
            "and save 8 bits"
        )
    guess = im.format in ("PNG", "TIFF", DeepImage.format)
    return significant_bits(high, im.info.get("bits", None if guess else 16))
