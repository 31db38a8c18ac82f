"""Numbers as images: signed signals, such as projections and filters, and heat maps."""

import math
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from unpool.errors import OptionError, ShapeError
from unpool.vision.figures import GRAY
from unpool.vision.images import Pixels


def to_images(
    signal: Tensor | NDArray[Any],
    *,
    contrast: Literal["sigmoid", "linear", "stretch"] = "sigmoid",
    color: bool = True,
    order: Literal["RGB", "BGR"] = "RGB",
) -> Pixels:
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


def _linear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 + x / (2 * _safe(np.abs(x).max()))


def _stretch(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return (x - x.min()) / _safe(x.max() - x.min())


_CONTRASTS = {"sigmoid": _sigmoid, "linear": _linear, "stretch": _stretch}


def _safe(scale: Any) -> float:
    return float(scale) if scale > 0 else 1.0


def heat_map(values: ArrayLike, colors: Literal["viridis", "inferno"] = "viridis") -> Pixels:
    """Show values as colors, from dark for the lowest to bright for the highest.

    Args:
        values: (H, W), any range; gray where they are not finite.
        colors: the color map.

    Returns:
        (H, W, 3) uint8, RGB.

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
