"""Check a data set before training on it: find everything that would spoil a training run."""

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unpool.data.datasets import gray_values, only_background
from unpool.data.inspect import Finding, Inspection, inspect_image, location
from unpool.data.layouts import (
    Layout,
    Names,
    assumption,
    class_names,
    find_files,
    list_splits,
    names_file,
    numbered_classes,
    split_names,
    why_empty,
)
from unpool.data.palettes import describe, find_coloring, find_conflict
from unpool.data.weak import FILE, read_image_classes
from unpool.errors import DataError, few, one_line
from unpool.vision.images import VOID

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.data.outlines import Crowd

_ById: TypeAlias = Mapping[str, Inspection]  # by the image's id

_ENOUGH = 5  # images of a class for training
_WHITE = 0.1  # fraction of masks with 0 and 255 alone; of 537 in the style of VOC, none is

# Correlation of thumbnails. For copies at half the size, or JPEGs of quality 20, it is 0.997 or
# more; for different images 0.95 or less, except shots of one scene and frames of a film.
_ALIKE = 0.99


class ClassCount(NamedTuple):
    """The number of images, objects and pixels of a class."""

    name: str
    id: int
    images: dict[str, int]  #: images with the class, by split
    objects: dict[str, int]  #: by split; empty without object masks
    pixels: dict[str, int]  #: by split


@dataclass(frozen=True)
class Report:
    """The result of checking a data set."""

    splits: dict[str, int]  #: number of images by split
    classes: list[ClassCount]  #: by id
    findings: list[Finding]  #: errors first
    notes: tuple[str, ...] = ()  #: how the masks and classes were read
    layout: str = ""  #: the name of the layout that was recognized

    @property
    def ok(self) -> bool:
        """Whether there are no errors; there may be warnings."""
        return all(finding.level != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "ok": self.ok,
            "layout": self.layout,
            "splits": self.splits,
            "classes": [count._asdict() for count in self.classes],
            "findings": [finding._asdict() for finding in self.findings],
            "notes": list(self.notes),
        }


