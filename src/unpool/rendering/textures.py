"""Find and decode the files that a model names, in its folder only."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PureWindowsPath

import cv2
import numpy as np
from PIL import Image

from unpool.errors import DataError, ImageError
from unpool.files import fold_name
from unpool.limits import (
    MAX_MATERIALS,
    MAX_PATH,
    MAX_TEXTURE_BYTES,
    MAX_TEXTURE_PIXELS,
    MAX_TEXTURES_READ,
)
from unpool.vision.images import Pixels, open_image
from unpool.vision.upright import upright


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
        if not name or "\0" in name or len(name) > MAX_PATH:
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
            same = self._listed(path).get(fold_name(part), [])
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
                    names.setdefault(fold_name(name), []).append(name)
            self._names[folder] = names
        return self._names[folder]


def straight(im: Image.Image) -> Pixels:
    """The pixels of an image: RGBA with straight color if it has alpha, otherwise RGB."""
    return np.array(im.convert("RGBA")) if im.has_transparency_data else upright(im)


class Textures:
    """The textures of one model, each decoded once."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.images: list[Pixels] = []  #: RGB
        self.missing: list[str] = []  #: names of textures that are missing, broken or too large
        self.transparent: list[str] = []  #: names of textures with alpha, which is dropped
        self._known: dict[str, int] = {}
        self._pixels = self._bytes = 0

    def read(self, name: str, load: Callable[[], bytes | Path | None] | None = None) -> int:
        """Decode a texture, and return its index; -1 if there is none to use.

        Args:
            name: of a file in the folder of the model, or any other name with `load`.
            load: gives the file or its bytes, or None if it is missing.

        Raises:
            DataError: there are too many textures, or they are too large in all.
        """
        if name not in self._known:
            self._known[name] = -1
            source = load() if load else self.folder.find(name)
            self._bytes += source.stat().st_size if isinstance(source, Path) else len(source or b"")
            if len(self._known) > MAX_MATERIALS or self._bytes > MAX_TEXTURE_BYTES:
                most = f"{MAX_MATERIALS:,} textures or {MAX_TEXTURE_BYTES:,} bytes of them"
                raise DataError(f"has more than {most}; simplify the model")
            try:
                self._add(name, source)
            except ImageError:
                self.missing.append(name)
        return self._known[name]

    def _add(self, name: str, source: bytes | Path | None) -> None:
        most = min(MAX_TEXTURES_READ // 2, MAX_TEXTURES_READ - self._pixels)
        with open_image(source or b"", most) as im:
            self._pixels += im.width * im.height  # also if it is broken, which takes as long
            image = straight(im)
        if image.shape[2] == 4:
            if image[..., 3].min() < 255:
                self.transparent.append(name)
            image = np.ascontiguousarray(image[..., :3])
        self._known[name] = len(self.images)
        self.images.append(image)
        self._shrink()

    def _shrink(self) -> None:
        """Halve the largest textures until all of them fit into memory as they are rendered."""
        while sum(image.shape[0] * image.shape[1] for image in self.images) > MAX_TEXTURE_PIXELS:
            sizes = [image.size for image in self.images]
            largest = sizes.index(max(sizes))
            height, width = (max(1, side // 2) for side in self.images[largest].shape[:2])
            half = cv2.resize(self.images[largest], (width, height), interpolation=cv2.INTER_AREA)
            self.images[largest] = np.asarray(half, np.uint8)
