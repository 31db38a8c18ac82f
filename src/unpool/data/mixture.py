"""Several data sets as one: FOLDER, FOLDER:SPLIT or FOLDER:SPLIT=WEIGHT for each part.

The weight says how often the images of a part are drawn in training, relative to the others: at
0.3, three in ten times as often. A split whose name begins with "pseudo" or "taught" has masks made
by a network; the model card tells such parts from true masks. FOLDER:unlabeled has images without
masks, of which those with soft labels are used.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unpool.data.datasets import DataSet, Sample, open_data
from unpool.data.layouts import find_files, list_splits
from unpool.data.layouts.listing import IMAGES, list_folder
from unpool.errors import DataError, OptionError

UNLABELED = "unlabeled"
_TAUGHT = ("pseudo", "taught")
_PART = re.compile(r"(.+?)(?::([^:=/\\]+))?(?:=([^:=/\\]*))?")


class Part(NamedTuple):
    """A part of a mixture."""

    root: Path
    split: str | None = None  #: None for the usual one
    weight: float = 1.0

    def resolve(self) -> "Part":
        """The part with an absolute folder."""
        return self._replace(root=self.root.resolve())

    def __str__(self) -> str:
        split = "" if self.split is None else f":{self.split}"
        weight = "" if self.weight == 1 else f"={self.weight:g}"
        return f"{self.root}{split}{weight}"


def parse_part(text: str | Path) -> Part:
    """The part that a text names; the name of an existing folder may hold : and =.

    >>> part = parse_part("own:pseudo=0.3")
    >>> part.root.name, part.split, part.weight
    ('own', 'pseudo', 0.3)
    """
    folder, split, number = str(text), None, None
    if not Path(folder).is_dir() and (found := re.fullmatch(_PART, folder)):
        folder, split, number = found.groups()
    try:
        weight = 1.0 if number is None else float(number)
    except ValueError:
        weight = math.nan
    if not 0 < weight <= 1000:
        raise OptionError(
            f"got data {text} of weight {number!r}; wanted FOLDER:SPLIT=WEIGHT with a number above "
            "0, such as own:pseudo=0.3"
        )
    return Part(Path(folder), split, weight)


def validation_parts(parts: Sequence[Part], val: Sequence[str]) -> list[Part]:
    """The parts to validate on: FOLDER:SPLIT, or the name of a split of the training folders.

    A name stands for that split of each training folder that has it.
    """
    found: dict[Part, None] = {}
    roots = dict.fromkeys(part.root for part in parts if part.split != UNLABELED)
    for text in val:
        if ":" in text:
            found[parse_part(text)] = None
            continue
        own = [root for root in roots if len(roots) == 1 or text in list_splits(find_files(root))]
        if not own and text != "all":
            folders = ", ".join(map(str, roots))
            raise DataError(f"got split {text!r}, which none of {folders} has; give FOLDER:SPLIT")
        found |= dict.fromkeys(Part(root, text) for root in own or roots)
    return list(found)


def open_parts(
    parts: Sequence[Part], split: str, soft: Path | None = None, **options: Any
) -> DataSet:
    """Open data sets and join them; their classes must be the same.

    Args:
        parts: those without a split get `split`.
        split: the usual split.
        soft: a folder of soft labels, NAME.npy for each image that has any, see `read_soft`.
        options: of `open_data`.

    Raises:
        DataError: as of `open_data`, other classes, or a folder without soft labels of any image.
    """
    labeled = [part for part in parts if part.split != UNLABELED]
    if not labeled:
        raise DataError(f"got {parts[0]} and no labeled images; add a folder with masks")
    opened = [open_data(part.root, part.split or split, **options) for part in labeled]
    first = opened[0]
    for part, other in zip(labeled, opened, strict=True):
        if other.classes != first.classes:
            raise DataError(
                f"got {part.root} with other classes than {first.root}; write the same names to "
                "their classes.txt"
            )
    every = iter(opened)
    sets = [
        _open_unlabeled(part, first, soft) if part.split == UNLABELED else next(every)
        for part in parts
    ]
    samples = [
        sample._replace(weight=part.weight, soft=_find_soft(soft, sample.name))
        for part, data in zip(parts, sets, strict=True)
        for sample in data.samples
    ]
    if soft is not None and not any(sample.soft for sample in samples):
        raise DataError(
            f"got soft={soft}, which has no soft labels of these images; wanted files such as "
            f"{samples[0].name}.npy, logits (classes, h, w)"
        )
    titles = tuple(map(_title, parts, sets))
    more: dict[str, Any] = {
        name: tuple(dict.fromkeys(text for data in sets for text in getattr(data, name)))
        for name in ("notes", "warnings")
    }
    return first._replace(samples=samples, titles=titles, **more)


def _open_unlabeled(part: Part, labeled: DataSet, soft: Path | None) -> DataSet:
    """The images of a folder that have soft labels, all of whose pixels are void."""
    if not part.root.is_dir():
        raise DataError(f"got {part.root}, which is no folder; wanted one of images")
    files = list_folder(part.root, IMAGES).files
    samples = [
        Sample(name, paths[0], None)
        for name, paths in files.items()
        if _find_soft(soft, name) is not None
    ]
    if not samples:
        got = f"got {part}, whose {len(files)} images have no soft labels"
        raise DataError(f"{got}; pass soft=FOLDER with a NAME.npy for each, or leave the part out")
    return DataSet(part.root, UNLABELED, samples, labeled.classes)


def _find_soft(folder: Path | None, name: str) -> Path | None:
    path = None if folder is None else folder / f"{name}.npy"
    return path if path is not None and path.is_file() else None


def _title(part: Part, data: DataSet) -> str:
    words = [f"{data.root.name} {data.split}"]
    words += ["masks made by a network"] * data.split.startswith(_TAUGHT)
    words += ["soft labels only"] * (data.split == UNLABELED)
    words += [f"weight {part.weight:g}"] * (part.weight != 1)
    return words[0] if len(words) == 1 else f"{words[0]} ({', '.join(words[1:])})"
