"""Overlays: labels, boxes and marks painted over an image."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from unpool.errors import OptionError, ShapeError
from unpool.vision.figures import legend
from unpool.vision.images import Labels, Pixels, check_image, indexed_image

_SPECK = 0.005  # fraction of an image below which a class is painted, but not named


def overlay(
    image: Pixels,
    labels: Labels,
    palette: Pixels,
    names: Sequence[str],
    *,
    opacity: float = 0.55,
    background: int = 0,
) -> Pixels:
    """Show labels on their image: colors, white borders, and a legend with fractions of the area.

    The legend names the classes on 0.5 % of the image or more. It stands in the corner with the
    fewest labeled pixels, on at most a quarter of the image: its text shrinks, then its smallest
    classes go, then all of it. Its font is ASCII.

    Args:
        image: the image, (H, W, 3) uint8, RGB.
        labels: class indices 0 to 255, (H, W), of any integer type.
        palette: colors of the first K classes, (K, 3) uint8, RGB, continued by `voc_palette`.
        names: class names; a class without one is shown by its number, 255 as "void".
        opacity: the weight of the colors, 0 to 1.
        background: the class that stays bare.

    Returns:
        A new image, (H, W, 3) uint8, RGB.

    Raises:
        ImageError: a label outside 0 to 255.
        OptionError: an opacity outside 0 to 1.
        ShapeError: arrays of other or differing shapes or types.

    >>> image, labels = np.zeros((4, 4, 3), np.uint8), np.eye(4, dtype=np.int64)
    >>> from unpool.vision.images import voc_palette
    >>> overlay(image, labels, voc_palette(), ["background", "aeroplane"]).shape
    (4, 4, 3)
    """
    if not 0 <= opacity <= 1:
        raise OptionError(f"got opacity {opacity}; wanted 0 (only the image) to 1 (only colors)")
    check_image(image)
    indexed = indexed_image(labels, palette)
    if image.shape[:2] != labels.shape:
        raise ShapeError(
            f"got labels of {labels.shape} for an image of {image.shape[:2]}; "
            "resize the labels to the image by nearest neighbor"
        )
    shown = np.array(Image.blend(Image.fromarray(image), indexed.convert("RGB"), opacity))
    labeled = labels != background
    shown[~labeled] = image[~labeled]
    shown[_borders(labels)] = 255

    colors = indexed.getpalette() or []
    titles = {255: "void", **dict(enumerate(names))}
    least = _SPECK * labels.size
    areas = [(n, k) for k, n in enumerate(indexed.histogram()) if n >= least and k != background]
    rows = []
    for n, k in sorted(areas, reverse=True):
        share = f"{n / labels.size:.0%}" if n >= 0.01 * labels.size else "<1%"
        rows.append((tuple(colors[3 * k : 3 * k + 3]), f"{titles.get(k, k)}  {share}"))
    _draw_legend(shown, labeled, rows)
    return shown


def outline(image: Pixels, box: Sequence[int], color: str = "white") -> Pixels:
    """Draw the outline of a box, one pixel wide, inside it.

    Args:
        image: (H, W, 3) uint8, RGB.
        box: x0, y0, x1, y1 in pixels, x1 and y1 excluded.
        color: as Pillow takes it.

    >>> outline(np.zeros((3, 3, 3), np.uint8), (0, 0, 3, 3))[:, :, 0].tolist()
    [[255, 255, 255], [255, 0, 255], [255, 255, 255]]
    """
    x0, y0, x1, y1 = box
    shown = Image.fromarray(image)
    ImageDraw.Draw(shown).rectangle((x0, y0, x1 - 1, y1 - 1), outline=color)
    return np.array(shown)


def _borders(labels: Labels) -> npt.NDArray[np.bool_]:
    """Where another class begins to the right or below: lines that grow with the image."""
    thick = max(1, round(min(labels.shape) / 400))
    edge = np.zeros(labels.shape, np.bool_)
    edge[:, :-thick] |= labels[:, :-thick] != labels[:, thick:]
    edge[:-thick] |= labels[:-thick] != labels[thick:]
    return edge


def _draw_legend(
    image: Pixels,
    labeled: npt.NDArray[np.bool_],
    rows: Sequence[tuple[tuple[int, ...], str]],
) -> None:
    """Draw swatches and texts into a corner, on at most half the width and half the height."""
    height, width = labeled.shape
    em = ImageFont.load_default(100)
    lengths = [em.getlength(text) / 100 for _, text in rows]
    for count in range(len(rows), 0, -1):
        wide = 2.2 + max(lengths[:count])  # in text sizes, as is high
        high = 0.6 + 1.3 * count
        size = int(min(max(11, min(height, width) / 26), width / 2 / wide, height / 2 / high))
        if size >= 8:  # the smallest that is legible
            break
    else:
        return
    down, across = math.ceil(size * high), math.ceil(size * wide)
    corner = min(
        [
            np.s_[top : top + down, left : left + across]
            for top in (height - down, 0)
            for left in (0, width - across)
        ],
        key=lambda corner: np.count_nonzero(labeled[corner]),
    )
    image[corner] = legend(image[corner] // 3, rows[:count], size, "white")
