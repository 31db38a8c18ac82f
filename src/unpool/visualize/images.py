"""Signals as images: zero is mid-gray, and each has a contrast of its own."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unpool.errors import OptionError, ShapeError

GRAY = 128
"""Zero, and what lies beyond an image."""


def draw(
    signal: Tensor | NDArray[Any],
    *,
    contrast: Literal["sigmoid", "linear", "stretch"] = "sigmoid",
    color: bool = True,
    order: Literal["RGB", "BGR"] = "RGB",
) -> NDArray[np.uint8]:
    """Show signals, each with a contrast of its own.

    Args:
        signal: (N, C, H, W) or (C, H, W), any range, for example of a `Projection`.
        contrast: "sigmoid": the lowest 0.5 % of the values that are not zero are nearly black, and
            as strong positive ones nearly white; zero is mid-gray. "linear": in proportion to the
            largest magnitude; zero is mid-gray. "stretch": from the smallest value, black, to the
            largest, white, wherever zero may be.
        color: keep three channels as colors; otherwise, and for any other number of channels, their
            sum is shown in gray.
        order: of the three channels: "BGR" for networks that take images so.

    Returns:
        (N, H, W, 3) uint8, RGB; N is 1 for a single signal.

    Raises:
        ShapeError: a signal of another shape.
        OptionError: an unknown contrast or order.

    "sigmoid": Mahendran, Vedaldi 2016, footnote 4; "stretch": as Zeiler, Fergus 2014 are mostly
    reproduced.

    >>> draw(np.array([[[-1.0, 0.0, 1.0]]]), contrast="linear")[0, 0, :, 0].tolist()
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


def _linear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 + x / (2 * _safe(np.abs(x).max()))


def _stretch(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return (x - x.min()) / _safe(x.max() - x.min())


_CONTRASTS = {"sigmoid": _sigmoid, "linear": _linear, "stretch": _stretch}


def _safe(scale: Any) -> float:
    return float(scale) if scale > 0 else 1.0


def mosaic(
    images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], columns: int, gap: int = 2
) -> NDArray[np.uint8]:
    """Lay images of one size out in a grid on white, such as the 3 x 3 strongest of a unit.

    Args:
        images: (N, H, W, 3), row by row; the last row may be short.
        columns: images a row.
        gap: white pixels between them.

    Returns:
        One image, (rows * (H + gap) - gap, columns * (W + gap) - gap, 3).

    Raises:
        ShapeError: no images, or not of one size, or less than one column.

    >>> mosaic(np.zeros((9, 20, 30, 3), np.uint8), columns=3).shape
    (64, 94, 3)
    """
    shapes = {np.shape(image) for image in images}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 3 or columns < 1 or gap < 0:
        raise ShapeError(
            f"got {len(images)} images for {columns} columns; wanted one or more of one size, "
            "(H, W, 3), and a column or more"
        )
    height, width = shape[0] + gap, shape[1] + gap
    rows = -(-len(images) // columns)
    sheet = np.full((rows * height - gap, columns * width - gap, shape[2]), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * height, i % columns * width
        sheet[y : y + shape[0], x : x + shape[1]] = image
    return sheet


def patch(image: NDArray[np.uint8], box: Sequence[int], fill: int = GRAY) -> NDArray[np.uint8]:
    """Cut a box out of an image; what lies beyond its border is gray.

    Args:
        image: (H, W, 3) uint8.
        box: x0, y0, x1, y1 in pixels, x1 and y1 excluded, such as `Field.box` gives.
        fill: the value beyond the border.

    Returns:
        (y1 - y0, x1 - x0, 3) uint8.

    Raises:
        ShapeError: a box without area.

    >>> patch(np.zeros((4, 4, 3), np.uint8), (-1, 0, 2, 2))[:, :, 0].tolist()
    [[128, 0, 0], [128, 0, 0]]
    """
    x0, y0, x1, y1 = box
    if x0 >= x1 or y0 >= y1:
        raise ShapeError(f"got the box {tuple(box)}; wanted x0 < x1 and y0 < y1")
    cut = np.full((y1 - y0, x1 - x0, *image.shape[2:]), fill, np.uint8)
    inside = image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    top, left = max(-y0, 0), max(-x0, 0)
    cut[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return cut
