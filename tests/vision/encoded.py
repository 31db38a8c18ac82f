"""Small images, and files of them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
PHOTO = np.kron(RNG.integers(0, 256, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def encode(im: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    (im if isinstance(im, Image.Image) else Image.fromarray(im)).save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, color: int, data: bytes, *chunks: bytes) -> bytes:
    """A PNG written by hand: what Pillow does not write, or would not."""

    def chunk(body: bytes) -> bytes:
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))

    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    bodies = [header, *chunks, b"IDAT" + zlib.compress(data), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, bodies))


def image(mode: str, *pixels: object, **info: object) -> Image.Image:
    im = Image.new(mode, (len(pixels), 1))
    if "palette" in info:
        im.putpalette(info["palette"])
    for x, value in enumerate(pixels):
        im.putpixel((x, 0), value)
    return im


ENCODED = {
    "JPEG": encode(PHOTO, "JPEG"),
    "JPEG progressive": encode(PHOTO, "JPEG", progressive=True),
    "PNG": encode(PHOTO),
    "GIF": encode(PHOTO, "GIF"),
    "BMP": encode(PHOTO, "BMP"),
    "TIFF": encode(PHOTO, "TIFF"),
    "TIFF deflate": encode(PHOTO, "TIFF", compression="tiff_adobe_deflate"),
    "WEBP": encode(PHOTO, "WEBP"),
    "PPM": encode(PHOTO, "PPM"),
}


def with_orientation(array: np.ndarray, orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    return encode(np.ascontiguousarray(array), kind, exif=exif, **options.get(kind, {}))
