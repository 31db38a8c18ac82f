"""Check a data set before a training run: find everything that would spoil it; change nothing."""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unpool.data.classes import VOID, Names, numbered_classes
from unpool.data.inspect import Finding, Look, look_at, place
from unpool.data.layouts import (
    Layout,
    class_names,
    find_files,
    list_splits,
    split_names,
    why_empty,
)
from unpool.errors import DataError

_Looks: TypeAlias = Mapping[str, Look]  # by the image's id

_ENOUGH = 5  # images of a class in train

# The correlation of thumbnails. Copies at half the size, or as JPEG of quality 20, have 0.997 or
# more; different images 0.95 or less, but for shots of the same scene and frames of a film.
_ALIKE = 0.99


class ClassCount(NamedTuple):
    """How often a class occurs."""

    name: str
    id: int
    images: dict[str, int]  #: images that show the class, by split
    objects: dict[str, int]  #: by split; none at all where there are no object masks
    pixels: dict[str, int]  #: by split


@dataclass(frozen=True)
class Report:
    """What the check of a data set found."""

    splits: dict[str, int]  #: the number of images of each
    classes: list[ClassCount]  #: by id
    findings: list[Finding]  #: errors first

    @property
    def ok(self) -> bool:
        """Whether there is no error; there may be warnings."""
        return all(finding.level != "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "ok": self.ok,
            "splits": self.splits,
            "classes": [count._asdict() for count in self.classes],
            "findings": [finding._asdict() for finding in self.findings],
        }


