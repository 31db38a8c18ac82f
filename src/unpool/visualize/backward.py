"""Autograd functions for ReLU and max pooling: the model's forward pass, a rule's backward pass."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from unpool.ops.switches import Switches, unpool

Call = Callable[[Tensor], Tensor]


class Rectify(Function):
    """The autograd function of `rectified`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, call: Call, mask: bool, rectify: bool, ceiling: float
    ) -> Tensor:
        """The result of the call."""
        if mask:
            ctx.save_for_backward((x > 0) & (x < ceiling))  # before an in-place call changes x
        ctx.rectify = rectify
        y = call(x)
        if y is x:
            ctx.mark_dirty(x)
        return y

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor | None, ...]:
        """The signal, rectified and masked as the rule demands."""
        signal = signals[0].relu() if ctx.rectify else signals[0]
        for mask in ctx.saved_tensors:
            signal = signal * mask
        return signal, None, None, None, None


class Pool(Function):
    """The autograd function of `pooled`, for batches.

    `places` are the flat indices (h, w) to which the signal of each window goes; None for those of
    the maxima.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        call: Callable[[Tensor], tuple[Tensor, Tensor]],
        places: Tensor | None,
        overlap: str,
    ) -> tuple[Tensor, Tensor]:
        """The maxima and their flat indices, as `call` returns them."""
        y, index = call(x)
        ctx.mark_non_differentiable(index)
        ctx.save_for_backward(index if places is None else places.expand_as(index))
        ctx.shape, ctx.overlap = x.shape, overlap
        return y, index

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor | None, ...]:
        """Unpool the signal to its places."""
        signal, (index,) = signals[0], ctx.saved_tensors
        spatial = ctx.shape[2:]
        # a plane or volume as one long row, in which the flat indices stay valid
        flat = (*ctx.shape[:2], 1, -1)
        switches = Switches(index.reshape(flat), (1, math.prod(spatial)))
        return unpool(signal.reshape(flat), switches, ctx.overlap).view(ctx.shape), None, None, None


def rectified(
    x: Tensor, call: Call, mask: bool, rectify: bool, ceiling: float = math.inf
) -> Tensor:
    """`call(x)`, through which the signal goes down as through a ReLU.

    Args:
        call: an elementwise function; it may work in place.
        mask: pass the signal only where x is positive (and below the ceiling).
        rectify: pass the signal only where it is itself positive.
        ceiling: where the function saturates, such as 6 for ReLU6.
    """
    return Rectify.apply(x, call, mask, rectify, ceiling)  # type: ignore[no-untyped-call]


def pooled(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], overlap: str) -> Any:
    """Max pooling, in 1 to 3 dimensions, plain or adaptive, with another backward pass.

    The name is that of the function in torch.nn.functional, whose arguments and result these are.
    With overlap "overwrite", the last one wins where windows share their maximum; with "center",
    the signal goes to the middle of its window, without switches.
    """
    function = getattr(F, name.removesuffix("_with_indices"))
    options = bound(name, *args, **kwargs)
    x, indices = options.pop("input"), options.pop("return_indices")
    lone = x.dim() == int(name.partition("pool")[2][0]) + 1  # (C, H, W), without a batch
    places = None
    if overlap == "center":
        places, overlap = _centers(x.shape[2 - lone :], options, x.device), "sum"
    call = partial(function, **options, return_indices=True)
    y, index = Pool.apply(x[None] if lone else x, call, places, overlap)  # type: ignore[no-untyped-call]
    y, index = (y[0], index[0]) if lone else (y, index)
    return (y, index) if indices or name.endswith("_with_indices") else y


def bound(name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a max pooling function by name, with their defaults.

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
    """Flat indices (h, w) of the middles of the windows; the first of two in even windows."""
    dims = len(sides)
    if "output_size" in options:
        counts = each(options["output_size"], dims)
        lines = [_adaptive(n, n if m is None else m) for n, m in zip(sides, counts, strict=True)]
    else:
        names = ("kernel_size", "padding", "dilation")
        kernel, pad, dilation = (each(options[name], dims) for name in names)
        stride = each(options["stride"] or kernel, dims)
        windows = zip(sides, kernel, stride, pad, dilation, strict=True)
        lines = [_regular(*window, options["ceil_mode"]) for window in windows]
    flat = torch.zeros((), dtype=torch.int64)
    for n, line in zip(sides, lines, strict=True):
        flat = flat[..., None] * n + line
    return flat.to(device)


def each(value: Any, dims: int) -> list[Any]:
    """An option of a pooling or convolution, spelled out for every dimension.

    >>> each(3, 2), each((3, 4), 2)
    ([3, 3], [3, 4])
    """
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * dims if len(values) == 1 else values


def _regular(n: int, kernel: int, stride: int, pad: int, dilation: int, ceil: bool) -> Tensor:
    span = dilation * (kernel - 1) + 1
    count = (n + 2 * pad - span + (stride - 1 if ceil else 0)) // stride + 1
    if (count - 1) * stride >= n + pad:  # as in PyTorch, no window starts in the right padding
        count -= 1
    start = torch.arange(count) * stride - pad
    return (start + (kernel - 1) // 2 * dilation).clamp(0, n - 1)  # middles may lie in the padding


def _adaptive(n: int, count: int) -> Tensor:
    i = torch.arange(count)
    start, end = i * n // count, ((i + 1) * n + count - 1) // count
    return (start + end - 1) // 2
