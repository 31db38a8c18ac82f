"""TIFF files: which page is the image, and samples of more than 8 bits.

Pillow reduces such colors to their high byte, in which little is left of 12 bits, and reads them
wrong where the bands are stored one after the other. So they are read here: the strips or tiles are
given to Pillow as rows of a gray image of bytes, which leaves the decompression to libtiff.
"""

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from unpool.errors import ImageError
from unpool.limits import MAX_PIXELS, MAX_TIFF_SEGMENT, MAX_TIFF_TAGS
from unpool.vision.depths import to_bytes
from unpool.vision.quiet import without_stderr

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

Words = NDArray[np.uint16]

SEVERAL = "has several frames or pages, wanted one image; extract the one to use"

_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # types of tags: unsigned integers
_NEW_SUBFILE, _SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION = 254, 255, 256, 257, 258, 259
_PHOTOMETRIC, _FILL_ORDER, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP = 262, 266, 274, 277, 278
_MAX_VALUE, _PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT = 281, 284, 317, 322, 323
_SUBIFDS, _EXTRA, _FORMAT = 330, 338, 339
_STRIPS, _TILES = (273, 279), (324, 325)  # offsets and numbers of bytes
_NAMED = {*range(254, 260), 262, 266, 274, 277, 278, 281, 284, 317, 322, 323, 330, 338, 339}
_READ = _NAMED | {*_STRIPS, *_TILES}

_TOGETHER = 2**22  # bytes of strips or tiles that are decompressed at a time

LOSSLESS = {1, 5, 8, 32773, 32946, 34925, 50000}  # none, LZW, deflate, PackBits, LZMA, Zstandard
_MODES = {  # photometric interpretation, samples of colors and alpha -> the modes of Pillow
    (0, 1): "L", (0, 2): "LA", (1, 1): "L", (1, 2): "LA", (2, 3): "RGB", (2, 4): "RGBA",
    (5, 4): "CMYK",
}  # fmt: skip
_COLORS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}


