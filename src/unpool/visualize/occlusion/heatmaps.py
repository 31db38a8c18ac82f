"""Maps of an occluder's stops as images, as large as the image that it slides over."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unpool.vision.drawing import contact_sheet
from unpool.visualize.images import GRAY
from unpool.visualize.occlusion.window import Sliding

Panel = tuple[NDArray[np.uint8], str]
"""An image (H, W, 3) uint8, RGB, with its caption."""

_KINDS = np.array(
    [
        *((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167)),
        *((86, 180, 233), (213, 94, 0), (240, 228, 66), (60, 60, 60)),
    ],
    np.uint8,
)
"""Colors that are also told apart by people who see few (Okabe, Ito 2008)."""
_OTHERS = (190, 190, 190)
_LEGEND = 400  # pixels


def heat_panel(values: Tensor, sliding: Sliding, caption: str) -> Panel:
    """Show a value for every stop, dark where it is low, and tell its range in the caption.

    Each pixel has the value of the stop whose middle is nearest; gray where there is none.

    Args:
        values: (rows, columns).
        sliding: where the stops are.
        caption: what the values are.

    >>> sliding = Sliding((4, 6), (2, 2), (2, 2))
    >>> shown, caption = heat_panel(Tensor([[0, 1, 2], [3, 4, 5]]), sliding, "sum")
    >>> shown.shape, caption
    ((4, 6, 3), 'sum: 0 (dark) to 5')
    """
    found = np.asarray(values, np.float64)
    known = np.isfinite(found)
    low, high = (float(f(found[known])) if known.any() else 0.0 for f in (np.min, np.max))
    scaled = (np.where(known, found, low) - low) / ((high - low) or 1.0)
    steps = np.rint(255 * scaled).astype(np.uint8)
    colors = cv2.applyColorMap(steps, cv2.COLORMAP_VIRIDIS)[..., ::-1].copy()
    colors[~known] = GRAY
    ends = f"{_number(low)} (dark) to {_number(high)}"
    return _enlarged(colors.astype(np.uint8), sliding), f"{caption}: {ends}"


def kind_panels(labels: Tensor, sliding: Sliding, names: Sequence[str]) -> list[Panel]:
    """Show a class for every stop, and a legend of the classes, the most frequent first.

    Args:
        labels: (rows, columns), class numbers.
        sliding: where the stops are.
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
    legend = _legend(list(zip(colors.tolist(), titles, strict=False)))
    return [(_enlarged(shown, sliding), "most probable class"), (legend, "fraction of the stops")]


def outlined(photo: NDArray[np.uint8], sliding: Sliding) -> NDArray[np.uint8]:
    """An image with the outline of the occluder at the middle stop."""
    boxes = sliding.boxes()
    rows, columns = sliding.shape
    x0, y0, x1, y1 = boxes[(rows - 1) // 2 * columns + (columns - 1) // 2]
    image = Image.fromarray(photo)
    ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), outline="white")
    return np.array(image)


def sheet(panels: Sequence[Panel]) -> NDArray[np.uint8]:
    """The panels as one figure, three a row."""
    shown = []
    for image, caption in panels:
        times = max(_LEGEND // max(image.shape[:2]), 1)  # cells keep their edges
        shown.append((image.repeat(times, 0).repeat(times, 1), caption))
    return contact_sheet(shown, min(len(shown), 3))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _enlarged(colors: NDArray[np.uint8], sliding: Sliding) -> NDArray[np.uint8]:
    rows, columns = (sliding.nearest(axis).numpy() for axis in (0, 1))
    return colors[rows][:, columns]


def _legend(rows: Sequence[tuple[tuple[int, ...], str]]) -> NDArray[np.uint8]:
    """Swatches and names on white."""
    image = Image.new("RGB", (_LEGEND, _LEGEND), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(20)
    for i, (color, text) in enumerate(rows):
        y = 14 + 42 * i
        draw.rectangle((8, y, 36, y + 28), tuple(color), "black")
        while font.getlength(text) > _LEGEND - 56:
            text = text[:-2].rstrip("…") + "…"
        draw.text((48, y + 14), text, "black", font, anchor="lm")
    return np.array(image)
