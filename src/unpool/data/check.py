"""Check a data set before a training: all that would spoil it, found without changing a file."""

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

from unpool.data.pairs import Finding, Look, look_at, place
from unpool.data.voc import (
    VOID,
    Layout,
    class_names,
    find_files,
    list_splits,
    numbered_classes,
    split_names,
)
from unpool.errors import DataError

__all__ = ["ClassCount", "Finding", "Report", "check_data"]

_Looks: TypeAlias = Mapping[str, Look]  # by the picture's id

_ENOUGH = 5  # pictures of a class in train

# The correlation of thumbnails. Copies at half the size, or as JPEG of quality 20, have 0.997 or
# more; different pictures 0.95 or less, but for shots of the same scene and frames of a film.
_ALIKE = 0.99


class ClassCount(NamedTuple):
    """How often a class occurs."""

    name: str
    id: int
    images: dict[str, int]  #: pictures that show the class, by split
    pixels: dict[str, int]  #: by split


@dataclass(frozen=True)
class Report:
    """What the check of a data set found."""

    splits: dict[str, int]  #: the number of pictures of each
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
    """Read every picture and mask in full, and report all that would spoil a training.

    Errors are what a training would stop at, or what makes its figures worthless: files that are
    missing or cannot be read, sizes that differ (EXIF rotation told apart), color-coded masks,
    ids of no class, masks of nothing but background, and the same picture in two splits, under
    one name or two. Warnings are what may be meant, or borne: rare classes, pictures that are
    nearly the same, masks without picture ...

    Args:
        root: a folder in one of the layouts of `unpool.data.voc`.
        splits: those to check; by default all but the unions of others, as VOC's trainval.
        progress: called with the number of pictures done and their total.

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
    looks: dict[str, Look] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as workers:
        for name, look in zip(names, workers.map(partial(look_at, layout), names), strict=True):
            looks[name] = look
            if progress is not None:
                progress(len(looks), len(names))
    members = {split: set(ids) for split, ids in listed.items()}
    classes, findings = _classes(layout, looks)
    counts = [_count(i, name, members, looks) for i, name in enumerate(classes)]
    findings += itertools.chain(
        _in_lists(listed),
        *(look.findings for look in looks.values()),
        _in_ids(layout, looks, len(classes)),
        _in_classes(layout, looks, counts),
        _in_copies(layout, looks, members),
        _beside(layout, set(names), every=splits is None),
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


def _classes(layout: Layout, looks: _Looks) -> tuple[list[str], list[Finding]]:
    """The class names, and what is wrong with them."""
    findings = []
    try:
        if names := class_names(layout):
            return names, []
    except DataError as error:
        findings.append(Finding("error", "classes", "classes.txt", str(error)))
    ids = _total(looks)[:VOID].nonzero()[0]
    return numbered_classes(int(ids.max(initial=0))), findings


def _count(i: int, name: str, members: Mapping[str, set[str]], looks: _Looks) -> ClassCount:
    each = {split: [int(looks[key].pixels[i]) for key in ids] for split, ids in members.items()}
    images = {split: sum(n > 0 for n in pixels) for split, pixels in each.items()}
    return ClassCount(name, i, images, {split: sum(pixels) for split, pixels in each.items()})


def _in_lists(listed: Mapping[str, list[str]]) -> Iterator[Finding]:
    for split, ids in listed.items():
        if not ids:
            message = (
                "has no pictures; write their ids into its list, or put them into its folder "
                "(without lists and folders, val is every fifth picture)"
            )
            yield Finding("error", "empty-split", split, message)
        if twice := [name for name, n in Counter(ids).items() if n > 1]:
            message = f"lists twice: {_few(twice)}; list every picture once"
            yield Finding("warning", "listed-twice", split, message)
    for (a, first), (b, second) in itertools.combinations(listed.items(), 2):
        if both := sorted(set(first) & set(second)):
            message = (
                f"share {_few(both)}, wanted splits apart, since figures on pictures trained on "
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
                "void; correct the mask or add names to classes.txt"
            )
            yield Finding("error", "unknown-ids", place(layout, layout.masks.file(name)), message)


def _in_classes(layout: Layout, looks: _Looks, counts: Sequence[ClassCount]) -> Iterator[Finding]:
    total = _total(looks)
    if not total[1:VOID].any():
        if total.any():
            message = f"hold nothing but 0 (background) and {VOID} (void); mark objects by 1, 2 ..."
            yield Finding("error", "only-background", place(layout, layout.masks.path), message)
        return
    labeled = [split for split in counts[0].pixels if any(count.pixels[split] for count in counts)]
    for split, count in itertools.product(labeled, counts):
        n = count.images[split]
        if not n:
            message = f"does not occur in {split}; add pictures of it, or do not count on it there"
            yield Finding("warning", "empty-class", count.name, message)
        elif split == "train" and n < _ENOUGH:
            message = f"occurs in {n} of the pictures of train, wanted {_ENOUGH} or more; add some"
            yield Finding("warning", "rare-class", count.name, message)


def _in_copies(layout: Layout, looks: _Looks, members: Mapping[str, set[str]]) -> Iterator[Finding]:
    """Find each picture that shows the same as an earlier one; near copies only across splits."""
    homes = {name: [s for s, ids in members.items() if name in ids] for name in looks}
    names = [name for name, look in looks.items() if look.digest]
    thumbs = np.array([looks[name].thumb for name in names])
    firsts: dict[str, str] = {}
    for i, name in enumerate(names):
        where = place(layout, layout.images.file(name))
        first = firsts.setdefault(looks[name].digest, name)
        if first != name:
            counts = [look.pixels.tolist() for look in (looks[first], looks[name])]
            differ = counts[0] != counts[1] and all(map(any, counts))
            message = f"has the same pixels as {first}" + ", but another mask" * differ
            if set(homes[name]) & set(homes[first]):
                message += "; remove one, or it counts twice"
                yield Finding("warning", "duplicate-in-split", where, message)
            else:
                message += f" of {', '.join(homes[first])}; remove one, or figures are worthless"
                yield Finding("error", "duplicate-across-splits", where, message)
            continue
        alike = thumbs[:i] @ thumbs[i]
        near = np.flatnonzero(alike > _ALIKE)
        apart = [j for j in near if not set(homes[name]) & set(homes[names[j]])]
        if apart:
            other = names[max(apart, key=lambda j: alike[j])]
            message = (
                f"looks much like {other} of {', '.join(homes[other])}; if they are one picture, "
                "or frames of one film, keep them in one split"
            )
            yield Finding("warning", "near-duplicate", where, message)


def _beside(layout: Layout, names: set[str], every: bool) -> Iterator[Finding]:
    """Find files that take no part: masks without picture and, among all splits, unlisted pairs."""
    for name in sorted(layout.masks.files.keys() - layout.images.files):
        where = place(layout, layout.masks.files[name][0])
        message = f"belongs to no picture in {layout.images.path}; name it as its picture"
        yield Finding("warning", "extra-mask", where, message)
    if every and (rest := sorted((layout.images.files.keys() & layout.masks.files) - names)):
        message = f"has labeled pictures in no split: {_few(rest)}; list them to have them used"
        where = place(layout, layout.images.path)
        yield Finding("warning", "unlisted", where, message)


def _total(looks: _Looks) -> NDArray[np.int64]:
    return sum((look.pixels for look in looks.values()), np.zeros(256, np.int64))


def _few(items: Sequence[object]) -> str:
    more = f" … ({len(items)})" if len(items) > 5 else ""
    return ", ".join(map(str, items[:5])) + more