class Page(NamedTuple):
    """The tags of a page, those that say how its pixels are stored."""

    head: bytes  #: of the file
    offset: int  #: of all its tags
    order: str  #: of bytes, as in `struct`
    tags: Mapping[int, tuple[int, ...]]

    def get(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        return (self.tags.get(tag) or (default,))[0]

    @property
    def reduced(self) -> bool:
        """Whether it is a smaller copy of another page, or its transparency mask."""
        return bool(self.get(_NEW_SUBFILE, 0) & 5) or self.get(_SUBFILE, 0) == 2

    @property
    def bits(self) -> int:
        """Bits of a sample, the most of all bands."""
        return max(self.tags.get(_BITS, (1,)))


def open_tiff(file: IO[bytes], animated: bool = False) -> Image.Image:
    """The image of a TIFF, not decoded yet: its only page that is no smaller copy of another.

    Args:
        file: a file that can seek.
        animated: take the first page of several.

    Raises:
        ImageError: there are several pages, or the samples are of a kind that is not read.
    """
    pages = read_pages(file)
    if pages[0].head[:4] == b"MM\0+":  # which Pillow takes for another kind
        raise ImageError("is a big-endian BigTIFF, which is not read; save it as TIFF")
    full = [number for number, page in enumerate(pages) if not page.reduced]
    if not full and (len(pages) > 1 or _SUBIFDS in pages[0].tags):
        raise ImageError("holds previews only, as a raw file does; develop it, and save 8-bit RGB")
    if len(full) > 1 and not animated:
        raise ImageError(SEVERAL)
    number = full[0] if full else 0
    page = pages[number]
    _require_known(page)
    if _is_deep(page):
        return DeepImage(file, page)
    file.seek(0)
    try:
        im = SilentTiff(file)
        im.seek(number)
    except SyntaxError:
        raise ImageError(_unknown(page)) from None
    return im


def deepened(im: Image.Image) -> Image.Image:
    """The image, or if it is a TIFF that Pillow would not read rightly, one that does."""
    if im.format != "TIFF" or not getattr(im, "tile", None):
        return im
    file: IO[bytes] = im.fp  # type: ignore[attr-defined]
    page = read_pages(file)[im.tell()]
    return DeepImage(file, page) if _is_deep(page) else im


def white_is_zero(im: Image.Image) -> bool:
    """Whether an image is a TIFF in which 0 is white."""
    return getattr(im, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def is_signed(im: Image.Image) -> bool:
    """Whether an image is a TIFF of integers below and above zero."""
    return 2 in np.ravel(getattr(im, "tag_v2", {}).get(_FORMAT, 1))


def _is_deep(page: Page) -> bool:
    bits = page.tags.get(_BITS, (1,))
    return 8 < min(bits) == max(bits) <= 16 and page.get(_FORMAT, 1) in (1, 4)


def _unknown(page: Page) -> str:
    got = f"{page.get(_SAMPLES, 1)} x {page.bits} bits, photometric {page.get(_PHOTOMETRIC, 1)}"
    got += f", compression {page.get(_COMPRESSION, 1)}"
    return f"is a TIFF of a kind that is not read ({got}); save it as 8-bit RGB"


class SilentTiff(TiffImageFile):
    """Pillow's reader, without what libtiff prints."""

    def load(self) -> Any:
        """Decode the pixels."""
        with without_stderr():
            return super().load()


class DeepImage(ImageFile.ImageFile):
    """A page with samples of 9 to 16 bits, decoded when needed.

    Gray is of mode I;16, with the values of the file; others are reduced to 8 bits.
    """

    format = "TIFF of more than 8 bits"

    def __init__(self, file: IO[bytes], page: Page) -> None:
        self._page: Page | None = page
        super().__init__(file)

    def _open(self) -> None:
        assert self._page
        page = self._page
        self._size = page.get(_WIDTH, 0), page.get(_HEIGHT, 0)
        self._mode = _mode(page)
        if stated := _stated_bits(page):
            self.info["bits"] = stated
        if page.get(_PHOTOMETRIC, 1) == 0:
            self.info["white is zero"] = True
        assert self.fp
        self.tag_v2 = ImageFileDirectory_v2(page.head)  # as Pillow's images of TIFFs have it
        self.fp.seek(page.offset)
        self.tag_v2.load(self.fp)
        exif = Image.Exif()
        exif[_ORIENTATION] = page.get(_ORIENTATION, 1)
        self.info["exif"] = exif.tobytes()

    @property
    def cost(self) -> int:
        """Bytes of memory for a pixel, measured, to decode it."""
        assert self._page
        found = find_segments(self._page)
        pixels = self.width * self.height
        unpacked = 4 if self._page.bits == 16 else 2 * self._page.bits
        segment = found.rows * found.row_bytes * unpacked
        return max(13, -(-(2 * len(self.getbands()) * pixels + segment) // pixels))

    def load(self) -> Any:
        """Decode the pixels."""
        if self._page:
            assert self.fp
            self.im = _decode(self.fp, self._page, self._size, self._mode).im
            self._page = None
        return super().load()


def read_pages(file: IO[bytes]) -> list[Page]:
    """The pages of a file; all of them unless they have too many tags together."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = 43 in head[2:4]
    start, end = (8, 16) if big else (4, 8)
    count_code, entry, field = ("Q", "HHQ8s", 8) if big else ("H", "HHI4s", 4)
    offset_code = order + ("Q" if big else "I")
    (offset,) = struct.unpack(offset_code, head[start:end])
    pages, seen, left = list[Page](), set[int](), MAX_TIFF_TAGS
    while offset and offset not in seen and left > 0:
        seen.add(offset)
        place = offset
        file.seek(place)
        (count,) = _unpack(file, order + count_code)
        left -= count
        if left < 0:
            break
        entries = [_unpack(file, order + entry) for _ in range(count)]
        (offset,) = _unpack(file, offset_code)
        tags = {}
        for tag, kind, length, data in entries:
            if tag not in _READ or kind not in _CODES or not length:
                continue
            code = f"{order}{length}{_CODES[kind]}"
            left -= length // 64  # long lists of tiles
            if (size := struct.calcsize(code)) > field:
                file.seek(struct.unpack(offset_code, data)[0])
                data = file.read(min(size, 8 * MAX_TIFF_TAGS))
            tags[tag] = struct.unpack(code, data[:size])
        pages.append(Page(head[:end], place, order, tags))
    if not pages:
        raise ImageError("is broken or cut short (no page of the TIFF); copy or download it again")
    return pages


def _unpack(file: IO[bytes], code: str) -> tuple[Any, ...]:
    return struct.unpack(code, file.read(struct.calcsize(code)))


def _require_known(page: Page) -> None:
    """Raise an `ImageError` for samples without a known meaning as colors."""
    bands, photometric = page.get(_SAMPLES, 1), page.get(_PHOTOMETRIC, 1)
    if page.get(_FORMAT, 1) == 3 and bands > 1:
        raise ImageError("holds floating-point values; scale them to 0 to 255 and save 8 bits")
    colors = _COLORS.get(photometric, bands)
    if not colors <= bands <= colors + (1 if colors == 1 else 8):
        raise ImageError(
            f"has {bands} bands, wanted gray, RGB or RGBA; choose three of them (as with "
            "gdal_translate -b 1 -b 2 -b 3) and save 8-bit RGB"
        )
    height, width = page.get(_HEIGHT, 0), page.get(_WIDTH, 0)
    segment = page.get(_TILE_WIDTH, 0) * page.get(_TILE_HEIGHT, 0) * bands * page.bits // 8
    if segment > max(MAX_TIFF_SEGMENT, height * width * bands * page.bits // 4):
        raise ImageError(f"has tiles of {segment} bytes, larger than the image; save it anew")


def _stated_bits(page: Page) -> int | None:
    """The significant bits of a sample, if the file says so."""
    if page.bits < 16:
        return page.bits
    largest = page.get(_MAX_VALUE, 0)
    return largest.bit_length() if largest > 255 else None


def _alpha(page: Page) -> int:
    """What the sample after the colors is: 1 alpha multiplied in, 2 alpha, else 0."""
    extra = page.get(_SAMPLES, 1) - _COLORS[page.get(_PHOTOMETRIC, 1)]
    kind = page.get(_EXTRA, 2 if extra == 1 else 0)  # as Pillow does where nothing is said
    return kind if extra and kind in (1, 2) else 0


def _mode(page: Page) -> str:
    photometric, compression = page.get(_PHOTOMETRIC, 1), page.get(_COMPRESSION, 1)
    alpha = _alpha(page) if photometric != 5 else 0
    mode = _MODES.get((photometric, _COLORS.get(photometric, 0) + bool(alpha)))
    if mode is None or compression not in LOSSLESS or page.get(_PREDICTOR, 1) > 2:
        raise ImageError(_unknown(page))
    if alpha == 1:
        mode = mode.replace("A", "a")
    return "I;16" if mode == "L" else mode


def _decode(file: IO[bytes], page: Page, size: tuple[int, int], mode: str) -> Image.Image:
    """The pixels of a page as an image of the mode."""
    width, height = size
    bands = 1 if mode == "I;16" else len(mode)
    words = np.zeros((height, width, bands), np.uint16)
    for y, x, band, block in _blocks(file, page, bands):
        rows, columns = block.shape[:2]
        words[y : y + rows, x : x + columns, band : band + block.shape[2]] = block
    if mode == "I;16":
        return Image.fromarray(words[..., 0])
    pixels = to_bytes(words, bands - (mode[-1] in "aA"), _stated_bits(page))
    del words
    if page.get(_PHOTOMETRIC, 1) == 0:
        pixels[..., 0] = 255 - pixels[..., 0]
    return Image.frombuffer(mode, size, pixels, "raw", mode, 0, 1)


class Segments(NamedTuple):
    """The strips or tiles of a page."""

    tiled: bool
    rows: int
    columns: int
    depth: int  #: samples of a pixel in them
    row_bytes: int
    offsets: Sequence[int]
    lengths: Sequence[int]


def find_segments(page: Page) -> Segments:
    """Where the strips or tiles of a page are; of a single large strip, parts."""
    height, width = page.get(_HEIGHT, 0), page.get(_WIDTH, 0)
    if tiled := _TILES[0] in page.tags:
        rows, columns = page.get(_TILE_HEIGHT, 0), page.get(_TILE_WIDTH, 0)
    else:
        rows, columns = min(page.get(_ROWS_PER_STRIP, height), height), width
    offsets: Sequence[int]
    lengths: Sequence[int]
    offsets, lengths = (page.tags[tag] for tag in (_TILES if tiled else _STRIPS))
    planar = page.get(_PLANAR, 1) == 2
    depth = 1 if planar else page.get(_SAMPLES, 1)
    row_bytes = (columns * depth * page.bits + 7) // 8
    count = -(-height // rows) * -(-width // columns) * (page.get(_SAMPLES, 1) if planar else 1)
    if len(offsets) < count or len(lengths) < count:
        raise ValueError(f"{len(offsets)} of {count} strips or tiles")
    if not tiled and rows == height and page.get(_COMPRESSION, 1) == 1:  # one strip: read parts
        rows = max(1, _TOGETHER // row_bytes)
        starts = range(0, height, rows)
        offsets = [offset + start * row_bytes for offset in offsets for start in starts]
        lengths = [min(rows, height - start) * row_bytes for _ in lengths for start in starts]
    if rows * row_bytes > MAX_PIXELS:  # of bytes, which are the pixels of the gray image
        got = f"has strips or tiles of {rows * row_bytes} bytes, at most {MAX_PIXELS} are read"
        raise ImageError(f"{got}; save it in smaller ones, or uncompressed")
    return Segments(tiled, rows, columns, depth, row_bytes, offsets, lengths)


def _blocks(file: IO[bytes], page: Page, bands: int) -> Iterator[tuple[int, int, int, Words]]:
    """The decoded strips or tiles: row, column and band where each begins, and its samples."""
    height, width = page.get(_HEIGHT, 0), page.get(_WIDTH, 0)
    tiled, rows, columns, depth, row_bytes, offsets, lengths = find_segments(page)
    places = [(y, x) for y in range(0, height, rows) for x in range(0, width, columns)]
    together = max(1, _TOGETHER // (rows * row_bytes))  # many strips have a single row
    planes = page.get(_SAMPLES, 1) // depth
    for plane in range(min(planes, bands)):
        for first in range(0, len(places), together):
            group = places[first : first + together]
            sizes = [rows if tiled else min(rows, height - y) for y, _ in group]
            data = list[bytes]()
            for number in range(first, first + len(group)):
                number += plane * len(places)
                file.seek(offsets[number])
                data.append(file.read(min(lengths[number], 2 * rows * row_bytes + 65536)))
            raw = decompressed(data, page, row_bytes, rows, sum(sizes))
            words = _words(raw, page, columns * depth).reshape(len(raw), columns, depth)
            if page.get(_PREDICTOR, 1) == 2:  # samples are differences from those to the left
                words = np.cumsum(words, axis=1, dtype=np.uint16)
            top = 0
            for (y, x), size in zip(group, sizes, strict=True):
                block = words[top : top + size, :, :bands]
                yield y, x, plane, block[: height - y, : width - x]
                top += size


def decompressed(
    segments: list[bytes], page: Page, row_bytes: int, rows: int, height: int
) -> NDArray[np.uint8]:
    """The bytes of strips or tiles, (height, row_bytes), read as a gray image of strips."""
    lengths = [len(segment) for segment in segments]
    ends = np.cumsum([8, *lengths]).tolist()
    tags = {
        _WIDTH: [row_bytes], _HEIGHT: [height], _BITS: [8], _SAMPLES: [1], _PHOTOMETRIC: [1],
        _COMPRESSION: [page.get(_COMPRESSION, 1)], _FILL_ORDER: [page.get(_FILL_ORDER, 1)],
        _ROWS_PER_STRIP: [rows], _STRIPS[0]: ends[:-1], _STRIPS[1]: lengths,
    }  # fmt: skip
    lists = ends[-1] + 2 + 12 * len(tags) + 4
    entries, more = b"", b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            packed, more = struct.pack("<I", lists + len(more)), more + packed
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    head = struct.pack("<2sHI", b"II", 42, ends[-1])
    file = b"".join([head, *segments, struct.pack("<H", len(tags)), entries, bytes(4), more])
    with SilentTiff(io.BytesIO(file)) as im:
        return np.asarray(im)


def _words(raw: NDArray[np.uint8], page: Page, count: int) -> Words:
    """The first numbers of each row of bytes, (H, count)."""
    if page.bits == 16:
        return raw.view(page.order + "u2")[:, :count].astype(np.uint16, copy=False)
    bits = np.unpackbits(raw, axis=1)[:, : count * page.bits].reshape(len(raw), count, page.bits)
    return np.asarray(bits @ (1 << np.arange(page.bits)[::-1]), np.uint16)
