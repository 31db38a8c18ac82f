"""Inspect one image and its mask: problems, class counts and digests."""

import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from unpool.data.classes import VOID
from unpool.data.coco import Outlines, rasterize
from unpool.data.datasets import load_labels
from unpool.data.instances import Object, find_objects, load_objects
from unpool.data.layouts import Layout
from unpool.errors import DataError, ImageError
from unpool.vision.images import Pixels, read_image, voc_palette

# Masks have few ids and large uniform regions: in ADE20K, with 150 classes, up to 40 ids per image,
# and one in thirty pixels differs from its neighbor. In gray photos, most pixels do.
_IDS, _ROUGH = 32, 0.1

_COLORS = 256  # at most, in a color-coded mask; a photo has thousands

_PUT = "put the mask of class ids there, or remove the image"

_STRAY = 0.05  # fraction of object pixels that may have another class, for example at borders


class Finding(NamedTuple):
    """A problem of a data set."""

    level: Literal["error", "warning"]  #: errors stop a training run or falsify its figures
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


def inspect_image(layout: Layout, name: str, void: int = VOID) -> Inspection:
    """Read an image, its mask and its objects, and compare them.

    Args:
        layout: the files of the data set.
        name: an image id, which may have no file.
        void: the id in the mask that is read as 255.
    """
    findings: list[Finding] = []
    image = _read_image(layout, name, findings)
    listed = name in layout.images.files  # else its mask is useless
    labels, found = _read_mask(layout, name, void, findings) if listed else (None, [])
    pixels, labels_digest = np.zeros(256, np.int64), ""
    if labels is not None:
        pixels = np.bincount(labels.ravel(), minlength=256)
        labels_digest = _digest(labels)
        if not pixels[:VOID].any():
            message = f"is all void ({VOID}), wanted labels; label it or remove it"
            where = location(layout, layout.mask(name))
            findings.append(Finding("warning", "void-only", where, message))
    objects = np.bincount([one.label for one in found], minlength=256)
    if image is None:
        return Inspection(findings, pixels, objects, "", labels_digest, np.zeros(256, np.float32))
    if labels is not None:
        findings += _compare(layout, layout.images.file(name), image, labels)
    return Inspection(findings, pixels, objects, _digest(image), labels_digest, _thumbnail(image))


def location(layout: Layout, file: Path | Outlines) -> str:
    """A file as shown in findings: relative to the root, with `/` on every system."""
    if isinstance(file, Outlines):
        return f"{file.file.relative_to(layout.root).as_posix()} ({file.name})"
    return file.relative_to(layout.root).as_posix()


def _read_image(layout: Layout, name: str, findings: list[Finding]) -> Pixels | None:
    """Read an image; errors become findings."""
    path = layout.images.home(name)
    try:
        path = layout.images.file(name)
        return read_image(path)
    except DataError as error:
        kind = "ambiguous-name" if name in layout.images.files else "missing-image"
        message = str(error)
    except ImageError as error:
        kind, message = "unreadable", str(error).removeprefix(f"{path}: ")
    findings.append(Finding("error", kind, location(layout, path), message))
    return None


def _read_mask(
    layout: Layout, name: str, void: int, findings: list[Finding]
) -> tuple[Pixels | None, list[Object]]:
    """Read a mask and its objects; errors become findings."""
    mask: Path | Outlines = layout.masks.home(name)
    try:
        mask = layout.mask(name)
        if isinstance(mask, Outlines):
            return _rasterize(layout, mask, findings)
        labels = load_labels(mask, void)
        if not (message := _photo(labels)):
            return labels, _read_objects(layout, name, labels, findings)
        kind = "photo"
    except DataError as error:
        kind = "ambiguous-name" if name in layout.masks.files else "missing-mask"
        kind = "annotation" if isinstance(mask, Outlines) else kind
        message = str(error).removeprefix(f"{mask}: ")
    except ImageError as error:
        kind, message = _refused(mask, str(error).removeprefix(f"{mask}: "))
    findings.append(Finding("error", kind, location(layout, mask), message))
    return None, []


def _rasterize(
    layout: Layout, outlines: Outlines, findings: list[Finding]
) -> tuple[Pixels, list[Object]]:
    labels, instances, empty = rasterize(outlines)
    if empty:
        message = (
            f"has the annotations {', '.join(map(str, empty[:5]))}, which cover no pixel; redraw "
            "or remove them"
        )
        findings.append(Finding("warning", "empty-object", location(layout, outlines), message))
    return labels, find_objects(labels, instances)


