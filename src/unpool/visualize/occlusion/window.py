"""An occluder that slides over an image: its positions, and the images it gives."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unpool.errors import OptionError, ShapeError

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, x1 and y1 excluded."""

Sides = int | tuple[int, int]
"""Height and width in pixels, or one number for both."""

Baseline = float | Tensor
"""The values of an occluder: a number, one a channel (C,), or an image (C, H, W)."""


class Windows(NamedTuple):
    """The positions of an occluder on an image; each entry is for rows and for columns.

    At the right and lower border the occluder is cut, so that every pixel is covered.

    >>> Windows((6, 9), (4, 4), (2, 4)).shape, Windows((6, 9), (4, 4), (2, 4)).boxes()[2]
    ((2, 3), (8, 0, 9, 4))
    """

    size: tuple[int, int]  #: of the image, in pixels
    window: tuple[int, int]  #: of the occluder
    stride: tuple[int, int]  #: from one position to the next

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of positions."""
        rows, columns = (-(-(n - w) // s) + 1 for n, w, s in zip(*self, strict=True))
        return rows, columns

    def boxes(self) -> list[Box]:
        """The covered pixels at each position, row by row."""
        (height, width), (high, wide), (down, across) = self
        rows, columns = self.shape
        corners = [(i * down, j * across) for i in range(rows) for j in range(columns)]
        return [(x, y, min(x + wide, width), min(y + high, height)) for y, x in corners]

    def spread(self, values: Tensor) -> Tensor:
        """For each pixel, the mean over the positions at which it is covered, as Captum does.

        Values are (rows, columns), the means (H, W) float64. NaN is left out, and remains where
        nothing else is left.

        >>> Windows((1, 4), (1, 2), (1, 1)).spread(torch.tensor([[1.0, 3.0, 5.0]])).tolist()
        [[1.0, 2.0, 4.0, 5.0]]
        """
        values = values.double().cpu()
        down, across = (self._covers(axis) for axis in (0, 1))
        total = down @ values.nan_to_num() @ across.T
        return total / (down @ values.isfinite().double() @ across.T)

    def nearest(self, axis: int) -> Tensor:
        """For each pixel along an axis, the position with the nearest center, (H,) or (W,)."""
        n, count = self.size[axis], self.shape[axis]
        starts = torch.arange(count) * self.stride[axis]
        centers = (starts + (starts + self.window[axis]).clamp(max=n) - 1) / 2
        return (torch.arange(n)[:, None] - centers).abs().argmin(1)

    def _covers(self, axis: int) -> Tensor:
        """Whether a pixel (rows) is covered at a position (columns), as 0 or 1."""
        starts = torch.arange(self.shape[axis]) * self.stride[axis]
        distance = torch.arange(self.size[axis])[:, None] - starts
        return ((distance >= 0) & (distance < self.window[axis])).double()

    def to_dict(self) -> dict[str, Any]:
        """Plain values: `size`, `occluder` and `stride`."""
        return {"size": list(self.size), "occluder": list(self.window), "stride": list(self.stride)}


def occluder_windows(
    size: tuple[int, int], window: Sides | None = None, stride: Sides | None = None
) -> Windows:
    """The positions of an occluder on an image of (height, width) `size`.

    Args:
        window: height and width of the occluder; a fifth of the shorter side when not given.
        stride: rows and columns from one position to the next; half the window when not given.

    Raises:
        OptionError: a window larger than the image, or a stride that leaves pixels out.

    Zeiler and Fergus give neither default; these are about MATLAB's in `occlusionSensitivity`.

    >>> occluder_windows((224, 224)).window, occluder_windows((224, 224)).stride
    ((45, 45), (22, 22))
    """
    window = max(round(min(size) / 5), 1) if window is None else window
    high, wide = (window, window) if isinstance(window, int) else window
    stride = (max(high // 2, 1), max(wide // 2, 1)) if stride is None else stride
    down, across = (stride, stride) if isinstance(stride, int) else stride
    if not (1 <= high <= size[0] and 1 <= wide <= size[1]):
        raise OptionError(
            f"got an occluder of {high} x {wide} for an image of {size[0]} x {size[1]}; wanted 1 "
            "pixel or more, and no more than the image has"
        )
    if not (1 <= down <= high and 1 <= across <= wide):
        raise OptionError(
            f"got a stride of {down} x {across} with an occluder of {high} x {wide}; wanted 1 or "
            "more, and no more than the occluder, so that every pixel is covered"
        )
    return Windows(size, (high, wide), (down, across))


def occluded(image: Tensor, baseline: Tensor, boxes: Sequence[Box]) -> Tensor:
    """Copies of an image (1, C, H, W), each with one of some boxes taken from `baseline`."""
    images = image.repeat(len(boxes), 1, 1, 1)
    for copy, (x0, y0, x1, y1) in zip(images, boxes, strict=True):
        copy[:, y0:y1, x0:x1] = baseline[:, y0:y1, x0:x1]
    return images


def baseline_image(baseline: Baseline, image: Tensor) -> Tensor:
    """The values of an occluder at every pixel, (C, H, W).

    Raises:
        ShapeError: `image` is not (1, C, H, W) and floating-point, or `baseline` does not fit it.
    """
    if image.dim() != 4 or len(image) != 1 or not image.is_floating_point():
        raise ShapeError(
            f"got an image of {tuple(image.shape)} {image.dtype}; wanted one, (1, C, H, W), of "
            "floating-point numbers, prepared as the model takes it"
        )
    color = torch.as_tensor(baseline, dtype=image.dtype, device=image.device)
    color = color[:, None, None] if color.dim() == 1 else color
    try:
        return color.expand(image.shape[1:])
    except RuntimeError:
        raise ShapeError(
            f"got a baseline of {tuple(color.shape)} for images of {tuple(image.shape[1:])}; "
            f"wanted a number, one a channel ({image.shape[1]},), or an image"
        ) from None
