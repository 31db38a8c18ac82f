"""Arrays as images: overlays of labels and boxes, signed signals, heat maps."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unpool.errors import OptionError, ShapeError
from unpool.vision.figures import GRAY, legend
from unpool.vision.images import Labels, Pixels, check_image, indexed_image

_NAME = 100  # characters of a class in a legend
_SPECK = 0.005  # fraction of an image below which a class is colored, but not named


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

    The legend, in the corner with the fewest labeled pixels, names the classes that cover 0.5 % of
    the image or more. To cover at most a quarter of the image it shrinks, then drops its smallest
    classes, then is left out. Its font is ASCII.

    Args:
        image: (H, W, 3) uint8, RGB.
        labels: class indices 0 to 255, (H, W), of any integer type.
        palette: colors of the first K classes, (K, 3) uint8, RGB, continued by `voc_palette`.
        names: class names; a class without one is shown by its number, 255 as "void".
        opacity: the weight of the colors, 0 to 1.
        background: the class that is not colored.

    Returns:
        A new image, (H, W, 3) uint8, RGB.

    Raises:
        ImageError, OptionError: a label outside 0 to 255; an opacity outside 0 to 1.
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
        fraction = f"{n / labels.size:.0%}" if n >= 0.01 * labels.size else "<1%"
        title = f"{titles.get(k, k)}"[:_NAME]
        rows.append((tuple(colors[3 * k : 3 * k + 3]), f"{title}  {fraction}"))
    _draw_legend(shown, labeled, rows)
    return shown


def outline(image: Pixels, box: Sequence[int], color: str = "white") -> Pixels:
    """Draw the outline of a box, x0, y0, x1, y1 in pixels, one pixel wide, inside it.

    >>> outline(np.zeros((3, 3, 3), np.uint8), (0, 0, 3, 3))[:, :, 0].tolist()
    [[255, 255, 255], [255, 0, 255], [255, 255, 255]]
    """
    x0, y0, x1, y1 = box
    shown = Image.fromarray(image)
    ImageDraw.Draw(shown).rectangle((x0, y0, x1 - 1, y1 - 1), outline=color)
    return np.array(shown)


def to_images(
    signal: Tensor | NDArray[Any],
    *,
    contrast: Literal["sigmoid", "linear", "stretch"] = "sigmoid",
    color: bool = True,
    order: Literal["RGB", "BGR"] = "RGB",
) -> Pixels:
    """Show signed signals as images (N, H, W, 3) uint8, RGB, each scaled by itself.

    Args:
        signal: (N, C, H, W) or (C, H, W), any range, for example of a `Projection`.
        contrast: "sigmoid": the lowest 0.5 % of the nonzero values are nearly black, positive ones
            of that magnitude nearly white, and zero is mid-gray (Mahendran, Vedaldi 2016,
            footnote 4). "linear": in proportion to the largest magnitude; zero is mid-gray.
            "stretch": from black, the smallest value, to white, the largest, as figures of Zeiler,
            Fergus 2014 are mostly reproduced.
        color: show three channels as colors; otherwise, and for any other number of channels, show
            their sum in gray.
        order: of the three channels: "BGR" for networks with such input.

    >>> to_images(np.array([[[-1.0, 0.0, 1.0]]]), contrast="linear")[0, 0, :, 0].tolist()
    [0, 128, 255]
    """
    values = np.asarray(signal.detach().float().cpu() if isinstance(signal, Tensor) else signal)
    values = values[None] if values.ndim == 3 else values
    if values.ndim != 4 or values.shape[1] == 0:
        raise ShapeError(
            f"got a signal of {values.shape}; wanted (N, C, H, W), such as Projection.signal"
        )
    if contrast not in _CONTRASTS or order not in ("RGB", "BGR"):
        raise OptionError(
            f"got contrast={contrast!r}, order={order!r}; a contrast is one of "
            f"{', '.join(_CONTRASTS)}, an order 'RGB' or 'BGR'"
        )
    if not color or values.shape[1] != 3:
        values = np.repeat(values.sum(1, keepdims=True), 3, axis=1)
    elif order == "BGR":
        values = values[:, ::-1]
    shown = [_CONTRASTS[contrast](v.astype(np.float64)) for v in values]
    stacked = np.array(shown).reshape(values.shape).transpose(0, 2, 3, 1)
    return np.floor(np.clip(stacked, 0, 1) * 255 + 0.5).astype(np.uint8)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    seen = x[x != 0]  # a projection is zero outside its receptive field
    scale = 0.0
    if seen.size:
        scale = -np.quantile(seen, 0.005)
        if scale <= 1e-5 * np.abs(seen).max():  # hardly anything is negative
            scale = np.quantile(np.abs(seen), 0.995)
    return 1 / (1 + np.exp(-np.clip(x / _safe(scale), -99, 99) * math.log(99)))


_CONTRASTS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "sigmoid": _sigmoid,
    "linear": lambda x: 0.5 + x / (2 * _safe(np.abs(x).max())),
    "stretch": lambda x: (x - x.min()) / _safe(x.max() - x.min()),
}


def _safe(scale: Any) -> float:
    return float(scale) if scale > 0 else 1.0


def heat_map(values: ArrayLike, colors: Literal["viridis", "inferno"] = "viridis") -> Pixels:
    """Show values as colors, from dark, the lowest, to bright, the highest.

    Values (H, W) that are not finite are gray. The result is (H, W, 3) uint8, RGB.

    >>> heat_map([[0, 1, float("nan")]]).tolist()
    [[[68, 1, 84], [253, 231, 37], [128, 128, 128]]]
    """
    found = np.asarray(values, np.float64)
    known = np.isfinite(found)
    low, high = (float(f(found[known])) if known.any() else 0.0 for f in (np.min, np.max))
    scaled = (np.where(known, found, low) - low) / ((high - low) or 1.0)
    codes = {"viridis": cv2.COLORMAP_VIRIDIS, "inferno": cv2.COLORMAP_INFERNO}
    shown = cv2.applyColorMap(np.rint(255 * scaled).astype(np.uint8), codes[colors])[..., ::-1]
    return np.where(known[..., None], shown, GRAY).astype(np.uint8)


def _borders(labels: Labels) -> NDArray[np.bool_]:
    """Where another class begins to the right or below."""
    thick = max(1, round(min(labels.shape) / 400))  # visible when a large image is shown reduced
    edge = np.zeros(labels.shape, np.bool_)
    edge[:, :-thick] |= labels[:, :-thick] != labels[:, thick:]
    edge[:-thick] |= labels[:-thick] != labels[thick:]
    return edge


def _draw_legend(
    image: Pixels, labeled: NDArray[np.bool_], rows: Sequence[tuple[tuple[int, ...], str]]
) -> None:
    """Draw the legend into a corner, on at most half the width and half the height."""
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
    corners = itertools.product((height - down, 0), (0, width - across))
    parts = [np.s_[top : top + down, left : left + across] for top, left in corners]
    corner = min(parts, key=lambda part: np.count_nonzero(labeled[part]))
    image[corner] = legend(image[corner] // 3, rows[:count], size, "white")
