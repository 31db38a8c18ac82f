"""Read and write images of any numeric type, and TIFF stacks, without loss.

The type, bit depth and size of images and the tags of files are preserved; images are rotated
upright. TIFF pages are read one at a time. PNG keeps 8 and 16 bits, JPEG 8 bits; other formats are
read as 8-bit RGB and written as PNG.
"""

import io
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from unpool.errors import ImageError
from unpool.files import require_regular, write_bytes
from unpool.limits import MAX_IMAGE_MEMORY, MAX_IMAGE_STREAM, MAX_PIXELS
from unpool.vision.arrays import read_header, read_values
from unpool.vision.images import read_image
from unpool.vision.jpeg import compression_of
from unpool.vision.opening import open_image
from unpool.vision.png import encoded, meaning_chunks, read_png
from unpool.vision.quiet import without_warnings
from unpool.vision.samples import (
    Layout,
    Samples,
    Tags,
    decoded,
    read_samples,
    read_tags,
    sample_type,
    write_pages,
    write_tiff,
)
from unpool.vision.tiff import LOSSLESS, MAGIC, Page, read_pages
from unpool.vision.upright import TURNS, orientation

_UNITS = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3, "cm": 1e4}


@dataclass(frozen=True)
class Frame:
    """How an image, or a page, is stored."""

    shape: tuple[int, ...]  #: (H, W, C), upright
    dtype: np.dtype[Any]
    bits: int  #: significant bits of a sample
    alpha: int = 0  #: opacity in the last channel, as in TIFF: 1 premultiplied, 2 not
    tags: Tags = field(default_factory=dict)
    inverted: bool = False  #: whether 0 is white in the file
    compressed: bool = True
    packed: bool = False  #: whether samples of 9 to 15 bits are stored without gaps
    compression: float = 0.0  #: deviation of the error of JPEG compression, of the largest value
    no_photo: str = ""  #: what in the file says that it is no photo, such as the size of its voxels

    @property
    def colors(self) -> int:
        """The number of channels without opacity."""
        return self.shape[2] - bool(self.alpha)

    @property
    def largest(self) -> float:
        """The largest value that a sample can have; 1 for floating point."""
        if self.dtype.kind == "f":
            return 1.0
        return float(2 ** (self.bits - (self.dtype.kind == "i")) - 1)


@dataclass(frozen=True)
class Stack:
    """An image, or the pages of a TIFF: `stack[i]` reads the samples of a page, (H, W, C)."""

    frames: tuple[Frame, ...]
    suffix: str  #: suffix of the file to write: .tif, .png or .jpg
    voxel: tuple[float, float, float] | None  #: depth, height and width of a pixel in micrometers
    source: Any  #: the file, or the samples of the only image
    pages: tuple[tuple[int, Page], ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)  #: metadata of PNG and JPEG

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Samples]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Samples:
        if not self.pages:
            return np.asarray(self.source[i])
        with without_warnings(), _stream(self.source) as file, _explained(self.source):
            return _read_page(file, *self.pages[i], self.frames[i])

    @property
    def bytes(self) -> int:
        """The size of all samples in bytes."""
        return sum(int(np.prod(f.shape)) * f.dtype.itemsize for f in self.frames)

    def write(self, path: str | os.PathLike[str], pages: Iterable[Samples]) -> None:
        """Write new samples with the tags and metadata of this stack, atomically.

        Args:
            path: the file to write; its suffix is that of the stack, or .tif.
            pages: samples in the shapes of the frames, in their type or float32.
        """
        if Path(path).suffix.lower() in (".tif", ".tiff"):
            pages, sizes = self._checked(pages), [self._layout(frame) for frame in self.frames]
            write_tiff(path, pages, sizes, self.bytes)
        else:
            (values,) = self._checked(pages)
            write_bytes(path, encoded(values, self.suffix, self.extras))

    def _checked(self, pages: Iterable[Samples]) -> Iterator[Samples]:
        for values, frame in zip(pages, self.frames, strict=True):
            assert values.shape == frame.shape, (values.shape, frame.shape)
            back = values.dtype == frame.dtype and frame.inverted
            yield frame.dtype.type(frame.largest) - values if back else values

    def _layout(self, frame: Frame) -> Layout:
        bits = frame.bits if frame.packed else 8 * frame.dtype.itemsize
        photometric = 0 if frame.inverted else 2 if frame.colors == 3 else 1
        return Layout(frame.tags, bits, photometric, frame.alpha, frame.compressed)

    def as_float(self) -> "Stack":
        """A copy of this stack for writing float32 samples as a TIFF."""
        kind = np.dtype(np.float32)
        frames = [
            replace(f, dtype=kind, bits=32, inverted=False, packed=False) for f in self.frames
        ]
        return replace(self, frames=tuple(frames), suffix=".tif")


