"""Inspect one image and its mask: problems, class counts and digests."""

import hashlib
import math
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from unpool.data.colors import WRITE, as_numbers, count_ids, distinct, is_gray
from unpool.data.datasets import Object, instance_objects, load_labels, load_objects
from unpool.data.outlines import Outlines, rasterize, require_size
from unpool.errors import DataError, ImageError, few
from unpool.limits import MAX_AT_ONCE
from unpool.vision.images import (
    LUMA,
    VOID,
    Pixels,
    image_size,
    read_image,
    read_orientation,
    voc_palette,
)

if TYPE_CHECKING:
    from unpool.data.colors import Coloring
    from unpool.data.layouts import Folder, Layout

Level: TypeAlias = Literal["error", "warning"]

# Masks have few ids and large uniform regions: in ADE20K, with 150 classes, up to 40 ids per image,
# and one in thirty pixels differs from its neighbor. In gray photos, most pixels do.
_IDS, _ROUGH = 32, 0.1

_COLORS = 256  # at most, in a color-coded mask; a photo has thousands

_PUT = "put the mask of class ids there, or remove the image"

_STRAY = 0.05  # fraction of object pixels that may have another class, for example at borders


_alone = threading.Lock()  # held while a large image is read


class Finding(NamedTuple):
    """A problem of a data set."""

    level: Level  #: errors stop a training run or falsify its figures
    kind: str  #: a short slug, such as "missing-mask"
    where: str  #: a file or folder below the root, a split, or a class
    message: str  #: what came, what was wanted, what to do


class Inspection(NamedTuple):
    """The result of inspecting one image and its mask."""

    findings: list[Finding]
    pixels: NDArray[np.int64]  #: (256,), pixels by id; all 0 if the mask cannot be used
    objects: NDArray[np.int64]  #: (256,), objects by class id; all 0 without an object mask
    image_digest: str  #: equal for equal pixels; empty if the image cannot be read
    labels_digest: str  #: equal for equal labels; empty if the mask cannot be used
    thumbnail: NDArray[np.float32]  #: (256,); the product of two is their correlation


def inspect_image(
    layout: "Layout", name: str, void: int = VOID, coloring: "Coloring | None" = None
) -> Inspection:
    """Read the image of an id, which may have no file, its mask and its objects, and compare them.

    The id `void` in the mask is read as 255, and its colors are read by `coloring`. Threads share
    the memory for large images: they take turns.
    """
    with _alone if _is_large(layout, name) else nullcontext():
        return _inspect(layout, name, void, coloring)


def _is_large(layout: "Layout", name: str) -> bool:
    paths = (*layout.images.files.get(name, ()), *layout.masks.files.get(name, ()))
    for path in paths:
        with suppress(ImageError):  # reported when it is read; also for .mat
            if math.prod(image_size(path)) > MAX_AT_ONCE:
                return True
    return False


def _inspect(layout: "Layout", name: str, void: int, coloring: "Coloring | None") -> Inspection:
    files = _Files(layout, name, [])
    image = files.read(layout.images, read_image, "missing-image")
    seen, thumbnail, shape = "", np.zeros(256, np.float32), (0, 0)
    if image is not None:
        seen, thumbnail, shape = _digest(image), _thumbnail(image), image.shape[:2]
        del image  # it may be large, and the mask, too
    labels: Pixels | None = None
    found: list[Object] = []
    if name in layout.images.files:  # else its mask is useless
        labels, found = files.read_mask(void, coloring)
    pixels = np.zeros(256, np.int64) if labels is None else count_ids(labels)
    if labels is not None and not pixels[:VOID].any():
        message = f"is all void ({VOID}), wanted labels; label it or remove it"
        files.report("warning", "void-only", layout.mask(name), message)
    if seen and labels is not None:
        files.compare_sizes(shape, labels.shape)
    objects = np.bincount([one.label for one in found], minlength=256)
    labeled = "" if labels is None else _digest(labels)
    return Inspection(files.findings, pixels, objects, seen, labeled, thumbnail)


def location(layout: "Layout", file: Path | Outlines) -> str:
    """A file as shown in findings: relative to the root, with `/` on every system."""
    path, name = (file.file, file.name) if isinstance(file, Outlines) else (file, "")
    return path.relative_to(layout.root).as_posix() + (f" ({name})" if name else "")


