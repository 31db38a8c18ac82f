"""A close look at one picture and its mask: what is wrong with them, and what they show."""

import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from unpool.data.voc import VOID, Folder, Layout
from unpool.errors import DataError, ImageError
from unpool.vision.images import read_image, read_mask, voc_palette

__all__ = ["Finding", "Look", "look_at", "place"]

Pixels = NDArray[np.uint8]


class Finding(NamedTuple):
    """Something about a data set that should be put right."""

    level: Literal["error", "warning"]  #: an error stops a training, or falsifies its figures
    kind: str  #: a short slug, such as "missing-mask"
    where: str  #: a file or folder below the root, a split, or a class
    message: str  #: what came, what was wanted, what to do


class Look(NamedTuple):
    """What one picture and its mask show."""

    findings: list[Finding]
    pixels: NDArray[np.int64]  #: (256,) pixels by id; all 0 if the mask cannot be read
    digest: str  #: the same for the same pixels; empty if the picture cannot be read
    thumb: NDArray[np.float32]  #: (256,); the product of two is their correlation


def look_at(layout: Layout, name: str) -> Look:
    """Decode a picture and its mask in full, and compare them.

    Args:
        layout: the files of the data set.
        name: an id, of which there may be no file.
    """
    findings: list[Finding] = []
    image = _read(layout, layout.images, name, findings)
    listed = name in layout.images.files  # if not, its mask is of no use
    labels = _read(layout, layout.masks, name, findings) if listed else None
    pixels = np.zeros(256, np.int64)
    if labels is not None:
        pixels = np.bincount(labels.ravel(), minlength=256)
        if not pixels[:VOID].any():
            message = f"is void ({VOID}) all over, wanted labels; label it or take it out"
            where = place(layout, layout.masks.file(name))
            findings.append(Finding("warning", "void-only", where, message))
    if image is None:
        return Look(findings, pixels, "", np.zeros(256, np.float32))
    if labels is not None:
        findings += _compare(layout, layout.images.file(name), image, labels)
    digest = f"{image.shape} {hashlib.blake2b(image.data).hexdigest()}"
    return Look(findings, pixels, digest, _thumb(image))


def place(layout: Layout, path: Path) -> str:
    """A path as findings name it: below the root, with `/` on every system."""
    return path.relative_to(layout.root).as_posix()


def _read(layout: Layout, folder: Folder, name: str, findings: list[Finding]) -> Pixels | None:
    """Read a picture or a mask; what stands in the way becomes a finding."""
    kind, read = ("picture", read_image) if folder is layout.images else ("mask", read_mask)
    path = folder.path / name
    try:
        path = folder.file(name)
        return read(path)
    except DataError as error:
        slug = "ambiguous-name" if name in folder.files else f"missing-{kind}"
        message = str(error)
    except ImageError as error:
        slug, message = "unreadable", str(error).removeprefix(f"{path}: ")
        if kind == "mask":
            slug, message = _refused(path, message)
    findings.append(Finding("error", slug, place(layout, path), message))
    return None


def _refused(path: Path, message: str) -> tuple[str, str]:
    """Kind and message for a mask that cannot be used; of colors it is told what they are."""
    try:
        rgb = read_image(path).reshape(-1, 3)
    except ImageError:
        return "unreadable", message
    if "has mode RGB" not in message:  # 16 bits, EXIF, a JPEG ...
        return "unusable-mask", message
    colors, known = (np.unique(c @ np.array([1 << 16, 1 << 8, 1])) for c in (rgb, voc_palette()))
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
    sizes = [f"{width} x {height}" for height, width in (upright, drawn)]
    sideways = turn > 4 and upright[0] != upright[1]  # only then do sizes tell
    if sideways and drawn == upright[::-1]:
        message = (
            f"is {sizes[0]} once turned upright by its EXIF orientation {turn}, but its mask is "
            f"{sizes[1]}, as the pixels are stored; turn the mask as the picture is turned, or "
            "remove the EXIF orientation if the picture stands upright without it"
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
            "whether that was drawn on the upright picture, as wanted; look at both, then save "
            "the picture upright without EXIF"
        )
        yield Finding("warning", "exif", where, message)


def _orientation(path: Path) -> int:
    """The EXIF orientation of a picture that can be read: 1, upright, to 8."""
    with warnings.catch_warnings(), Image.open(path) as im:
        warnings.filterwarnings("ignore", module="PIL")  # odd metadata
        try:  # not im.getexif(), which would decode a PNG; read_image does the same
            return int(Image.Image.getexif(im).get(ExifTags.Base.Orientation, 1))
        except Exception:  # broken EXIF, which viewers pass over
            return 1


def _thumb(image: Pixels) -> NDArray[np.float32]:
    """A picture as a unit vector of 16 x 16 gray values about their mean; 0 if it is flat."""
    small = Image.fromarray(image).convert("L").resize((16, 16), Image.Resampling.BOX)
    values = np.asarray(small, np.float32).ravel()
    values = values - values.mean()
    length = np.linalg.norm(values)
    return values / length if length > 32 else np.zeros_like(values)  # 2 gray levels