def read_stack(source: str | os.PathLike[str] | bytes) -> Stack:
    """Read an image, or open the pages of a TIFF.

    Args:
        source: a path, or the bytes of a file.

    Raises:
        ImageError: the file is missing, damaged or too large, or its values cannot be preserved.

    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.fromarray(np.full((2, 3), 40000, np.uint16)).save(file, "PNG")
    >>> stack = read_stack(file.getvalue())
    >>> stack[0][..., 0].tolist(), stack.frames[0].largest
    ([[40000, 40000, 40000], [40000, 40000, 40000]], 65535.0)
    """
    with without_warnings(), _stream(source) as file, _explained(source):
        head = file.read(32)
        if head.startswith(MAGIC):
            return _open_tiff(file, source)
    name = _name(source)
    with open_image(source, MAX_PIXELS, animated=False) as im:
        kind, turn, error = im.format, orientation(im), 0.0
        deep = im.mode.startswith(("I", "F")) or (im.format == "PNG" and head[24] == 16)
        # the decoder arguments of a PPM state its largest value
        args = next((tile.args for tile in getattr(im, "tile", ())), ())
        deep = deep or (im.format == "PPM" and isinstance(args, tuple) and args[1] != 255)
        if kind == "PNG":
            values, alpha = read_png(_content(source), im, deep)
            extras: dict[str, Any] = {"chunks": meaning_chunks(_content(source))}
        elif kind in ("JPEG", "MPO") and im.mode in ("L", "RGB"):
            values, alpha = np.array(im), 0
            error = compression_of(im, values)
            exif = im.getexif()
            exif.pop(274, None)  # the orientation
            extras = {"exif": exif.tobytes(), "icc_profile": im.info.get("icc_profile")}
        elif deep:
            raise ImageError("holds more than 8 bits, which are kept of TIFF and PNG; convert it")
        else:
            values, alpha, turn, extras = read_image(source), 0, 1, {}
    values = turned(values if values.ndim == 3 else values[..., None], turn)
    frame = Frame(values.shape, values.dtype, 8 * values.dtype.itemsize, alpha, compression=error)
    suffix = ".jpg" if kind in ("JPEG", "MPO") and extras else ".png"
    if not values.size:
        raise ImageError(f"{name}: is empty; copy or download it again")
    return Stack((frame,), suffix, None, (values,), extras=extras)


def encode_stack(stack: Stack, pages: Iterable[Samples]) -> bytes:
    """The bytes of the file that `Stack.write` writes, in the format of the stack's suffix.

    >>> stack = stack_of(np.zeros((2, 3), np.uint16), ".png")
    >>> encode_stack(stack, stack)[1:4]
    b'PNG'
    """
    checked = stack._checked(pages)
    if stack.suffix != ".tif":
        (values,) = checked
        return encoded(values, stack.suffix, stack.extras)
    file = io.BytesIO()
    write_pages(file, checked, [stack._layout(frame) for frame in stack.frames], stack.bytes)
    return file.getvalue()


