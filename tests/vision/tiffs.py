"""TIFFs written by hand: layouts and compressions that Pillow and tifffile do not write."""

import struct
import zlib

import numpy as np

COMPRESSIONS = {"none": 1, "lzw": 5, "deflate": 8, "packbits": 32773}
Tags = dict[int, list[int]]


def lzw(data: bytes) -> bytes:
    """Codes of 9 bits only: the table is cleared before it needs more."""
    codes = [256]
    for i, byte in enumerate(data, 1):
        codes += [byte, 256] if i % 250 == 0 else [byte]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def packbits(data: bytes) -> bytes:
    """Literal runs only."""
    parts = [data[i : i + 128] for i in range(0, len(data), 128)]
    return b"".join(bytes([len(part) - 1]) + part for part in parts)


ENCODERS = {"none": bytes, "lzw": lzw, "deflate": zlib.compress, "packbits": packbits}


def directory(order: str, tags: Tags, offset: int, following: int = 0) -> bytes:
    entries, more = b"", b""
    lists = offset + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        data = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            data, more = struct.pack(order + "I", lists + len(more)), more + data
        entries += struct.pack(order + "HHI", tag, 4, len(values)) + data
    return (
        struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", following) + more
    )


def packed(samples: np.ndarray, order: str, bits: int) -> bytes:
    """Samples, (H, W, C), as bytes; each row begins with a new one."""
    if bits in (8, 16):
        return samples.astype(np.dtype(f"u{bits // 8}").newbyteorder(order)).tobytes()
    rows = samples.reshape(len(samples), -1, 1) >> np.arange(bits)[::-1] & 1
    return np.packbits(rows.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def tiff(
    samples: np.ndarray,
    *,
    order: str = "<",
    bits: int = 0,
    planar: bool = False,
    tile: tuple[int, int] | None = None,
    compression: str = "none",
    predictor: bool = False,
    rows: int = 7,
    tags: Tags | None = None,
) -> bytes:
    """A TIFF of samples, (H, W, C), in strips of some rows or in tiles (H, W)."""
    height, width, bands = samples.shape
    bits = bits or 8 * samples.dtype.itemsize
    parts = []
    for plane in np.split(samples, bands, axis=2) if planar else [samples]:
        if tile:
            h, w = tile
            padded = np.pad(plane, ((0, -height % h), (0, -width % w), (0, 0)), "edge")
            parts += [padded[y : y + h, x : x + w] for y in range(0, height, h)
                      for x in range(0, width, w)]  # fmt: skip
        else:
            parts += [plane[y : y + rows] for y in range(0, height, rows)]
    if predictor:
        parts = [np.diff(p, axis=1, prepend=p.dtype.type(0)) for p in parts]
    segments = [ENCODERS[compression](packed(part, order, bits)) for part in parts]
    starts = np.cumsum([8, *map(len, segments)]).tolist()
    all_tags = {
        256: [width], 257: [height], 258: [bits] * bands, 259: [COMPRESSIONS[compression]],
        262: [2 if bands > 2 else 1], 277: [bands], 284: [1 + planar], 317: [1 + predictor],
    }  # fmt: skip
    lengths = [len(segment) for segment in segments]
    if tile:
        all_tags |= {322: [tile[1]], 323: [tile[0]], 324: starts[:-1], 325: lengths}
    else:
        all_tags |= {273: starts[:-1], 278: [rows], 279: lengths}
    if bands in (2, 4):
        all_tags[338] = [2]
    magic = b"II" if order == "<" else b"MM"
    head = magic + struct.pack(order + "HI", 42, starts[-1])
    pages = directory(order, all_tags | (tags or {}), starts[-1])
    return head + b"".join(segments) + pages