class _Files(NamedTuple):
    """The files of one image; what is wrong with them is added to `findings`."""

    layout: "Layout"
    name: str
    findings: list[Finding]

    def report(self, level: Level, kind: str, file: Path | Outlines, message: str) -> None:
        self.findings.append(Finding(level, kind, location(self.layout, file), message))

    def read(
        self, folder: "Folder", load: Callable[[Path], NDArray[Any]], missing: str
    ) -> NDArray[Any] | None:
        """Load a file of the image; None, with a finding, if that fails."""
        path = folder.home(self.name)
        try:
            path = folder.file(self.name)
            return load(path)
        except DataError as error:
            kind = "ambiguous-name" if self.name in folder.files else missing
            message = str(error)
        except ImageError as error:
            kind, message = "unreadable", str(error).removeprefix(f"{path}: ")
            if folder is self.layout.masks:
                kind, message = _explain_mask(path, message)
        self.report("error", kind, path, message)
        return None

    def read_mask(
        self, void: int, coloring: "Coloring | None"
    ) -> tuple[Pixels | None, list[Object]]:
        """The labels and the objects of the image."""
        if outlines := self.layout.outlines.get(self.name):
            return self._rasterize(outlines)
        load = partial(load_labels, void=void, coloring=coloring)
        labels = self.read(self.layout.masks, load, "missing-mask")
        if labels is not None and (message := _photo(labels)):
            self.report("error", "photo", self.layout.mask(self.name), message)
            labels = None
        return labels, [] if labels is None else self._read_objects(labels)

    def _rasterize(self, outlines: Outlines) -> tuple[Pixels | None, list[Object]]:
        try:
            with suppress(ImageError):  # reported when the image is read
                require_size(outlines, image_size(self.layout.images.file(self.name)))
            labels, instances, empty = rasterize(outlines)
        except DataError as error:
            self.report("error", "annotation", outlines, str(error).removeprefix(f"{outlines}: "))
            return None, []
        if empty:
            message = (
                f"has the annotations {few(empty)}, which cover no pixel; redraw or remove them"
            )
            self.report("warning", "empty-object", outlines, message)
        return labels, instance_objects(labels, instances)

    def _read_objects(self, labels: Pixels) -> list[Object]:
        """Read and check the object mask of the image, if it has one."""
        folder = self.layout.instances
        if folder is None or self.name not in folder.files:
            return []
        instances = self.read(folder, load_objects, "")
        if instances is None:
            return []
        path = folder.file(self.name)
        if instances.shape != labels.shape:
            sizes = _size(instances.shape), _size(labels.shape)
            message = f"is {sizes[0]} but the mask {sizes[1]}; redraw one of them"
            self.report("error", "size-differs", path, message)
            return []
        found = instance_objects(labels, instances)
        classes = np.full(int(instances.max()) + 1, VOID)
        classes[[one.instance for one in found]] = [one.label for one in found]
        inside = (instances != 0) & (instances != VOID) & (labels != VOID)
        stray = np.count_nonzero(classes[instances[inside]] != labels[inside])
        if stray > _STRAY * np.count_nonzero(inside):
            message = (
                f"has {stray} of {np.count_nonzero(inside)} pixels whose class is not that of "
                "their object; check that it belongs to this image"
            )
            self.report("warning", "objects-differ", path, message)
        return found

    def compare_sizes(self, upright: tuple[int, ...], mask: tuple[int, ...]) -> None:
        """Find different shapes, (H, W), and EXIF rotation that the mask may lack."""
        path = self.layout.images.file(self.name)
        turn = read_orientation(path)
        sizes = _size(upright), _size(mask)
        sideways = turn > 4 and upright[0] != upright[1]  # else sizes do not reveal rotation
        if sideways and mask == upright[::-1]:
            message = (
                f"is {sizes[0]} when rotated by its EXIF orientation {turn}, but its mask is "
                f"{sizes[1]}; rotate the mask, or remove the EXIF orientation if it is wrong"
            )
            self.report("error", "exif", path, message)
        elif mask != upright:
            message = f"is {sizes[0]} but its mask is {sizes[1]}; check that they belong together,"
            message += " and resize the mask (nearest) or redraw it"
            self.report("error", "size-differs", path, message)
        elif turn > 1 and not sideways:
            message = (
                f"is rotated by its EXIF orientation {turn}, and the size does not show whether "
                "its mask is; compare both, then save the image upright without EXIF"
            )
            self.report("warning", "exif", path, message)


def _photo(labels: Pixels) -> str:
    """A message if the labels look like a gray photo, else an empty one."""
    n = np.count_nonzero(count_ids(labels)[:VOID])
    if n <= _IDS:
        return ""
    rough = np.count_nonzero(labels[:, 1:] != labels[:, :-1]) / labels.size
    message = f"looks like a photo, not a mask: {n} ids without uniform regions; {_PUT}"
    return message if rough > _ROUGH else ""


def _explain_mask(path: Path, message: str) -> tuple[str, str]:
    """Kind and message for an unusable mask; those of a color mask describe its colors."""
    try:
        rgb = read_image(path)
    except ImageError:
        return "unreadable", message
    if "has mode RGB" not in message:  # 16 bits, EXIF, a JPEG ...
        return "unusable-mask", message
    colors = distinct(map(as_numbers, np.array_split(rgb, max(rgb.size >> 22, 1))))
    if len(colors) > _COLORS:
        return "photo", f"looks like a photo, not a mask: {len(colors)} colors; {_PUT}"
    if np.isin(colors, as_numbers(voc_palette())).all():
        hint = "all are VOC's: pass by_color=True"
    elif is_gray(colors):
        hint = "all are gray: if the gray values are the indices, save them without transparency"
    else:
        hint = f"not all are VOC's: {WRITE}"
    return "color-mask", f"{message} (colors: {len(colors)}, {hint})"


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"


def _digest(array: Pixels) -> str:
    return f"{array.shape} {hashlib.blake2b(np.ascontiguousarray(array).data).hexdigest()}"


def _thumbnail(image: Pixels) -> NDArray[np.float32]:
    """A unit vector of 16 x 16 gray values minus their mean; zeros for a flat image."""
    small = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
    values = (small @ np.array(LUMA, np.float32)).ravel()
    values = values - values.mean()
    length = np.linalg.norm(values)
    return values / length if length > 32 else np.zeros_like(values)  # 32: a deviation of 2
