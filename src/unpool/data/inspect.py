"""A close look at one image and its mask: what is wrong with them, and what they show."""

import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from unpool.data.classes import VOID
from unpool.data.coco import Drawing, draw
from unpool.data.datasets import load_labels
from unpool.data.instances import Object, find_objects, load_objects
from unpool.data.layouts import Layout
from unpool.errors import DataError, ImageError
from unpool.vision.images import Pixels, read_image, voc_palette

# Masks have few ids and large even regions: in ADE20K, with 150 classes, some 40 ids an image,
# and one in thirty pixels differs from its neighbor. In a gray photo, most do.
_IDS, _ROUGH = 32, 0.1

_COLORS = 256  # of a color-coded mask; a photo has thousands

_PUT = "put the mask of class ids there, or take the image out"

_STRAY = 0.05  # fraction of the objects' pixels that may be of another class, as borders are


class Finding(NamedTuple):
    """Something about a data set that should be put right."""

    level: Literal["error", "warning"]  #: an error stops a training run, or falsifies its figures
    kind: str  #: a short slug, such as "missing-mask"
    where: str  #: a file or folder below the root, a split, or a class
    message: str  #: what came, what was wanted, what to do


class Look(NamedTuple):
    """What one image and its mask show."""

    findings: list[Finding]
    pixels: NDArray[np.int64]  #: (256,) pixels by id; all 0 if the mask cannot be used
    objects: NDArray[np.int64]  #: (256,) objects by class id; all 0 without an object mask
    digest: str  #: the same for the same pixels; empty if the image cannot be read
    drawn: str  #: the same for the same labels; empty if the mask cannot be used
    thumb: NDArray[np.float32]  #: (256,); the product of two is their correlation


def look_at(layout: Layout, name: str, void: int = VOID) -> Look:
    """Decode an image, its mask and its objects in full, and compare them.

    Args:
        layout: the files of the data set.
        name: an id, of which there may be no file.
        void: the mask's id that is read as 255.
    """
    findings: list[Finding] = []
    image = _read_image(layout, name, findings)
    listed = name in layout.images.files  # if not, its mask is of no use
    labels, found = _read_mask(layout, name, void, findings) if listed else (None, [])
    pixels, drawn = np.zeros(256, np.int64), ""
    if labels is not None:
        pixels, drawn = np.bincount(labels.ravel(), minlength=256), _digest(labels)
        if not pixels[:VOID].any():
            message = f"is void ({VOID}) all over, wanted labels; label it or take it out"
            where = place(layout, layout.mask(name))
            findings.append(Finding("warning", "void-only", where, message))
    objects = np.bincount([one.label for one in found], minlength=256)
    if image is None:
        return Look(findings, pixels, objects, "", drawn, np.zeros(256, np.float32))
    if labels is not None:
        findings += _compare(layout, layout.images.file(name), image, labels)
    return Look(findings, pixels, objects, _digest(image), drawn, _thumb(image))


def place(layout: Layout, file: Path | Drawing) -> str:
    """A file as findings name it: below the root, with `/` on every system."""
    if isinstance(file, Drawing):
        return f"{file.file.relative_to(layout.root).as_posix()} ({file.name})"
    return file.relative_to(layout.root).as_posix()


def _read_image(layout: Layout, name: str, findings: list[Finding]) -> Pixels | None:
    """Read an image; what stands in the way becomes a finding."""
    path = layout.images.home(name)
    try:
        path = layout.images.file(name)
        return read_image(path)
    except DataError as error:
        kind = "ambiguous-name" if name in layout.images.files else "missing-image"
        message = str(error)
    except ImageError as error:
        kind, message = "unreadable", str(error).removeprefix(f"{path}: ")
    findings.append(Finding("error", kind, place(layout, path), message))
    return None


def _read_mask(
    layout: Layout, name: str, void: int, findings: list[Finding]
) -> tuple[Pixels | None, list[Object]]:
    """Read a mask and its objects; what stands in the way becomes a finding."""
    mask: Path | Drawing = layout.masks.home(name)
    try:
        mask = layout.mask(name)
        if isinstance(mask, Drawing):
            return _draw(layout, mask, findings)
        labels = load_labels(mask, void)
        if not (message := _noise(labels)):
            return labels, _read_objects(layout, name, labels, findings)
        kind = "photo"
    except DataError as error:
        kind = "ambiguous-name" if name in layout.masks.files else "missing-mask"
        kind = "annotation" if isinstance(mask, Drawing) else kind
        message = str(error).removeprefix(f"{mask}: ")
    except ImageError as error:
        kind, message = _refused(mask, str(error).removeprefix(f"{mask}: "))
    findings.append(Finding("error", kind, place(layout, mask), message))
    return None, []


