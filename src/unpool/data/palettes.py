"""Find out whether the palettes of masks agree, and which classes their colors mean.

Programs that optimize PNG files reorder palettes, so that an index means one class in one mask and
another in the next. The colors still tell. Colors are compared at the indices that pixels use; gray
masks, and palettes whose colors are the gray values of their indices, have none.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from unpool.data.colors import (
    CREAM,
    WRITE,
    Coloring,
    MaskColors,
    as_numbers,
    has_colors,
    rgb_text,
    scan_colors,
    stored_palette,
)
from unpool.data.layouts.voc import VOC_CLASSES
from unpool.errors import DataError
from unpool.vision.images import VOID, voc_palette

if TYPE_CHECKING:
    from unpool.data.layouts.layout import Names

_CURE = "map colors to classes with by_color=True, or trust the indices with by_color=False"


class Conflict(NamedTuple):
    """Why the indices of masks cannot be trusted."""

    mask: Path
    message: str


def find_coloring(
    masks: Sequence[Path], names: "Names | None", by_color: bool | None
) -> Coloring | None:
    """How to read the colors of masks: by those of a file or of VOC, or else of most masks.

    Args:
        masks: the files of all masks of a data set.
        names: its classes, if they have names.
        by_color: whether colors are used where pixels have indices, too.

    Returns:
        None if no color is to be read.

    Raises:
        DataError: with `by_color`, nothing says which class a color means.
    """
    ids, source = _known(names)
    if not by_color:
        needed = names and names.colors and any(map(has_colors, masks))
        return Coloring(ids, source, everywhere=False) if needed else None
    found = [mask for mask in map(scan_colors, masks) if mask]
    if not found and not (names and names.colors):
        raise DataError("got by_color=True for masks without colors; leave it out")
    if not ids:
        voc, used = _voc(names.classes if names else VOID), _used(found)
        indexed = [mask for mask in found if mask.indexed]
        if not used <= voc.keys():
            ids, source = _majority(indexed)
        elif _contradicts(voc, indexed):
            raise DataError(
                "got masks in the colors of PASCAL VOC, most of which have them at other indices "
                f"than VOC, so that either may say which class a color is; {WRITE}"
            )
        else:
            ids, source = voc, "PASCAL VOC"
    return Coloring(ids, source)


def find_conflict(masks: Sequence[Path], names: "Names | None") -> Conflict | None:
    """The first palette that contradicts that of another mask, or the known colors of classes.

    Masks that cannot be read are left out.
    """
    ids, source = _known(names)
    palettes = {palette for path in masks if (palette := stored_palette(path))}
    if all(_fits(palette, ids or _voc(VOID)) for palette in palettes) and len(palettes) < 2:
        return None  # the usual case: all masks have one palette, and need not be decoded
    found = [mask for mask in map(scan_colors, masks) if mask and mask.indexed]
    if conflict := _compare(found):
        return conflict
    if not ids:  # own classes: VOC's colors may stand for them if there are as many
        highest = max((mask.used[-1] for mask in found), default=0)
        voc = _voc(names.classes if names else highest + 1)
        ids, source = (voc, "PASCAL VOC") if _used(found) <= voc.keys() else ({}, "")
    for mask in found:
        for i in mask.used:
            if (other := ids.get(int(mask.colors[i]), i)) != i:
                message = f"has {rgb_text(int(mask.colors[i]))} at index {i}, which is the color "
                message += f"of {_title(other, names)} in {source}"
                return Conflict(mask.path, f"{message}; {_CURE}")
    return None


def describe(coloring: Coloring | None) -> tuple[str, ...]:
    """What to say of a data set that is read by color, if it is."""
    return (f"masks are read by color: those of {coloring.source}",) if coloring else ()


def _known(names: "Names | None") -> tuple[dict[int, int], str]:
    """The class ids by color if the colors of the classes are known, and whose they are."""
    if names and names.colors:
        times = Counter(names.colors.values())  # a color of two classes says nothing
        listed = {i: color for i, color in names.colors.items() if times[color] == 1}
        ids = dict(zip(as_numbers(np.array([*listed.values()])).tolist(), listed, strict=True))
        ids.setdefault(CREAM, VOID)
        return ids, names.file.name if names.file else "the layout"
    if names and names.classes == VOC_CLASSES:
        return _voc(names.classes), "PASCAL VOC"
    return {}, ""


def _voc(classes: Sequence[str] | int) -> dict[int, int]:
    """The ids of VOC's colors of so many classes, and of void."""
    k = classes if isinstance(classes, int) else len(classes)
    codes = as_numbers(voc_palette()).tolist()
    return {code: i for i, code in enumerate(codes) if i < k or i == VOID}


