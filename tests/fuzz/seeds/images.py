"""Valid images and masks."""

import struct
import zlib

import numpy as np
from PIL import Image

from tests.fuzz.containers import png_chunk
from tests.fuzz.seeds.common import LABELS, PHOTO, Files, index_png, saved


def images() -> list[Files]:
    """Every format and many kinds of pixels."""
    rgb = Image.fromarray(PHOTO)
    rgba, gray, index = rgb.convert("RGBA"), rgb.convert("L"), rgb.quantize(16)
    deep = Image.fromarray(PHOTO[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[274], exif[305] = 6, "camera"
    found = {
        "png": [saved(im, "PNG") for im in (rgb, rgba, gray, index, deep, gray.convert("1"))],
        "jpg": [
            saved(rgb, "JPEG", exif=exif),
            saved(gray, "JPEG", progressive=True),
            saved(rgb.convert("CMYK"), "JPEG"),
        ],
        "gif": [saved(index, "GIF"), saved(index, "GIF", save_all=True, append_images=[index])],
        "bmp": [saved(im, "BMP") for im in (rgb, gray, index, rgba)],
        "webp": [saved(rgb, "WEBP", exif=exif), saved(rgba, "WEBP", lossless=True)],
        "ppm": [saved(rgb, "PPM"), b"P3\n# a\n2 2 255\n" + b"1 2 3 " * 4, b"P1 2 2 0 1 1 0"],
        "pgm": [b"P5 3 2 65535 " + bytes(12), b"P2 3 2 99 " + b"7 " * 6],
        "tga": [saved(im, "TGA") for im in (rgb, rgba, gray, index)],
        "pcx": [saved(im, "PCX") for im in (rgb, gray, index)],
        "sgi": [saved(rgb, "SGI"), saved(rgb, "SGI", bpc=2)],
        "tif": [
            *(saved(im, "TIFF") for im in (rgb, rgba, gray, index, deep)),
            *(saved(rgb, "TIFF", compression=f"tiff_{c}") for c in ("lzw", "adobe_deflate")),
            saved(rgb, "TIFF", compression="jpeg"),
            saved(gray.convert("1"), "TIFF", compression="group4"),
            saved(rgb, "TIFF", save_all=True, append_images=[rgb]),
            *(tiff(order, bits, planes) for order in "<>" for bits in (8, 16) for planes in (1, 2)),
            tiff("<", 16, 2, tiled=True),
            tiff("<", 16, 1, samples=1),
        ],
    }
    files = [{f"a.{kind}": content} for kind, contents in found.items() for content in contents]
    for kind, name in (("AVIF", "a.avif"), ("JPEG2000", "a.jp2")):
        if kind in Image.SAVE or (Image.init() and kind in Image.SAVE):
            files.append({name: saved(rgb, kind)})
    return files


def tiff(order: str, bits: int, planes: int, samples: int = 3, tiled: bool = False) -> bytes:
    """An uncompressed TIFF of 16 x 16 pixels in either byte order, chunky (1) or planar (2)."""
    pixel = np.arange(256 * samples).reshape(16, 16, samples) * (2 ** (bits - 8)) % 2**bits
    values = pixel.astype(f"{order}u{bits // 8}")
    parts = (
        [values.tobytes()] if planes == 1 else [values[..., i].tobytes() for i in range(samples)]
    )
    head, data = 8, b"".join(parts)
    more = head + len(data)  # values that do not fit into an entry
    offsets = [head + sum(map(len, parts[:i])) for i in range(len(parts))]
    counts = [len(part) for part in parts]
    entries = [
        *((256, 4, [16]), (257, 4, [16]), (258, 3, [bits] * samples), (259, 3, [1])),
        *((262, 3, [2 if samples == 3 else 1]), (277, 3, [samples]), (284, 3, [planes])),
    ]
    if tiled:
        entries += [(322, 4, [16]), (323, 4, [16]), (324, 4, offsets), (325, 4, counts)]
    else:
        entries += [(273, 4, offsets), (278, 4, [16]), (279, 4, counts)]
    directory, extra = b"", b""
    for tag, kind, numbers in sorted(entries):
        content = struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(content) > 4:
            content, extra = struct.pack(f"{order}I", more + len(extra)), extra + content
        directory += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + content.ljust(4, b"\0")
    start = more + len(extra)
    magic = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    count = struct.pack(f"{order}H", len(entries))
    return magic + data + extra + count + directory + bytes(4)


def masks() -> list[Files]:
    """Masks of class ids in every mode and format."""
    gray = Image.fromarray(LABELS)
    small = zlib.compress(b"".join(b"\0" + bytes([0x01, 0x23]) for _ in range(4)))
    nibbles = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 4, 0, 0, 0, 0))
    nibbles = b"\x89PNG\r\n\x1a\n" + nibbles + png_chunk(b"IDAT", small) + png_chunk(b"IEND", b"")
    found = [
        ("png", index_png(LABELS)),
        ("png", saved(gray, "PNG")),
        ("png", saved(Image.fromarray(LABELS.astype(np.uint16)), "PNG")),
        ("png", saved(Image.fromarray(LABELS > 0), "PNG")),
        ("png", nibbles),
        ("bmp", saved(gray, "BMP")),
        ("gif", saved(gray, "GIF")),
        ("tif", saved(gray, "TIFF", compression="tiff_lzw")),
        ("tif", saved(Image.fromarray(LABELS.astype(np.int32)), "TIFF")),
    ]
    return [{f"a.{kind}": content} for kind, content in found]
