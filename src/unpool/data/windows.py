"""Windows: the squares of images that the two stages of the published training learn from.

Stage 1 sees a window about each object, in which that object alone keeps its class; stage 2 sees
windows about proposals, in which every label counts.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.data.datasets import DataSet, Sample
from unpool.data.instances import objects
from unpool.errors import DataError
from unpool.files import atomic
from unpool.vision.boxes import iou, square
from unpool.vision.images import read_image
from unpool.vision.proposals import propose

Box = tuple[int, int, int, int]


class Window(NamedTuple):
    """A square of an image to learn from."""

    sample: Sample
    box: Box  #: x0, y0, x1, y1 in pixels, x1 and y1 excluded; may reach beyond the image
    label: int = 0  #: class id of the object that it is about; 0 if that is not known
    instance: int = 0  #: id of that object if it alone keeps its class; 0 if all labels count


def object_windows(data: DataSet, enlarge: float = 1.2, least: int = 100) -> list[Window]:
    """Stage 1: a square about each object, in which the other objects are background.

    Args:
        data: its instance maps are read, see `unpool.data.instances`.
        enlarge: of the object's tight box.
        least: objects of fewer pixels are left out.

    Noh, Hong, Han 2015, section 4.2.
    """
    windows = []
    for sample in data.samples:
        for label, box, instance, area in objects(sample, len(data.classes)):
            if area >= least:
                windows.append(Window(sample, _square(box, enlarge), label, instance))
    return windows


def proposal_windows(
    data: DataSet,
    proposals: Sequence[NDArray[np.int64]],
    threshold: float = 0.5,
    enlarge: float = 1.2,
    least: int = 100,
) -> list[Window]:
    """Stage 2: a square about each proposal that overlaps an object enough; all labels count.

    An object that no proposal overlaps gives a square about its own box: it would never be seen.

    Args:
        data: its instance maps are read.
        proposals: boxes (P, 4) for each image, see `find_proposals`.
        threshold: least IoU of the proposal with an object's tight box. The paper says
            "sufficiently overlapped", and no more.
        enlarge: of the proposals.
        least: objects of fewer pixels are left out.

    Noh, Hong, Han 2015, section 4.2.
    """
    windows = []
    for sample, boxes in zip(data.samples, proposals, strict=True):
        found = [o for o in objects(sample, len(data.classes)) if o[3] >= least]
        if not found:
            continue
        tight = np.array([box for _, box, _, _ in found])
        overlap = iou(boxes, tight) if len(boxes) else np.zeros((0, len(tight)))
        for box, shares in zip(boxes.tolist(), overlap, strict=True):
            if shares.max() >= threshold:
                windows.append(Window(sample, _square(box, enlarge), found[shares.argmax()][0]))
        for (label, box, _, _), shares in zip(found, overlap.T, strict=True):
            if shares.max(initial=0) < threshold:
                windows.append(Window(sample, _square(box, enlarge), label))
    return windows


def find_proposals(
    data: DataSet,
    count: int = 2000,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[NDArray[np.int64]]:
    """Object proposals (P, 4) for each image, the best first.

    Args:
        data: its images are read.
        count: how many at most for an image.
        cache: a .npz file in which they are looked up, and written if they were not there, or
            if names, sizes or dates of the images have changed.
        progress: called with the number of images done and their total.
    """
    key = _key(data, count)
    if cache is not None and cache.exists():
        with np.load(cache, allow_pickle=False) as stored:
            if "key" in stored and str(stored["key"]) == key:
                return np.split(stored["boxes"], stored["ends"][:-1])

    def boxes(sample: Sample) -> NDArray[np.int64]:
        return propose(read_image(sample.image), "edgeboxes", count).boxes.astype(np.int64)

    found = []
    with ThreadPoolExecutor(2) as workers:
        for part in workers.map(boxes, data.samples):
            found.append(part)
            if progress is not None:
                progress(len(found), len(data.samples))
    if cache is not None:
        ends = np.cumsum([len(part) for part in found])
        with atomic(cache) as temporary, temporary.open("wb") as file:
            np.savez(file, key=key, ends=ends, boxes=np.concatenate(found))
    return found


def _key(data: DataSet, count: int) -> str:
    """What proposals belong to: these images as they are now, and so many for each."""
    digest = hashlib.sha256(str(count).encode())
    for sample in data.samples:
        status = sample.image.stat()
        digest.update(f"{sample.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def repeat_rare(windows: Sequence[Window], power: float = 1.0) -> list[Window]:
    """Windows of rare classes several times, for "the classes with limited number of examples".

    Args:
        windows: each with its class.
        power: 1 makes the classes equally frequent, 0 leaves them as they are.

    Noh, Hong, Han 2015, section 5.1 ("by adding redundant examples").
    """
    count = np.bincount([window.label for window in windows])
    repeated = []
    seen = np.zeros(len(count), int)
    for window in windows:  # spread over the class: whole times, and once more for some of them
        wanted = (count.max() / count[window.label]) ** power
        seen[window.label] += 1
        n = seen[window.label]
        repeated += [window] * int(np.floor(n * wanted) - np.floor((n - 1) * wanted))
    return repeated


def write_windows(path: str | Path, windows: Sequence[Window], root: str | Path) -> None:
    """Write windows as a list that the authors' `WINDOW_SEG_DATA` layer reads.

    A line has the image's and the mask's path below `root`, with a slash before them, and
    x1 y1 x2 y2: 0-based, both ends included.
    """
    lines = []
    for sample, (x0, y0, x1, y1), _, _ in windows:
        if not isinstance(sample.mask, Path):
            raise DataError(f"got {sample.name}, whose mask is no file; write the masks first")
        files = [f"/{p.relative_to(root).as_posix()}" for p in (sample.image, sample.mask)]
        if any(" " in file for file in files):
            raise DataError(f"got the path {' or '.join(files)}; the list's format has no spaces")
        lines.append(f"{files[0]} {files[1]} {x0} {y0} {x1 - 1} {y1 - 1}\n")
    with atomic(Path(path)) as temporary:
        temporary.write_text("".join(lines))


def read_windows(path: str | Path, root: str | Path) -> list[Window]:
    """Read a list in the format of `write_windows`.

    Raises:
        DataError: a line of another form, or an empty window.
    """
    windows = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
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