def _draw(layout: Layout, drawing: Drawing, findings: list[Finding]) -> tuple[Pixels, list[Object]]:
    labels, instances, empty = draw(drawing)
    if empty:
        message = (
            f"has the annotations {', '.join(map(str, empty[:5]))}, which cover no pixel; draw "
            "them anew or take them out"
        )
        findings.append(Finding("warning", "empty-object", place(layout, drawing), message))
    return labels, find_objects(labels, instances)


def _read_objects(
    layout: Layout, name: str, labels: Pixels, findings: list[Finding]
) -> list[Object]:
    """Read and judge the object mask of an image, if it has one."""
    if layout.instances is None or name not in layout.instances.files:
        return []
    path = layout.instances.home(name)
    try:
        path = layout.instances.file(name)
        instances = load_objects(path)
    except (DataError, ImageError) as error:
        kind = "unreadable" if isinstance(error, ImageError) else "ambiguous-name"
        message = str(error).removeprefix(f"{path}: ")
        findings.append(Finding("error", kind, place(layout, path), message))
        return []
    if instances.shape != labels.shape:
        message = f"is {_size(instances)} but the mask {_size(labels)}; draw one of them anew"
        findings.append(Finding("error", "size-differs", place(layout, path), message))
        return []
    found = find_objects(labels, instances)
    classes = np.full(int(instances.max()) + 1, VOID)
    classes[[one.instance for one in found]] = [one.label for one in found]
    inside = (instances != 0) & (instances != VOID) & (labels != VOID)
    stray = np.count_nonzero(classes[instances[inside]] != labels[inside])
    if stray > _STRAY * np.count_nonzero(inside):
        message = (
            f"has {stray} of {np.count_nonzero(inside)} pixels on another class than their object "
            "has, wanted one class for each object; see whether it is this image's"
        )
        findings.append(Finding("warning", "objects-differ", place(layout, path), message))
    return found


def _noise(labels: Pixels) -> str:
    """What to tell of a gray photo that stands for a mask; nothing of a mask."""
    n = len(np.unique(labels[labels != VOID]))
    rough = np.count_nonzero(labels[:, 1:] != labels[:, :-1]) / labels.size
    if n <= _IDS or rough <= _ROUGH:
        return ""
    return f"looks like a photo, not a mask: {n} ids without even regions; {_PUT}"


def _refused(mask: Path | Drawing, message: str) -> tuple[str, str]:
    """Kind and message for a mask that cannot be used; of colors it is told what they are."""
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
    """Find sizes that differ, and EXIF rotation that the mask may not have followed."""
    where, turn = place(layout, path), _orientation(path)
    upright, drawn = image.shape[:2], labels.shape
    sizes = _size(image), _size(labels)
    sideways = turn > 4 and upright[0] != upright[1]  # only then do sizes tell
    if sideways and drawn == upright[::-1]:
        message = (
            f"is {sizes[0]} once turned upright by its EXIF orientation {turn}, but its mask is "
            f"{sizes[1]}, as the pixels are stored; turn the mask as the image is turned, or "
            "remove the EXIF orientation if the image stands upright without it"
        )
        yield Finding("error", "exif", where, message)
    elif drawn != upright:
        message = (
            f"is {sizes[0]} but its mask is {sizes[1]}, wanted equal sizes; see whether they "
            "belong together, and resize the mask (nearest) or draw it anew"
        )
        yield Finding("error", "size-differs", where, message)
    elif turn > 1 and not sideways:
        message = (
            f"is turned by its EXIF orientation {turn}, and the size of its mask does not tell "
            "whether that was drawn on the upright image, as wanted; look at both, then save "
            "the image upright without EXIF"
        )
        yield Finding("warning", "exif", where, message)


def _size(array: NDArray[np.integer]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"


def _digest(array: Pixels) -> str:
    return f"{array.shape} {hashlib.blake2b(np.ascontiguousarray(array).data).hexdigest()}"


def _orientation(path: Path) -> int:
    """The EXIF orientation of an image that can be read: 1, upright, to 8."""
    with warnings.catch_warnings(), Image.open(path) as im:
        warnings.filterwarnings("ignore", module="PIL")  # odd metadata
        try:  # not im.getexif(), which would decode a PNG; read_image does the same
            return int(Image.Image.getexif(im).get(ExifTags.Base.Orientation, 1))
        except Exception:  # broken EXIF, which viewers pass over
            return 1


def _thumb(image: Pixels) -> NDArray[np.float32]:
    """An image as a unit vector of 16 x 16 gray values about their mean; 0 if it is flat."""
    small = Image.fromarray(image).convert("L").resize((16, 16), Image.Resampling.BOX)
    values = np.asarray(small, np.float32).ravel()
    values = values - values.mean()
    length = np.linalg.norm(values)
    return values / length if length > 32 else np.zeros_like(values)  # 2 gray levels
