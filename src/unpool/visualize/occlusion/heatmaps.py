"""Maps of an occluder's stops as images, as large as the image that it slides over."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from unpool.vision.drawing import heat_map, outline
from unpool.vision.figures import Tile, contact_sheet, legend, scale_to
from unpool.vision.images import Pixels
from unpool.visualize.occlusion.window import Windows

_KINDS = np.array(
    [
        *((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167)),
        *((86, 180, 233), (213, 94, 0), (240, 228, 66), (60, 60, 60)),
    ],
    np.uint8,
)
"""Colors that color-blind people can distinguish, too (Okabe, Ito 2008)."""
_OTHERS = (190, 190, 190)
_LEGEND = 400  # pixels


def heat_panel(values: Tensor, windows: Windows, caption: str) -> Tile:
    """Show a value for every window, dark where it is low, with its range in the caption.

    Each pixel has the value of the stop whose middle is nearest; gray where there is none.

    Args:
        values: (rows, columns).
        windows: where the stops are.
        caption: what the values are.

    >>> windows = Windows((4, 6), (2, 2), (2, 2))
    >>> shown, caption = heat_panel(Tensor([[0, 1, 2], [3, 4, 5]]), windows, "sum")
    >>> shown.shape, caption
    ((4, 6, 3), 'sum: 0 (dark) to 5')
    """
    found = np.asarray(values, np.float64)
    known = found[np.isfinite(found)]
    low, high = (float(f(known)) if known.size else 0.0 for f in (np.min, np.max))
    ends = f"{_number(low)} (dark) to {_number(high)}"
    return _enlarged(heat_map(found), windows), f"{caption}: {ends}"


def kind_panels(labels: Tensor, windows: Windows, names: Sequence[str]) -> list[Tile]:
    """Show a class for every stop, and a legend of the classes, the most frequent first.

    Args:
        labels: (rows, columns), class numbers.
        windows: where the stops are.
        names: by class number.
    """
    found = np.asarray(labels)
    kinds, where, counts = np.unique(found, return_inverse=True, return_counts=True)
    ranks = np.empty(len(kinds), np.int64)
    ranks[order := np.argsort(-counts, kind="stable")] = np.arange(len(kinds))
    colors = np.concatenate([_KINDS, [_OTHERS]]).astype(np.uint8)
    shown = colors[np.minimum(ranks[where.reshape(found.shape)], len(_KINDS))]
    titles = [
        f"{names[k] if k < len(names) else f'class {k}'}, {counts[i] / found.size:.0%}"
        for i, k in zip(order.tolist(), kinds[order].tolist(), strict=True)
    ]
    if len(titles) > len(_KINDS):
        rest = counts[order[len(_KINDS) :]].sum() / found.size
        titles[len(_KINDS) :] = [f"{len(titles) - len(_KINDS)} others, {rest:.0%}"]
    white = np.full((_LEGEND, _LEGEND, 3), 255, np.uint8)
    keys = legend(white, list(zip(colors.tolist(), titles, strict=False)), size=24)
    return [(_enlarged(shown, windows), "most probable class"), (keys, "fraction of the stops")]


def outlined(image: Pixels, windows: Windows) -> Pixels:
    """An image with the outline of the occluder at the middle stop."""
    rows, columns = windows.shape
    return outline(image, windows.boxes()[(rows - 1) // 2 * columns + (columns - 1) // 2])


def sheet(panels: Sequence[Tile]) -> Pixels:
    """The panels as one figure, three a row."""
    shown = [(scale_to(image, max(_LEGEND, *image.shape[:2])), text) for image, text in panels]
    return contact_sheet(shown, min(len(shown), 3))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _enlarged(colors: Pixels, windows: Windows) -> Pixels:
    rows, columns = (windows.nearest(axis).numpy() for axis in (0, 1))
    return colors[rows][:, columns]