def check_data(
    root: str | Path,
    splits: Sequence[str] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Read every image and mask in full, and report all that would spoil a training run.

    Errors stop a training run or make its figures worthless: files that are
    missing or cannot be read, sizes that differ (EXIF rotation told apart), color-coded masks,
    photos in place of masks, ids of no class, masks of nothing but background, annotations that
    cannot be drawn, and the same image in two splits, under one name or two. Warnings are what
    may be meant, or borne: rare classes, images that are nearly the same, masks without
    image ...

    Args:
        root: a folder in one of the layouts of `unpool.data.layouts`.
        splits: those to check; by default all but the unions of others, as VOC's trainval.
        progress: called with the number of images done and their total.

    Raises:
        DataError: the folder is not a data set, or has no such split, or a list cannot be read.

    >>> import tempfile
    >>> from unpool.vision.images import write_image, write_mask
    >>> root = Path(tempfile.mkdtemp())
    >>> write_image(root / "images/train/cat.jpg", np.zeros((4, 6, 3), np.uint8))
    >>> write_image(root / "images/val/cat.jpg", np.full((4, 6, 3), 99, np.uint8))
    >>> write_mask(root / "masks/train/cat.png", np.eye(4, 6, dtype=np.uint8))
    >>> for finding in check_data(root).findings:
    ...     print(finding.level, finding.kind, finding.where)
    error missing-mask masks/val/cat
    warning rare-class background
    warning rare-class class 1
    """
    layout = find_files(root)
    listed = _listed(layout, splits)
    names = list(dict.fromkeys(itertools.chain(*listed.values())))
    known, findings = _names(layout)
    look = partial(look_at, layout, void=known.void if known else VOID)
    looks: dict[str, Look] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as workers:
        for name, seen in zip(names, workers.map(look, names), strict=True):
            looks[name] = seen
            if progress is not None:
                progress(len(looks), len(names))
    members = {split: set(ids) for split, ids in listed.items()}
    classes = known.classes if known else _numbered(looks)
    counts = [_count(i, layout, name, members, looks) for i, name in enumerate(classes)]
    findings += itertools.chain(
        _in_lists(layout, listed),
        *(seen.findings for seen in looks.values()),
        _in_ids(layout, looks, len(classes)),
        _in_classes(layout, looks, counts, unnamed=not known and not findings),
        _in_copies(layout, looks, members),
        _beside(layout, set(names), every=splits is None),
        _in_objects(layout, names),
    )
    findings.sort(key=lambda finding: finding.level)  # "error" comes before "warning"
    return Report({split: len(ids) for split, ids in members.items()}, counts, findings)


def _listed(layout: Layout, splits: Sequence[str] | None) -> dict[str, list[str]]:
    """The ids of the splits; of all of them, without those that are the union of others."""
    if splits is not None:
        return {split: split_names(layout, split) for split in splits}
    listed = {split: split_names(layout, split) for split in list_splits(layout)}
    sets = {split: set(ids) for split, ids in listed.items()}
    for split, ids in sets.items():
        parts = [part for part in sets.values() if part and part < ids]
        if len(parts) > 1 and set().union(*parts) == ids:
            del listed[split]
    return listed


def _names(layout: Layout) -> tuple[Names | None, list[Finding]]:
    """The classes where something names them, and what is wrong with their names."""
    try:
        return class_names(layout), []
    except DataError as error:
        return None, [Finding("error", "classes", "classes.txt", str(error))]


def _numbered(looks: _Looks) -> list[str]:
    return numbered_classes(int(_total(looks)[:VOID].nonzero()[0].max(initial=0)))


def _count(
    i: int, layout: Layout, name: str, members: Mapping[str, set[str]], looks: _Looks
) -> ClassCount:
    pixels = {split: [int(looks[key].pixels[i]) for key in ids] for split, ids in members.items()}
    objects = {}
    if layout.instances or layout.drawings:
        objects = {s: sum(int(looks[key].objects[i]) for key in ids) for s, ids in members.items()}
    return ClassCount(
        name,
        i,
        {split: sum(n > 0 for n in each) for split, each in pixels.items()},
        objects,
        {split: sum(each) for split, each in pixels.items()},
    )


def _in_lists(layout: Layout, listed: Mapping[str, list[str]]) -> Iterator[Finding]:
    for split, ids in listed.items():
        if not ids:
            yield Finding("error", "empty-split", split, why_empty(layout, split))
        if twice := [name for name, n in Counter(ids).items() if n > 1]:
            message = f"lists twice: {_few(twice)}; list every image once"
            yield Finding("warning", "listed-twice", split, message)
    for (a, first), (b, second) in itertools.combinations(listed.items(), 2):
        if both := sorted(set(first) & set(second)):
            message = (
                f"share {_few(both)}, wanted splits apart, since figures on images trained on "
                "are worthless; take them out of one list (if one list is meant to hold the "
                "other, name the splits to check)"
            )
            yield Finding("error", "listed-twice", f"{a}, {b}", message)


def _in_ids(layout: Layout, looks: _Looks, classes: int) -> Iterator[Finding]:
    for name, look in looks.items():
        wrong = look.pixels[classes:VOID].nonzero()[0] + classes
        if wrong.size:
            message = (
                f"has the ids {_few(wrong.tolist())}, wanted 0 to {classes - 1}, or {VOID} for "
                f"void; correct the mask or {_cure(layout)}"
            )
            yield Finding("error", "unknown-ids", place(layout, layout.mask(name)), message)


def _cure(layout: Layout) -> str:
    """How ids become classes."""
    listed = layout.root / "classes.txt"
    if listed.is_file():
        return f"add names to {listed}"
    return f"write {listed}: a name a line, the line's number (from 0) being the id"


def _in_classes(
    layout: Layout, looks: _Looks, counts: Sequence[ClassCount], unnamed: bool
) -> Iterator[Finding]:
    total = _total(looks)
    if not total[1:VOID].any():
        if total.any():
            message = f"hold nothing but 0 (background) and {VOID} (void); mark objects by 1, 2 ..."
            yield Finding("error", "only-background", place(layout, layout.masks.path), message)
        return
    if unnamed and not total[: len(counts)].all():  # as gray values leave gaps, and classes do not
        message = f"hold the ids {_few(total[:VOID].nonzero()[0].tolist())}, and nothing names them"
        where = place(layout, layout.masks.path)
        yield Finding("warning", "unnamed-classes", where, f"{message}; {_cure(layout)}")
        counts = [count for count in counts if total[count.id]]
    labeled = [split for split in counts[0].pixels if any(count.pixels[split] for count in counts)]
    for split, count in itertools.product(labeled, counts):
        n = count.images[split]
        if not n:
            message = f"does not occur in {split}; add images of it, or do not count on it there"
            yield Finding("warning", "empty-class", count.name, message)
        elif split == "train" and n < _ENOUGH:
            message = f"occurs in {n} of the images of train, wanted {_ENOUGH} or more; add some"
            yield Finding("warning", "rare-class", count.name, message)


def _in_copies(layout: Layout, looks: _Looks, members: Mapping[str, set[str]]) -> Iterator[Finding]:
    """Find each image that shows the same as an earlier one; near copies only across splits."""
    homes = {name: [s for s, ids in members.items() if name in ids] for name in looks}
    names = [name for name, look in looks.items() if look.digest]
    thumbs = np.array([looks[name].thumb for name in names])
    firsts: dict[str, str] = {}
    for i, name in enumerate(names):
        where = place(layout, layout.images.file(name))
        first = firsts.setdefault(looks[name].digest, name)
        if first != name:
            apart = not set(homes[name]) & set(homes[first])
            other = f"{first} of {', '.join(homes[first])}" if apart else first
            kind = "duplicate-across-splits" if apart else "duplicate-in-split"
            harm = "figures are worthless" if apart else "it counts twice"
            message = f"has the same pixels as {other}; remove one, or {harm}"
            drawn = {looks[name].drawn, looks[first].drawn}
            if len(drawn) > 1 and "" not in drawn:
                kind = "contradiction"
                message = (
                    f"is the same image as {other} but with another mask, and one of the two is "
                    "wrong; keep the image with the right one, and remove the other"
                )
            yield Finding("error" if apart else "warning", kind, where, message)
            continue
        alike = thumbs[:i] @ thumbs[i]
        near = np.flatnonzero(alike > _ALIKE)
        others = [j for j in near if not set(homes[name]) & set(homes[names[j]])]
        if others:
            other = names[max(others, key=lambda j: alike[j])]
            message = (
                f"looks much like {other} of {', '.join(homes[other])}; if they are one image, "
                "or frames of one film, keep them in one split"
            )
            yield Finding("warning", "near-duplicate", where, message)


def _beside(layout: Layout, names: set[str], every: bool) -> Iterator[Finding]:
    """Find files that take no part: masks without image and, among all splits, unlisted pairs."""
    for name in sorted(layout.masks.files.keys() - layout.images.files):
        where = place(layout, layout.masks.files[name][0])
        message = f"belongs to no image in {layout.images.path}; name it as its image"
        yield Finding("warning", "extra-mask", where, message)
    if every and (rest := sorted((layout.images.files.keys() & layout.masks.files) - names)):
        message = f"has labeled images in no split: {_few(rest)}; list them to have them used"
        where = place(layout, layout.images.path)
        yield Finding("warning", "unlisted", where, message)


def _in_objects(layout: Layout, names: Sequence[str]) -> Iterator[Finding]:
    """Find images without object mask, where others have one; and what COCO has too much."""
    if layout.instances:
        labeled = [name for name in names if name in layout.masks.files]
        if bare := [name for name in labeled if name not in layout.instances.files]:
            message = (
                f"has no object mask of {_few(bare)}; draw them, or be content with the connected "
                "parts of each class as their objects"
            )
            where = place(layout, layout.instances.path)
            yield Finding("warning", "no-object-mask", where, message)
    for path, n in layout.astray:
        if n:
            message = f"has {n} annotations of no image in it, which are passed over; see why"
            yield Finding("warning", "astray", place(layout, path), message)


def _total(looks: _Looks) -> NDArray[np.int64]:
    return sum((look.pixels for look in looks.values()), np.zeros(256, np.int64))


def _few(items: Sequence[object]) -> str:
    more = f" … ({len(items)})" if len(items) > 5 else ""
    return ", ".join(map(str, items[:5])) + more
