"""Read and write the samples and metadata of PNG (8 and 16 bits) and JPEG files."""

import io
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from unpool.errors import ImageError
from unpool.vision.quiet import without_stderr

if TYPE_CHECKING:
    from unpool.vision.samples import Samples

_KEPT_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"pHYs", b"tEXt", b"zTXt", b"iTXt")


def read_png(content: bytes, im: Image.Image, deep: bool) -> tuple["Samples", int]:
    """Read the samples of a PNG, and whether the last channel is opacity (2) or not (0)."""
    if not deep:
        clear = im.has_transparency_data
        gray = im.mode in ("L", "LA", "1")
        mode = ("LA" if gray else "RGBA") if clear else ("L" if gray else "RGB")
        return np.array(im.convert(mode)), 2 * clear
    im.load()  # Pillow raises errors where OpenCV only prints them
    with without_stderr():
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise ImageError("is a PNG of 16 bits that cannot be decoded; save it anew")
    if values.ndim == 3:
        values = values[..., [2, 1, 0, 3][: values.shape[2]]]
    return values, 2 * (values.ndim == 3 and values.shape[2] == 4)


def meaning_chunks(content: bytes) -> bytes:
    """The chunks of a PNG that describe its color space and resolution, and its texts."""
    kept, at = b"", 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        if content[at + 4 : at + 8] in _KEPT_CHUNKS:
            kept += content[at : at + 12 + length]
        at += 12 + length
    return kept


def encoded(values: "Samples", suffix: str, extras: Mapping[str, Any]) -> bytes:
    """Encode a PNG with the `chunks` of `extras`, or a JPEG with `extras` as Pillow options."""
    values = values[..., 0] if values.shape[2] == 1 else values
    file = io.BytesIO()
    if suffix == ".jpg":
        more = {key: value for key, value in extras.items() if value}
        Image.fromarray(values).save(file, "JPEG", quality=95, subsampling=0, **more)
        return file.getvalue()
    if values.dtype == np.uint16:
        if values.ndim == 3:
            values = values[..., [2, 1, 0, 3][: values.shape[2]]]
        _, found = cv2.imencode(".png", values)
        content = found.tobytes()
    else:
        Image.fromarray(values).save(file, "PNG")
        content = file.getvalue()
    header = 8 + 25  # the signature and the first chunk
    return content[:header] + extras.get("chunks", b"") + content[header:]