def _read_objects(
    layout: Layout, name: str, labels: Pixels, findings: list[Finding]
) -> list[Object]:
    """Read and check the object mask of an image, if it has one."""
    if layout.instances is None or name not in layout.instances.files:
        return []
    path = layout.instances.home(name)
    try:
        path = layout.instances.file(name)
        instances = load_objects(path)
    except (DataError, ImageError) as error:
        kind = "unreadable" if isinstance(error, ImageError) else "ambiguous-name"
        message = str(error).removeprefix(f"{path}: ")
        findings.append(Finding("error", kind, location(layout, path), message))
        return []
    if instances.shape != labels.shape:
        message = f"is {_size(instances)} but the mask {_size(labels)}; redraw one of them"
        findings.append(Finding("error", "size-differs", location(layout, path), message))
        return []
    found = find_objects(labels, instances)
    classes = np.full(int(instances.max()) + 1, VOID)
    classes[[one.instance for one in found]] = [one.label for one in found]
    inside = (instances != 0) & (instances != VOID) & (labels != VOID)
    stray = np.count_nonzero(classes[instances[inside]] != labels[inside])
    if stray > _STRAY * np.count_nonzero(inside):
        message = (
            f"has {stray} of {np.count_nonzero(inside)} pixels whose class is not that of their "
            "object, wanted one class per object; check that it belongs to this image"
        )
        findings.append(Finding("warning", "objects-differ", location(layout, path), message))
    return found


def _photo(labels: Pixels) -> str:
    """A message if the labels look like a gray photo, else an empty one."""
    n = len(np.unique(labels[labels != VOID]))
    rough = np.count_nonzero(labels[:, 1:] != labels[:, :-1]) / labels.size
    if n <= _IDS or rough <= _ROUGH:
        return ""
    return f"looks like a photo, not a mask: {n} ids without uniform regions; {_PUT}"


def _refused(mask: Path | Outlines, message: str) -> tuple[str, str]:
    """Kind and message for an unusable mask; for a color mask with the kind of its colors."""
    try:
        rgb = read_image(Path(str(mask))).reshape(-1, 3)
    except ImageError:
        return "unreadable", message
    if "has mode RGB" not in message:  # 16 bits, EXIF, a JPEG ...
        return "unusable-mask", message
    colors, known = (np.unique(c @ np.array([1 << 16, 1 << 8, 1])) for c in (rgb, voc_palette()))
    if len(colors) > _COLORS:
        return "photo", f"looks like a photo, not a mask: {len(colors)} colors; {_PUT}"
    if np.isin(colors, known).all():
        hint = "all are VOC's, whose index is the row in unpool.vision.images.voc_palette()"
    elif (rgb == rgb[:, :1]).all():
        hint = "all are gray: if the gray values are the indices, keep one of the three channels"
    else:
        hint = "not all are VOC's"
    return "color-mask", f"{message} (colors: {len(colors)}, {hint})"


def _compare(layout: Layout, path: Path, image: Pixels, labels: Pixels) -> Iterator[Finding]:
    """Find different sizes, and EXIF rotation that the mask may lack."""
    where, turn = location(layout, path), _orientation(path)
    upright, drawn = image.shape[:2], labels.shape
    sizes = _size(image), _size(labels)
    sideways = turn > 4 and upright[0] != upright[1]  # else sizes do not reveal rotation
    if sideways and drawn == upright[::-1]:
        message = (
            f"is {sizes[0]} when rotated by its EXIF orientation {turn}, but its mask is "
            f"{sizes[1]}, as the pixels are stored; rotate the mask, too, or remove the EXIF "
            "orientation if the image is upright without it"
        )
        yield Finding("error", "exif", where, message)
    elif drawn != upright:
        message = (
            f"is {sizes[0]} but its mask is {sizes[1]}, wanted equal sizes; check that they "
            "belong together, and resize the mask (nearest) or redraw it"
        )
        yield Finding("error", "size-differs", where, message)
    elif turn > 1 and not sideways:
        message = (
            f"is rotated by its EXIF orientation {turn}, and the size of its mask does not show "
            "whether it was drawn on the upright image; compare both, then save the image upright "
            "without EXIF"
        )
        yield Finding("warning", "exif", where, message)


def _size(array: NDArray[np.integer]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"


def _digest(array: Pixels) -> str:
    return f"{array.shape} {hashlib.blake2b(np.ascontiguousarray(array).data).hexdigest()}"


def _orientation(path: Path) -> int:
    """The EXIF orientation of a readable image, 1 (upright) to 8."""
    with warnings.catch_warnings(), Image.open(path) as im:
        warnings.filterwarnings("ignore", module="PIL")  # odd metadata
        try:  # not im.getexif(), which would decode a PNG; read_image does the same
            return int(Image.Image.getexif(im).get(ExifTags.Base.Orientation, 1))
        except Exception:  # viewers ignore broken EXIF
            return 1


def _thumbnail(image: Pixels) -> NDArray[np.float32]:
    """A unit vector of 16 x 16 gray values minus their mean; zeros for a flat image."""
    small = Image.fromarray(image).convert("L").resize((16, 16), Image.Resampling.BOX)
    values = np.asarray(small, np.float32).ravel()
    values = values - values.mean()
    length = np.linalg.norm(values)
    return values / length if length > 32 else np.zeros_like(values)  # 32: a deviation of 2