def stack_of(values: NDArray[Any], suffix: str = ".tif") -> Stack:
    """Wrap an array as a stack, for writing.

    Args:
        values: (H, W), (H, W, C) with at most 4 channels, or a volume (D, H, W).
        suffix: .tif, .png or .jpg.

    Raises:
        ImageError: the format cannot store such samples.

    >>> len(stack_of(np.zeros((40, 8, 9), np.float32)))
    40
    """
    several = values.ndim == 3 and values.shape[2] > 4
    pages = tuple(values[..., None]) if several else (np.atleast_3d(values),)
    suffix = {".tiff": ".tif", ".jpeg": ".jpg"}.get(suffix, suffix)
    fits = {".tif": "uif", ".png": "u", ".jpg": "u"}.get(suffix, "")
    deepest = {".tif": 8, ".png": 2, ".jpg": 1}.get(suffix, 0)
    kind = values.dtype
    if kind.kind not in fits or kind.itemsize > deepest or (several and suffix != ".tif"):
        got = f"got an image of {values.shape} and {kind} for {suffix or 'no suffix'!r}"
        raise ImageError(f"{got}; PNG holds 8 or 16 bits, JPEG 8: write .tif")
    alpha = 2 * (pages[0].shape[2] in (2, 4))
    frames = [Frame(page.shape, kind, 8 * kind.itemsize, alpha) for page in pages]
    return Stack(tuple(frames), suffix, None, pages)