def check_data(
    root: str | Path,
    splits: Sequence[str] | None = None,
    *,
    by_color: bool | None = None,
    crowd: "Crowd | None" = None,
    progress: "Progress" = lambda done, total, doing: None,
) -> Report:
    """Read all images and masks and report everything that would spoil a training run.

    Errors stop a training run or make its figures worthless: missing or unreadable files,
    different sizes (EXIF rotation is recognized), color-coded masks, palettes that disagree, photos
    in place of masks, unknown class ids, masks with background only, annotations that cannot be
    rasterized, and an image in two splits, under the same name or another. Warnings may be intended
    or tolerable: rare classes, near duplicates, masks without images ...

    By default all splits are checked except unions of others, such as VOC's trainval. See
    `open_data` for `by_color` and `crowd`.

    Raises:
        DataError: the folder is not a data set, the split does not exist, or a list is unreadable.

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
    layout = find_files(root, crowd=crowd)
    listed = _listed(layout, splits)
    names = list(dict.fromkeys(itertools.chain(*listed.values())))
    known, findings = None, []
    try:
        known = class_names(layout)
    except DataError as error:
        where = location(layout, names_file(layout.root) or layout.root)
        findings.append(Finding("error", "classes", where, str(error)))
    coloring = None
    try:
        coloring = find_coloring(layout.mask_images(), known, by_color)
    except DataError as error:
        findings.append(Finding("error", "colors", location(layout, layout.masks.path), str(error)))
    void = known.void if known else VOID
    inspect = partial(inspect_image, layout, void=void, coloring=coloring)
    images: dict[str, Inspection] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as workers:
        for name, seen in zip(names, workers.map(inspect, names), strict=True):
            images[name] = seen
            progress(len(images), len(names), "checking")
    members = {split: set(ids) for split, ids in listed.items()}
    highest = int(_total(images)[:VOID].nonzero()[0].max(initial=0))
    classes = known.classes if known else numbered_classes(highest)
    counts = [_count(i, layout, name, members, images) for i, name in enumerate(classes)]
    weak, wrong = _weak_images(layout, classes)
    findings += wrong
    findings += itertools.chain(
        _check_lists(layout, listed),
        _check_palettes(layout, known) if by_color is None else (),
        *(_of_image(seen, name in weak) for name, seen in images.items()),
        _check_ids(layout, images, len(classes), known),
        _check_classes(layout, images, members, counts, unnamed=not known and not findings),
        _check_copies(layout, images, members),
        _check_folders(layout, set(names), every=splits is None),
        _check_objects(layout, names),
    )
    findings = [  # names of files and in files may have any characters
        each._replace(where=one_line(each.where), message=one_line(each.message))
        for each in sorted(findings, key=lambda finding: finding.level)  # errors come first
    ]
    notes = (*describe(coloring), *_notes(known, classes, counts, len(weak & {*names})))
    sizes = {split: len(ids) for split, ids in members.items()}
    return Report(sizes, counts, findings, notes, layout.format)


def _weak_images(layout: Layout, classes: list[str]) -> tuple[set[str], list[Finding]]:
    """The images without a mask whose classes are listed, and what is wrong with the list."""
    try:
        return {*read_image_classes(layout.root / FILE, classes)} - {*layout.masks.files}, []
    except DataError as error:
        return set(), [Finding("error", "image-classes", FILE, str(error))]


def _notes(
    known: Names | None, classes: list[str], counts: Sequence[ClassCount], without: int
) -> Iterator[str]:
    """How many images have classes without a mask, and which class names were assumed."""
    if without:
        yield f"{without} images have no mask, but classes in {FILE}"
    shown = [sum(count.images.values()) for count in counts]
    if known and (assumed := assumption(known.assumed, classes, shown)):
        yield assumed


def _of_image(seen: Inspection, weak: bool) -> Iterator[Finding]:
    """The findings of an image; `weak` if it needs no mask."""
    return (each for each in seen.findings if each.kind != "missing-mask" or not weak)


def _listed(layout: Layout, splits: Sequence[str] | None) -> dict[str, list[str]]:
    """The ids of each split; by default of all splits that are not unions of others."""
    if splits is not None:
        return {split: split_names(layout, split) for split in splits}
    listed = {split: split_names(layout, split) for split in list_splits(layout)}
    sets = {split: set(ids) for split, ids in listed.items()}
    for split, ids in sets.items():
        parts = [part for part in sets.values() if part and part < ids]
        if len(parts) > 1 and set().union(*parts) == ids:
            del listed[split]
    return listed


def _count(
    i: int, layout: Layout, name: str, members: Mapping[str, set[str]], images: _ById
) -> ClassCount:
    pixels = {split: [int(images[key].pixels[i]) for key in ids] for split, ids in members.items()}
    objects = {}
    if layout.instances or layout.outlines:
        objects = {s: sum(int(images[key].objects[i]) for key in ids) for s, ids in members.items()}
    with_class = {split: sum(n > 0 for n in each) for split, each in pixels.items()}
    return ClassCount(name, i, with_class, objects, {s: sum(each) for s, each in pixels.items()})


def _check_lists(layout: Layout, listed: Mapping[str, list[str]]) -> Iterator[Finding]:
    for split, ids in listed.items():
        if not ids:
            yield Finding("error", "empty-split", split, why_empty(layout, split))
        if twice := [name for name, n in Counter(ids).items() if n > 1]:
            message = f"lists twice: {few(twice)}; list each image once"
            yield Finding("warning", "listed-twice", split, message)
    for (a, first), (b, second) in itertools.combinations(listed.items(), 2):
        if both := sorted(set(first) & set(second)):
            message = (
                f"share {few(both)}, wanted disjoint splits; take them out of one list (if one "
                "list is meant to contain the other, name the splits to check)"
            )
            yield Finding("error", "listed-twice", f"{a}, {b}", message)


def _check_palettes(layout: Layout, known: Names | None) -> Iterator[Finding]:
    if conflict := find_conflict(layout.mask_images(), known):
        yield Finding("error", "palettes", location(layout, conflict.mask), conflict.message)


def _check_ids(
    layout: Layout, images: _ById, classes: int, known: Names | None
) -> Iterator[Finding]:
    colors = known.colors.values() if known else ()
    gray = {color[0] for color in colors if len(set(color)) == 1}
    ids = _total(images)[:VOID].nonzero()[0].tolist()
    n = sum(seen.pixels[classes] > 0 for seen in images.values()) if classes < VOID else 0
    if ids and ids[-1] == classes and 2 * n > sum(seen.pixels.any() for seen in images.values()):
        # a mistake of all masks: one more id than there are names
        message = f"have the ids {few(ids)}, wanted 0 to {classes - 1}; "
        message += "subtract 1 from all" if ids[0] else "write background as the first name"
        message += f" if {classes} is the last of the {classes} named classes, or {_cure(layout)}"
        yield Finding("error", "unknown-ids", location(layout, layout.masks.path), message)
        return
    for name, inspection in images.items():
        wrong = inspection.pixels[classes:VOID].nonzero()[0] + classes
        if wrong.size:
            message = f"has the ids {few(wrong.tolist())}, wanted 0 to {classes - 1}, or {VOID}"
            message += f" for void; correct the mask or {_cure(layout)}"
            if gray.issuperset(wrong.tolist()):
                message += ", or pass by_color=True, since they are gray colors of classes"
            yield Finding("error", "unknown-ids", location(layout, layout.mask(name)), message)


def _cure(layout: Layout) -> str:
    """How to name the classes."""
    if listed := names_file(layout.root):
        return f"add names to {listed}"
    names = "one name per line, whose number (from 0) is the class id"
    return f"write {layout.root / 'classes.txt'}: {names}"


def _check_classes(
    layout: Layout,
    images: _ById,
    members: Mapping[str, set[str]],
    counts: Sequence[ClassCount],
    unnamed: bool,
) -> Iterator[Finding]:
    total, where = _total(images), location(layout, layout.masks.path)
    if message := only_background(total):
        yield Finding("error", "only-background", where, message)
    if not total[1:VOID].any():
        return
    white = [name for name, seen in images.items() if only_background(seen.pixels)]
    white = [name for name in white if images[name].pixels[0] and images[name].pixels[VOID]]
    if len(white) > _WHITE * len(images):
        message = f"hold only 0 and {VOID} (void) for {few(white)}; if {VOID} marks objects there, "
        yield Finding("warning", "void-objects", where, message + "give them the ids of classes")
    for split, ids in members.items():
        part = _total({name: images[name] for name in ids})
        if part[0] and part[VOID] and (message := only_background(part)):
            yield Finding("error", "only-background", split, f"has masks that {message}")
    if unnamed and not total[: len(counts)].all():  # gaps suggest gray values rather than class ids
        found = total[:VOID].nonzero()[0]
        if message := gray_values(found):
            yield Finding("error", "unnamed-classes", where, message)
            return
        message = f"contain the ids {few(found.tolist())}, which have no names; {_cure(layout)}"
        yield Finding("warning", "unnamed-classes", where, message)
        counts = [count for count in counts if total[count.id]]
    labeled = [split for split in counts[0].pixels if any(count.pixels[split] for count in counts)]
    for split, count in itertools.product(labeled, counts):
        n = count.images[split]
        if not n:
            message = f"does not occur in {split}; add images of it, or ignore its figures there"
            yield Finding("warning", "empty-class", count.name, message)
        elif split == "train" and n < _ENOUGH:
            message = f"occurs in {n} training images, wanted {_ENOUGH} or more; add some"
            yield Finding("warning", "rare-class", count.name, message)


def _check_copies(
    layout: Layout, images: _ById, members: Mapping[str, set[str]]
) -> Iterator[Finding]:
    """Find images that are duplicates of earlier ones, and near duplicates across splits."""
    splits = {name: [s for s, ids in members.items() if name in ids] for name in images}
    names = [name for name, inspection in images.items() if inspection.image_digest]
    thumbs = np.array([images[name].thumbnail for name in names])
    firsts: dict[str, str] = {}
    for i, name in enumerate(names):
        where = location(layout, layout.images.file(name))
        first = firsts.setdefault(images[name].image_digest, name)
        if first != name:
            apart = not set(splits[name]) & set(splits[first])
            other = f"{first} of {', '.join(splits[first])}" if apart else first
            kind = "duplicate-across-splits" if apart else "duplicate-in-split"
            harm = "figures are worthless" if apart else "it counts twice"
            message = f"has the same pixels as {other}; remove one, or {harm}"
            digests = {images[name].labels_digest, images[first].labels_digest}
            if len(digests) > 1 and "" not in digests:
                kind = "contradiction"
                message = f"is the same image as {other} but with another mask; keep the right one"
            yield Finding("error" if apart else "warning", kind, where, message)
            continue
        alike = thumbs[:i] @ thumbs[i]
        near = np.flatnonzero(alike > _ALIKE)
        others = [j for j in near if not set(splits[name]) & set(splits[names[j]])]
        if others:
            other = names[max(others, key=lambda j: alike[j])]
            message = f"looks nearly like {other} of {', '.join(splits[other])}; if they are one "
            message += "image, or frames of one film, keep them in one split"
            yield Finding("warning", "near-duplicate", where, message)


def _check_folders(layout: Layout, names: set[str], every: bool) -> Iterator[Finding]:
    """Masks without image and, if all splits are checked, unlisted pairs."""
    for name in sorted(layout.masks.files.keys() - layout.images.files):
        where = location(layout, layout.masks.files[name][0])
        message = f"belongs to no image in {layout.images.path}; give it the name of its image"
        yield Finding("warning", "extra-mask", where, message)
    if every and (rest := sorted((layout.images.files.keys() & layout.masks.files) - names)):
        message = f"has labeled images in no split: {few(rest)}; list them to use them"
        where = location(layout, layout.images.path)
        yield Finding("warning", "unlisted", where, message)


def _check_objects(layout: Layout, names: Sequence[str]) -> Iterator[Finding]:
    """Find images without object mask if others have one, and what the layout notes."""
    if layout.instances:
        labeled = [name for name in names if name in layout.masks.files]
        if bare := [name for name in labeled if name not in layout.instances.files]:
            message = f"has no object mask of {few(bare)}; draw them, or else the connected "
            message += "parts of each class are taken as objects"
            where = location(layout, layout.instances.path)
            yield Finding("warning", "no-object-mask", where, message)
    for kind, path, message in layout.notes:
        yield Finding("warning", kind, location(layout, path), message)


def _total(images: _ById) -> NDArray[np.int64]:
    return sum((inspection.pixels for inspection in images.values()), np.zeros(256, np.int64))
