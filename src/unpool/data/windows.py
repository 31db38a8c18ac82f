"""Windows: the squares of images on which the two stages of the published training learn.

Stage 1 uses a window around each object, in which only that object keeps its class; stage 2 uses
windows around proposals, with all labels. Noh, Hong, Han 2015, section 4.2.
"""

import hashlib
import math
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.data.datasets import DataSet, Sample, objects
from unpool.errors import DataError
from unpool.files import atomic, read_bytes
from unpool.vision.boxes import iou, square
from unpool.vision.images import read_image
from unpool.vision.proposals import propose

if TYPE_CHECKING:
    from unpool import Progress

Box = tuple[int, int, int, int]


class Window(NamedTuple):
    """A square of an image to train on."""

    sample: Sample
    box: Box  #: x0, y0, x1, y1 in pixels, x1 and y1 excluded; may reach beyond the image
    label: int = 0  #: class id of its object; 0 if not known
    instance: int = 0  #: number of the object if only that keeps its class; 0 to keep all labels


def object_windows(data: DataSet, enlarge: float = 1.2, least: int = 100) -> list[Window]:
    """Stage 1: a square around each object, in which other objects are background.

    Objects below `least` pixels are left out. The side is `enlarge` times the long side of the box.
    """
    return [
        Window(sample, _square(found.box, enlarge), found.label, found.instance)
        for sample in data.samples
        for found in objects(sample, len(data.classes))
        if found.area >= least
    ]


def proposal_windows(
    data: DataSet,
    proposals: Sequence[NDArray[np.int64]],
    threshold: float = 0.5,
    enlarge: float = 1.2,
    least: int = 100,
) -> list[Window]:
    """Stage 2: a square around each proposal that overlaps an object, with all labels.

    An object without such a proposal, which would never be seen, gets a square around its own box.

    Args:
        data: its instance maps are read.
        proposals: boxes (P, 4) for each image, see `find_proposals`.
        threshold: smallest IoU of the proposal with an object's tight box. The paper says only
            "sufficiently overlapped".
        enlarge, least: as of `object_windows`.
    """
    windows = []
    for sample, boxes in zip(data.samples, proposals, strict=True):
        found = [one for one in objects(sample, len(data.classes)) if one.area >= least]
        if not found:
            continue
        overlap = iou(boxes, np.array([one.box for one in found]))
        for box, row in zip(boxes.tolist(), overlap, strict=True):
            if row.max() >= threshold:
                windows.append(Window(sample, _square(box, enlarge), found[row.argmax()].label))
        for one, column in zip(found, overlap.T, strict=True):
            if column.max(initial=0) < threshold:
                windows.append(Window(sample, _square(one.box, enlarge), one.label))
    return windows


def find_proposals(
    data: DataSet, count: int = 2000, cache: Path | None = None, progress: "Progress | None" = None
) -> list[NDArray[np.int64]]:
    """Object proposals (P, 4) for each image, best first.

    At most `count` are found for an image. The `cache` is a .npz file to read them from; it is
    written if it does not exist, or if names, sizes or dates of the images have changed.
    """
    digest = hashlib.sha256(str(count).encode())
    for sample in data.samples:
        status = sample.image.stat()
        digest.update(f"{sample.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    key = digest.hexdigest()
    if cache is not None and (stored := _read_cache(cache, key, len(data.samples))) is not None:
        return stored

    def boxes(sample: Sample) -> NDArray[np.int64]:
        return propose(read_image(sample.image), "edgeboxes", count).boxes.astype(np.int64)

    found = []
    with ThreadPoolExecutor(2) as workers:
        for part in workers.map(boxes, data.samples):
            found.append(part)
            if progress is not None:
                progress(len(found), len(data.samples), "finding proposals")
    if cache is not None:
        ends = np.cumsum([len(part) for part in found])
        with atomic(cache) as temporary, temporary.open("wb") as file:
            np.savez(file, key=key, ends=ends, boxes=np.concatenate(found))
    return found


def _read_cache(cache: Path, key: str, count: int) -> list[NDArray[np.int64]] | None:
    """The boxes of each image; None if the file is missing, damaged, or of other images."""
    if not cache.is_file():
        return None
    try:
        with zipfile.ZipFile(cache) as archive:
            if any(part.compress_type for part in archive.infolist()):  # not written here
                return None
        with np.load(cache, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            boxes, ends = stored["boxes"], stored["ends"]
    except Exception:  # the readers of zip archives and arrays raise many kinds
        return None
    whole = boxes.dtype == ends.dtype == np.int64 and boxes.shape[1:] == (4,)
    if not whole or ends.shape != (count,):
        return None
    steps = np.diff(np.concatenate([[0], ends, [len(boxes)]]))
    return np.split(boxes, ends[:-1]) if (steps >= 0).all() else None


def repeat_rare(windows: Sequence[Window], power: float = 1.0) -> list[Window]:
    """Repeat windows of rare classes; Noh, Hong, Han 2015, section 5.1 ("redundant examples").

    A power of 1 makes the classes equally frequent, 0 leaves them as they are. Windows of an image
    of another weight than 1 are repeated, or left out, in proportion.
    """
    count = np.bincount([window.label for window in windows])
    repeated: list[Window] = []
    wanted: defaultdict[int, float] = defaultdict(float)
    for window in windows:  # rounding the cumulative sum spreads the repeats over the class
        before = math.floor(wanted[window.label] + 1e-9)
        wanted[window.label] += (
            float(count.max() / count[window.label]) ** power * window.sample.weight
        )
        repeated += [window] * (math.floor(wanted[window.label] + 1e-9) - before)
    return repeated


def write_windows(path: str | Path, windows: Sequence[Window], root: str | Path) -> None:
    """Write windows as a list for the authors' Caffe layer `WINDOW_SEG_DATA`.

    Each line has the paths of image and mask below `root`, with a leading slash, and x1 y1 x2 y2,
    0-based, both ends included.
    """
    lines = []
    for sample, (x0, y0, x1, y1), _, _ in windows:
        if not isinstance(sample.mask, Path):
            raise DataError(f"got {sample.name}, whose mask is not a file; write the masks first")
        files = [f"/{p.relative_to(root).as_posix()}" for p in (sample.image, sample.mask)]
        if any(" " in file for file in files):
            raise DataError(f"got the paths {' and '.join(files)}; remove the spaces from them")
        lines.append(f"{files[0]} {files[1]} {x0} {y0} {x1 - 1} {y1 - 1}\n")
    with atomic(Path(path)) as temporary:
        temporary.write_text("".join(lines))


def read_windows(path: str | Path, root: str | Path) -> list[Window]:
    """Read a list of `write_windows`; a `DataError` if a line has another form."""
    windows = []
    lines = read_bytes(path, DataError).decode(errors="surrogateescape").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            image, mask, *corners = line.split()
            x0, y0, x1, y1 = map(int, corners)
        except ValueError:
            raise DataError(
                f"got {line!r} in line {number} of {path}; wanted /IMAGE /MASK x1 y1 x2 y2"
            ) from None
        if x1 < x0 or y1 < y0:
            raise DataError(f"got an empty window in line {number} of {path}: {line!r}")
        files = [Path(root, name.lstrip("/")) for name in (image, mask)]
        sample = Sample(files[0].stem, files[0], files[1])
        windows.append(Window(sample, (x0, y0, x1 + 1, y1 + 1)))
    return windows


def _square(box: Sequence[int], enlarge: float) -> Box:
    x0, y0, x1, y1 = square(np.array([box]), enlarge)[0].tolist()
    return x0, y0, x1, y1