def read_array(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read a .npy file, no larger than the largest allowed image.

    Raises:
        ImageError: it is damaged, too large, or holds something else.
    """
    name = require_regular(path, ImageError)
    try:
        with name.open("rb") as file:
            header = read_header(file)
            size = int(np.prod(header.shape, dtype=object)) * header.dtype.itemsize
            if size > MAX_IMAGE_MEMORY or header.dtype.kind not in "uifb":
                raise ImageError(f"{header.shape} of {header.dtype}")
            return read_values(file, header, header.dtype)
    except Exception as error:
        raise ImageError(
            f"{path}: is no array of numbers ({error}); save it by numpy.save"
        ) from None


def turned(values: Samples, orientation: int) -> Samples:
    """Rotate or flip an image, (H, W, C), by its EXIF orientation."""
    exchanged, *flipped = TURNS.get(orientation, (False, False, False))
    values = values[tuple(slice(None, None, -1 if flip else 1) for flip in flipped)]
    return np.ascontiguousarray(values.swapaxes(0, 1) if exchanged else values)


# ---- TIFF ----------------------------------------------------------------------------------------


def _open_tiff(file: IO[bytes], source: Any) -> Stack:
    found = [(number, page) for number, page in enumerate(read_pages(file)) if not page.reduced]
    if not found:
        raise ImageError("holds previews only, as a raw file does; develop it")
    frames = [_frame(file, page) for _, page in found]
    if sum(f.shape[0] * f.shape[1] > MAX_PIXELS for f in frames):
        raise ImageError(f"has a page of more than {MAX_PIXELS} pixels; cut it into parts")
    text = _description(frames[0])
    if (more := re.search(r"^images=(\d+)", text, re.MULTILINE)) and int(more[1]) > len(frames):
        raise ImageError(
            f"holds {more[1]} images in {len(frames)} pages, as ImageJ writes beyond 4 GiB; save "
            "it as OME-TIFF or BigTIFF"
        )
    voxel = _voxel(text, frames[0])
    sign = "the file states the size of its voxels" if voxel else ""
    sign = sign or ("the file is a stack of pages" if len(frames) > 1 else "")
    frames = [replace(frame, no_photo=sign) for frame in frames]
    return Stack(tuple(frames), ".tif", voxel, source, tuple(found))


def _frame(file: IO[bytes], page: Page) -> Frame:
    photometric, bands = page.get(262, 1), page.get(277, 1)
    size = page.get(257, 0), page.get(256, 0)
    if page.get(274, 1) >= 5:
        size = size[::-1]
    tags, inverted, packing = read_tags(file, page), photometric == 0, page.get(259, 1) != 1
    if _by_pillow(page):
        if page.bits > 8 or photometric not in (0, 1, 2, 3, 6):
            raise ImageError(
                f"holds samples that are not kept (photometric {photometric}, compression "
                f"{page.get(259, 1)}, {page.bits} bits); save gray or RGB of 8 or 16 bits"
            )
        bands = 1 if photometric < 2 else 3  # Pillow inverts these
        return Frame((*size, bands), np.dtype(np.uint8), 8, 0, tags)
    dtype = sample_type(page).newbyteorder("=")
    if photometric not in (0, 1, 2):
        raise ImageError(f"has photometric interpretation {photometric}; save gray or RGB")
    colors = 3 if photometric == 2 else 1
    extra = page.tags.get(338, (2,) if bands == colors + 1 else (0,))[-1]
    alpha = extra if bands > colors and extra in (1, 2) else 0
    bits, largest = page.bits, page.get(281, 0)
    if bits == 16 and dtype.kind == "u" and 255 < largest < 65535:  # for example 12 bits in 16
        bits = largest.bit_length()
    inverted = inverted and dtype.kind == "u"
    packed = page.bits % 8 > 0
    return Frame((*size, bands), dtype, bits, alpha, tags, inverted, packing, packed)


def _by_pillow(page: Page) -> bool:
    return page.get(259, 1) not in LOSSLESS or page.get(262, 1) in (3, 6)


def _read_page(file: IO[bytes], number: int, page: Page, frame: Frame) -> Samples:
    if _by_pillow(page):
        return decoded(file, number, "L" if frame.shape[2] == 1 else "RGB")  # turned upright
    values = turned(read_samples(file, page), page.get(274, 1))
    return frame.dtype.type(frame.largest) - values if frame.inverted else values


def _description(frame: Frame) -> str:
    tag = frame.tags.get(270)
    return tag.data.rstrip(b"\0").decode("utf-8", "replace") if tag else ""


def _voxel(text: str, frame: Frame) -> tuple[float, float, float] | None:
    """The size of a voxel in micrometers, as ImageJ and OME-TIFF state it."""
    if sizes := re.findall(r'\bPhysicalSize([XYZ])="([\d.eE+-]+)"', text):
        found = {axis: _number(value) for axis, value in sizes}
        units = dict(re.findall(r'\bPhysicalSize([XYZ])Unit="([^"]+)"', text))
        scaled = {axis: v * _UNITS.get(units.get(axis, "um"), 0) for axis, v in found.items()}
        if scaled.get("X") and scaled.get("Y"):
            return scaled.get("Z", 0.0), scaled["Y"], scaled["X"]
    unit = re.search(r"^unit=(.+)$", text, re.MULTILINE)
    scale = _UNITS.get(unit[1].strip().replace("\\u00B5", "µ"), 0) if unit else 0
    across = [_ratio(frame.tags.get(tag)) for tag in (283, 282)]
    if not scale or not all(across):
        return None
    spacing = re.search(r"^spacing=([\d.eE+-]+)$", text, re.MULTILINE)
    depth = _number(spacing[1]) if spacing else 0.0
    return depth * scale, scale / across[0], scale / across[1]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _ratio(tag: Any) -> float:
    """The value of a rational tag; 0 if there is none."""
    if tag is None or tag.kind != 5 or len(tag.data) < 8:
        return 0.0
    above, below = struct.unpack("<II", tag.data[:8])
    return above / below if below else 0.0


# ---- files ---------------------------------------------------------------------------------------


def _name(source: Any) -> str:
    return "image" if isinstance(source, bytes) else str(source)


@contextmanager
def _stream(source: Any) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    else:
        with require_regular(source, ImageError).open("rb") as file:
            yield file


def _content(source: Any) -> bytes:
    if isinstance(source, bytes):
        return source
    content = Path(source).read_bytes()
    if len(content) > MAX_IMAGE_STREAM:
        raise ImageError(f"has more than {MAX_IMAGE_STREAM} bytes; save it as TIFF")
    return content


@contextmanager
def _explained(source: Any) -> Iterator[None]:
    """Convert the exceptions of decoders for damaged files to `ImageError`."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{_name(source)}: {error}") from None
    except Warning:
        raise
    except Exception as error:
        cure = f"is broken or cut short ({error}); copy or download it again"
        raise ImageError(f"{_name(source)}: {cure}") from error
