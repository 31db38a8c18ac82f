"""Read and write the samples and tags of TIFF pages without loss.

Unlike `unpool.vision.images`, which reads images with 8 bits, as a viewer shows them, nothing is
rounded here.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unpool.errors import ImageError
from unpool.files import atomic
from unpool.limits import GIB, MAX_TEXT
from unpool.vision.tiff import LOSSLESS, Page, SilentTiff, decompressed, find_segments

Samples: TypeAlias = NDArray[Any]
"""The samples of a page, (H, W, C), of any numeric type."""


class Tag(NamedTuple):
    """A tag as stored in a file, little-endian."""

    kind: int  #: type of the values, see `_SIZES`
    length: int  #: number of values
    data: bytes


Tags: TypeAlias = Mapping[int, Tag]

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 16: 8, 17: 8}
_PAIRS = (5, 10)  # rational numbers
_STORAGE = {  # tags on the storage of pixels, and offsets of other directories
    *range(254, 260), 262, 266, 273, 274, *range(277, 280), 280, 284, 288, 289, 292, 293, 317,
    320, *range(322, 326), 330, 332, 333, 336, 338, 339, 340, 341, 347, *range(512, 533),
    34665, 34853, 40965,
}  # fmt: skip
_STRIP = 2**18  # bytes of a written strip
_KINDS = {1: "u", 2: "i", 3: "f"}


# ---- reading -------------------------------------------------------------------------------------


def read_samples(file: IO[bytes], page: Page) -> Samples:
    """The samples of a page, (H, W, C); packed ones of 9 to 15 bits become uint16.

    Raises:
        ImageError: lossy compression of other than 8 bits, or an unsupported type.
    """
    dtype = sample_type(page)
    bands, bits = page.get(277, 1), page.bits
    height, width = page.get(257, 0), page.get(256, 0)
    values = np.zeros((height, width, bands), dtype.newbyteorder("="))
    found = find_segments(page)
    depth = found.depth
    places = [(y, x) for y in range(0, height, found.rows) for x in range(0, width, found.columns)]
    for number, (start, length) in enumerate(zip(found.offsets, found.lengths, strict=False)):
        plane, place = divmod(number, len(places))
        if plane * depth >= bands:
            break
        y, x = places[place]
        rows = found.rows if found.tiled else min(found.rows, height - y)
        file.seek(start)
        data = file.read(min(length, 2 * found.rows * found.row_bytes + 65536))
        raw = decompressed([data], page, found.row_bytes, found.rows, rows)
        block = _unpacked(raw, page, dtype, bits, found.columns, depth)
        target = values[y : y + rows, x : x + found.columns, plane * depth : (plane + 1) * depth]
        target[...] = block[: target.shape[0], : target.shape[1]]
    return values


def sample_type(page: Page) -> np.dtype[Any]:
    """The dtype of a page, in its byte order; raises an `ImageError` for unsupported types."""
    bits, kind = page.bits, _KINDS.get(page.get(339, 1), "")
    if len(set(page.tags.get(258, (1,)))) > 1 or page.get(259, 1) not in LOSSLESS or not kind:
        raise ImageError(f"holds samples of a kind that is not kept ({_about(page)}); {_CURE}")
    if 8 < bits < 16 and kind == "u":
        return np.dtype(np.uint16)
    if bits not in ((16, 32, 64) if kind == "f" else (8, 16, 32)):
        raise ImageError(f"holds samples of a kind that is not kept ({_about(page)}); {_CURE}")
    order = ">" if page.order == ">" else "<"
    return np.dtype(f"{order}{kind}{bits // 8}")


_CURE = "save them as 8 or 16 bits, or as floating point, without lossy compression"


def _about(page: Page) -> str:
    kinds = page.tags.get(258, (1,))
    return f"bits {kinds}, format {page.get(339, 1)}, compression {page.get(259, 1)}"


def _unpacked(
    raw: NDArray[np.uint8], page: Page, dtype: np.dtype[Any], bits: int, columns: int, depth: int
) -> Samples:
    """Convert the bytes of a strip or tile to samples, (rows, columns, depth)."""
    rows, count = len(raw), columns * depth
    predictor = page.get(317, 1)
    if predictor == 3:  # floating point: bytes are grouped by significance, as differences
        size = dtype.itemsize
        raw = np.cumsum(raw[:, : count * size].reshape(rows, -1, depth), 1, np.uint8)
        planes = raw.reshape(rows, size, count).transpose(0, 2, 1)
        return np.ascontiguousarray(planes).view(dtype.newbyteorder(">")).reshape(rows, -1, depth)
    if bits % 8:
        ones = np.unpackbits(raw, axis=1)[:, : count * bits].reshape(rows, count, bits)
        values: Samples = np.asarray(ones @ (1 << np.arange(bits)[::-1]), np.uint16)
    else:
        values = np.ascontiguousarray(raw[:, : count * dtype.itemsize]).view(dtype)
    values = values.reshape(rows, columns, depth).astype(dtype.newbyteorder("="), copy=False)
    if predictor == 2:
        return np.cumsum(values, axis=1, dtype=values.dtype)
    return values


def decoded(file: IO[bytes], number: int, mode: str) -> Samples:
    """Decode an 8-bit page by Pillow, which handles JPEG and palettes, in one of its modes."""
    file.seek(0)
    with SilentTiff(file) as im:
        im.seek(number)
        values = np.array(im.convert(mode))
    return values if values.ndim == 3 else values[..., None]


def read_tags(file: IO[bytes], page: Page) -> dict[int, Tag]:
    """Read all tags of a page that do not describe its storage."""
    big = len(page.head) == 16
    order, (entry, field) = page.order, ("HHQ8s", 8) if big else ("HHI4s", 4)
    file.seek(page.offset)
    (count,) = struct.unpack(order + "QH"[not big], file.read(8 if big else 2))
    size = struct.calcsize(order + entry)
    entries = [struct.unpack(order + entry, file.read(size)) for _ in range(count)]
    tags = {}
    for tag, kind, length, data in entries:
        if tag in _STORAGE or kind not in _SIZES:
            continue
        values = length * (2 if kind in _PAIRS else 1)
        total = values * _SIZES[kind]
        if total > MAX_TEXT:
            continue
        if total > field:
            file.seek(struct.unpack(order + "QI"[not big], data)[0])
            data = file.read(total)
        numbers = np.frombuffer(data[:total], f"{order}u{_SIZES[kind]}")
        tags[tag] = Tag(kind, length, numbers.astype(f"<u{_SIZES[kind]}").tobytes())
    return tags


# ---- writing -------------------------------------------------------------------------------------


class Layout(NamedTuple):
    """How the samples of a page are written."""

    tags: Tags  #: tags to copy
    bits: int  #: bits of a sample; packed if not a multiple of 8
    photometric: int  #: 1 gray, 2 RGB
    alpha: int  #: the last sample: 0 a color, 1 premultiplied alpha, 2 alpha
    compressed: bool


def write_tiff(
    path: str | os.PathLike[str], pages: Iterable[Samples], layouts: Sequence[Layout], size: int
) -> None:
    """Write pages, (H, W, C) each, one at a time and atomically; see `write_pages`."""
    with atomic(path) as temporary, Path(temporary).open("wb") as file:
        write_pages(file, pages, layouts, size)


def write_pages(
    file: IO[bytes], pages: Iterable[Samples], layouts: Sequence[Layout], size: int
) -> None:
    """Write a TIFF, page by page.

    Args:
        file: an empty binary file.
        pages: the samples of the pages, (H, W, C) each.
        layouts: the layout of each page.
        size: bytes of all samples; from 4 GiB, the file is a BigTIFF.
    """
    big = size > 4 * GIB - 2**26
    offset = "<Q" if big else "<I"
    file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if big else b"II*\0\0\0\0\0")
    link = 8 if big else 4  # position at which to write the offset of the next page
    for values, layout in zip(pages, layouts, strict=True):
        tags = {**layout.tags, **_storage(file, values, layout, "QI"[not big])}
        at = file.tell() + file.tell() % 2
        file.seek(link)
        file.write(struct.pack(offset, at))
        file.seek(at)
        link = _write_directory(file, tags, big)
        file.seek(0, os.SEEK_END)


def _storage(file: IO[bytes], values: Samples, layout: Layout, code: str) -> dict[int, Tag]:
    """Write the strips of a page; return the tags that describe their storage."""
    height, width, bands = values.shape
    row = _packed(values[:1], layout.bits)
    rows = max(1, _STRIP // max(len(row), 1))
    places, lengths = [], []
    for top in range(0, height, rows):
        data = _packed(values[top : top + rows], layout.bits)
        data = zlib.compress(data, 6) if layout.compressed else data
        places.append(file.tell())
        lengths.append(file.write(data))
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = {
        256: _tag("I", width), 257: _tag("I", height), 258: _tag("H", *[layout.bits] * bands),
        259: _tag("H", 8 if layout.compressed else 1), 262: _tag("H", layout.photometric),
        273: _tag(code, *places), 277: _tag("H", bands), 278: _tag("I", rows),
        279: _tag(code, *lengths), 284: _tag("H", 1), 339: _tag("H", *[kind] * bands),
    }  # fmt: skip
    colors = 3 if layout.photometric == 2 else 1
    if bands > colors:
        tags[338] = _tag("H", *[0] * (bands - colors - 1), layout.alpha)
    return tags


def _packed(values: Samples, bits: int) -> bytes:
    """Pack samples to bytes; each row starts at a byte boundary."""
    if bits % 8 == 0:
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    ones = values.reshape(len(values), -1, 1) >> np.arange(bits, dtype=np.uint16)[::-1] & 1
    return np.packbits(ones.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def _tag(code: str, *values: int) -> Tag:
    kind = {"H": 3, "I": 4, "Q": 16}[code]
    return Tag(kind, len(values), struct.pack(f"<{len(values)}{code}", *values))


def _write_directory(file: IO[bytes], tags: Tags, big: bool) -> int:
    """Write the tags of a page; return the position of the offset of the next page."""
    field, count, entry = (8, "<Q", "<HHQ") if big else (4, "<H", "<HHI")
    start = file.tell() + struct.calcsize(count)
    end = start + len(tags) * (struct.calcsize(entry) + field) + field
    entries, more = b"", b""
    for tag, (kind, length, data) in sorted(tags.items()):
        if len(data) > field:
            where = end + len(more)
            more += data + bytes(len(data) % 2)
            data = struct.pack("<Q" if big else "<I", where)
        entries += struct.pack(entry, tag, kind, length) + data.ljust(field, b"\0")
    file.write(struct.pack(count, len(tags)) + entries + bytes(field) + more)
    return end - field
