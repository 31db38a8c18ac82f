"""What goes down in place of a derivative: autograd functions for ReLU and max pooling.

Upwards they compute what the model computes, downwards what a rule says.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from unpool.ops import Switches, unpool

Call = Callable[[Tensor], Tensor]


class Rectify(Function):
    """A function whose signal is rectified, masked, both, or neither: see `rectified`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, call: Call, mask: bool, rectify: bool, ceiling: float
    ) -> Tensor:
        """The value of the call."""
        if mask:
            ctx.save_for_backward((x > 0) & (x < ceiling))  # before it may change
        ctx.rectify = rectify
        y = call(x)
        if y is x:
            ctx.mark_dirty(x)
        return y

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor | None, ...]:
        """The signal where it and, if there is a mask, x are positive."""
        signal = signals[0].relu() if ctx.rectify else signals[0]
        for mask in ctx.saved_tensors:
            signal = signal * mask
        return signal, None, None, None, None


class Pool(Function):
    """Max pooling with a choice of places for the way down.

    Takes x; a call that gives the maxima and their flat places; the flat places (h, w) for the way
    down, or None for those of the maxima; and the overlap of `unpool`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        call: Callable[[Tensor], tuple[Tensor, Tensor]],
        places: Tensor | None,
        overlap: str,
    ) -> tuple[Tensor, Tensor]:
        """The maxima and their places."""
        y, index = call(x)
        ctx.mark_non_differentiable(index)
        ctx.save_for_backward(index if places is None else places.expand_as(index))
        ctx.shape, ctx.overlap = x.shape, overlap
        return y, index

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor | None, ...]:
        """The signal, put to its places."""
        signal, (index,) = signals[0], ctx.saved_tensors
        spatial = ctx.shape[2:]
        # the plane, or volume, as one long row: flat places stay the same
        flat = (*ctx.shape[:2], 1, -1)
        switches = Switches(index.reshape(flat), (1, math.prod(spatial)))
        return unpool(signal.reshape(flat), switches, ctx.overlap).view(ctx.shape), None, None, None


def rectified(
    x: Tensor, call: Call, mask: bool, rectify: bool, ceiling: float = math.inf
) -> Tensor:
    """A function of each value by itself, for the signal a ReLU by some rule.

    Args:
        x: what it is a function of.
        call: the function; it may work in place.
        mask: let the signal pass only where x is positive (and below the ceiling).
        rectify: let the signal pass only where it is positive.
        ceiling: where the function stops growing, as 6 for ReLU6.
    """
    return Rectify.apply(x, call, mask, rectify, ceiling)  # type: ignore[no-untyped-call]


def pooled(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], overlap: str) -> Any:
    """Max pooling of any dimension, plain or adaptive, whose signal goes to other places.

    Args:
        name: of the function in torch.nn.functional.
        args: its arguments.
        kwargs: its further arguments.
        overlap: "overwrite": at a place that two windows share, the last one wins. "center": no
            switches; the signal goes to the middle of its window.

    Returns:
        What the function returns: the maxima, or the maxima and their places.
    """
    function = getattr(F, name.removesuffix("_with_indices"))
    options = bound(name, *args, **kwargs)
    x, indices = options.pop("input"), options.pop("return_indices")
    lone = x.dim() == int(name.partition("pool")[2][0]) + 1  # (C, H, W)
    places = None
    if overlap == "center":
        places = _centers(x.shape[2 - lone :], options, x.device)
    y, index = Pool.apply(  # type: ignore[no-untyped-call]
        x[None] if lone else x,
        lambda t: function(t, **options, return_indices=True),
        places,
        "sum" if overlap == "center" else overlap,
    )
    y, index = (y[0], index[0]) if lone else (y, index)
    return (y, index) if indices or name.endswith("_with_indices") else y


def bound(name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a max pooling by name, with their defaults.

    >>> options = bound("max_pool2d", "maps", 3, padding=1)
    >>> options["kernel_size"], options["padding"], options["ceil_mode"]
    (3, 1, False)
    """
    if name.startswith("adaptive"):
        names, defaults = ["input", "output_size"], {}
    else:
        names = ["input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"]
        defaults = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}
    bound = dict(zip([*names, "return_indices"], args, strict=False))
    return {**defaults, "return_indices": False, **bound, **kwargs}


def _centers(sides: torch.Size, options: dict[str, Any], device: torch.device) -> Tensor:
    """Flat places (h, w) of the windows' middles; of even windows the first of the two."""
    dims = len(sides)
    if "output_size" in options:
        counts = each(options["output_size"], dims)
        lines = [
            _adaptive(n, n if count is None else count)
            for n, count in zip(sides, counts, strict=True)
        ]
    else:
        windows = zip(
            sides,
            each(options["kernel_size"], dims),
            each(options["stride"] or options["kernel_size"], dims),
            each(options["padding"], dims),
            each(options["dilation"], dims),
            strict=True,
        )
        lines = [_regular(*window, options["ceil_mode"]) for window in windows]
    flat = torch.zeros((), dtype=torch.int64)
    for n, line in zip(sides, lines, strict=True):
        flat = flat[..., None] * n + line
    return flat.to(device)


def each(value: Any, dims: int) -> list[Any]:
    """An option for every dimension.

    >>> each(3, 2), each((3, 4), 2)
    ([3, 3], [3, 4])
    """
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * dims if len(values) == 1 else values


def _regular(n: int, kernel: int, stride: int, pad: int, dilation: int, ceil: bool) -> Tensor:
    span = dilation * (kernel - 1) + 1
    count = (n + 2 * pad - span + (stride - 1 if ceil else 0)) // stride + 1
    if (count - 1) * stride >= n + pad:  # a window must begin within the map or its left padding
        count -= 1
    start = torch.arange(count) * stride - pad
    return (start + (kernel - 1) // 2 * dilation).clamp(0, n - 1)  # windows reach over the border


def _adaptive(n: int, count: int) -> Tensor:
    i = torch.arange(count)
    start, end = i * n // count, ((i + 1) * n + count - 1) // count
    return (start + end - 1) // 2
