"""Find and decode the files that a model names, in its folder only."""

import io
import os
import unicodedata
from contextlib import suppress
from pathlib import Path, PureWindowsPath

import cv2
import numpy as np
from PIL import Image

from unpool.errors import DataError, ImageError
from unpool.files import read_bytes
from unpool.limits import MAX_TEXTURE, MAX_TEXTURE_PIXELS, MAX_TEXTURES_READ
from unpool.vision.images import FORMATS, Pixels, upright

_LONGEST = 4096  # bytes of a path, as in Linux


class Folder:
    """The folder of a model, outside of which nothing is found."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[Path, dict[str, list[str]]] = {}

    def find(self, name: str) -> Path | None:
        """The file that a model names, or None.

        Backslashes separate folders, and the case of letters is ignored where that leaves one
        choice. Of an absolute path, which is that of another computer, the end is used that exists
        here.

        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "Oak.png").touch()
        >>> Folder(root).find(r"C:\\Users\\ann\\oak.PNG").name
        'Oak.png'
        """
        name = name.strip().strip('"').strip()
        if not name or "\0" in name or len(name) > _LONGEST:
            return None
        windows = PureWindowsPath(name)  # splits at / and \
        parts = windows.parts[bool(windows.anchor) :]
        starts = range(len(parts)) if windows.anchor else range(1)
        for start in starts:
            if (found := self._descend(parts[start:])) and found.is_file():
                return found if found.resolve().is_relative_to(self.root.resolve()) else None
        return None

    def _descend(self, parts: tuple[str, ...]) -> Path | None:
        """A path whose parts are spelled exactly, or else in the one other way there is."""
        path = self.root
        for part in parts:
            same = self._listed(path).get(_fold(part), [])
            if part not in same and len(same) != 1:
                return None
            path = path / (part if part in same else same[0])
        return path

    def _listed(self, folder: Path) -> dict[str, list[str]]:
        """The names in a folder, by their form without case."""
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            with suppress(OSError):  # it is a file, or cannot be listed
                for name in os.listdir(folder):
                    names.setdefault(_fold(name), []).append(name)
            self._names[folder] = names
        return self._names[folder]


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def decode(data: bytes, max_pixels: int, formats: tuple[str, ...] = tuple(FORMATS)) -> Pixels:
    """An image of at most `max_pixels`: RGBA with straight color if it has alpha, otherwise RGB.

    Raises:
        DataError: it is larger by its header.
        ImageError: it is broken, or of another format.
    """
    try:
        with Image.open(io.BytesIO(data), formats=formats) as im:
            if im.width * im.height > max_pixels:
                size = f"{im.width} x {im.height} pixels"
                raise DataError(f"has {size}, which are too many; scale it down")
            return np.array(im.convert("RGBA")) if im.has_transparency_data else upright(im)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise nearly every type for broken files
        raise ImageError(str(error) or type(error).__name__) from None


class Textures:
    """The textures of one model, each decoded once."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.images: list[Pixels] = []  #: RGB
        self.missing: list[str] = []  #: names of textures that are missing or broken
        self.transparent: list[str] = []  #: names of textures with alpha, which is dropped
        self._known: dict[str, int] = {}
        self._pixels = 0

    def read(self, name: str) -> int:
        """Decode a file, and return the index of the texture; -1 if it is missing or broken."""
        if name not in self._known:
            path = self.folder.find(name)
            try:
                data = read_bytes(path, DataError, MAX_TEXTURE) if path else None
            except DataError:
                data = None
            self.add(name, data)
        return self._known[name]

    def add(self, name: str, data: bytes | None) -> int:
        """Likewise for the bytes of a file; None is a missing one.

        Raises:
            DataError: all textures together are too large.
        """
        if name in self._known:
            return self._known[name]
        self._known[name] = -1
        most = min(MAX_TEXTURES_READ // 2, MAX_TEXTURES_READ - self._pixels)
        try:
            image = decode(data or b"", most)
        except ImageError:
            self.missing.append(name)
            return -1
        except DataError as error:
            raise DataError(f"has too large textures: {name} {error}") from None
        self._pixels += image.shape[0] * image.shape[1]
        if image.shape[2] == 4:
            if image[..., 3].min() < 255:
                self.transparent.append(name)
            image = np.ascontiguousarray(image[..., :3])
        self._known[name] = len(self.images)
        self.images.append(image)
        self._shrink()
        return self._known[name]

    def _shrink(self) -> None:
        """Halve the largest textures until all of them fit into memory as they are rendered."""
        while sum(image.shape[0] * image.shape[1] for image in self.images) > MAX_TEXTURE_PIXELS:
            sizes = [image.size for image in self.images]
            largest = sizes.index(max(sizes))
            height, width = (max(1, side // 2) for side in self.images[largest].shape[:2])
            half = cv2.resize(self.images[largest], (width, height), interpolation=cv2.INTER_AREA)
            self.images[largest] = np.asarray(half, np.uint8)