def _fits(palette: tuple[str, bytes], ids: Mapping[int, int]) -> bool:
    """Whether no index of a palette has the color of another class, whatever pixels use."""
    order, stored = palette
    if order != "RGB" or len(stored) % 3:
        return False
    colors = as_numbers(np.frombuffer(stored, np.uint8).reshape(-1, 3)).tolist()
    return all(ids.get(color, i) == i for i, color in enumerate(colors))


def _compare(masks: Iterable[MaskColors]) -> Conflict | None:
    """Find an index with two colors, or a color at two indices that no one palette has."""
    at: dict[int, MaskColors] = {}
    of: dict[int, tuple[int, MaskColors]] = {}
    for mask in masks:
        for i in mask.used:
            color = int(mask.colors[i])
            first = at.setdefault(i, mask)
            if first.colors[i] != color:
                message = f"has {rgb_text(color)} at index {i}, where {first.path} has "
                return Conflict(mask.path, f"{message}{rgb_text(int(first.colors[i]))}; {_CURE}")
            j, other = of.setdefault(color, (i, mask))
            if j != i and mask.colors[j] != color and other.colors[i] != color:
                message = f"has {rgb_text(color)} at index {i}, which is at {j} in {other.path}"
                return Conflict(mask.path, f"{message}; {_CURE}")
    return None


def _majority(masks: Sequence[MaskColors]) -> tuple[dict[int, int], str]:
    """The ids of colors by the most common palette, and by others for those that it lacks."""
    if not masks:
        raise DataError(f"got masks whose colors are those of no known classes; {WRITE}")
    common = Counter(mask.colors.tobytes() for mask in masks).most_common(1)[0][0]
    group = [mask for mask in masks if mask.colors.tobytes() == common]
    used = {i for mask in group for i in mask.used}
    rows: dict[int, list[int]] = {}
    for i, color in enumerate(group[0].colors.tolist()):
        rows.setdefault(color, []).append(i)
    picked = {color: [i for i in found if i in used] or found for color, found in rows.items()}
    ids = {color: found[0] for color, found in picked.items() if len(found) == 1}
    votes = Counter((int(mask.colors[i]), i) for mask in masks for i in mask.used)
    for (color, i), _ in votes.most_common():
        if color not in rows and color not in ids and i not in ids.values():
            ids[color] = i
    agreeing = [mask for mask in masks if all(ids.get(int(mask.colors[i])) == i for i in mask.used)]
    sorted_by_use = len(agreeing) < len(masks) and ids.get(0)  # black, which is the background
    if sorted_by_use or 2 * len(agreeing) <= len(masks) or not _used(masks) <= ids.keys():
        raise DataError(
            f"got {len(masks)} masks whose palettes disagree so much that none says which class a "
            f"color is; {WRITE}"
        )
    some = agreeing[0].path
    return ids, f"the palette of {len(agreeing)} of {len(masks)} masks, such as {some}"


def _contradicts(ids: Mapping[int, int], masks: Sequence[MaskColors]) -> bool:
    """Whether most masks, but not all, agree on other ids."""
    if _compare(masks) is None:
        return False
    try:
        most, _ = _majority(masks)
    except DataError:
        return False
    return any(most[color] != ids[color] for color in _used(masks))


def _title(i: int, names: "Names | None") -> str:
    """An id with the name of its class."""
    if names is None or i == VOID:
        return "void (255)" if i == VOID else f"class {i}"
    return f"{names.classes[i]} ({i})" if i < len(names.classes) else f"void ({i})"


def _used(masks: Iterable[MaskColors]) -> set[int]:
    return {int(mask.colors[i]) for mask in masks for i in mask.used}
