"""Receptive fields: which pixels a unit sees.

For chains of convolution and pooling they are computed from the table of layers. For other models
they are measured as the support of a gradient: not of the model itself, where ReLU and max pooling
block it, but of a stand-in with means in place of weights and maxima, and without activations.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from unpool.errors import OptionError, ShapeError
from unpool.models.vgg import TRUNKS, Table
from unpool.visualize.activations import ActivationRecorder, chain_layers
from unpool.visualize.backward import bound, each
from unpool.visualize.functions import ACTIVATIONS, Call, Replacement, signals

Chain = Sequence[tuple[str, int, int, int]]
"""Layers as rows of (name, kernel, stride, padding)."""


def _vgg(table: Table) -> Chain:
    rows: list[tuple[str, int, int, int]] = []
    for stage, (layers, _) in enumerate(table, start=1):
        rows += [(f"conv{stage}_{i}", 3, 1, 1) for i in range(1, layers + 1)]
        rows.append((f"pool{stage}", 2, 2, 0))
    return rows


_UPPER = (("conv3", 3, 1, 1), ("conv4", 3, 1, 1), ("conv5", 3, 1, 1), ("pool5", 3, 2, 0))

CHAINS: dict[str, Chain] = {
    "alexnet": (
        *(("conv1", 11, 4, 0), ("pool1", 3, 2, 0), ("conv2", 5, 1, 2), ("pool2", 3, 2, 0)),
        *_UPPER,
    ),
    "zfnet": (
        *(("conv1", 7, 2, 1), ("pool1", 3, 2, 0), ("conv2", 5, 2, 0), ("pool2", 3, 2, 0)),
        *_UPPER,
    ),
    **{name: _vgg(table) for name, table in TRUNKS.items()},
}
"""Krizhevsky et al. 2012; Zeiler, Fergus 2014; Simonyan, Zisserman 2015."""


class Field(NamedTuple):
    """The pixels that the units of a layer see; each entry is a pair for rows and columns."""

    size: tuple[int, int] = (1, 1)  #: of the field of one unit, in pixels
    jump: tuple[int, int] = (1, 1)  #: from the field of one unit to the next, in pixels
    start: tuple[int, int] = (0, 0)  #: the first pixel of unit (0, 0); negative in the padding

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """The field of the unit at (row, column): x0, y0, x1, y1 in pixels, x1 and y1 excluded.

        It may reach beyond the image, into the padding.

        >>> Field((11, 11), (4, 4), (-1, -1)).box(0, 2)
        (7, -1, 18, 10)
        """
        y, x = (s + i * j for s, i, j in zip(self.start, (row, column), self.jump, strict=True))
        return x, y, x + self.size[1], y + self.size[0]

    def over(self, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> "Field":
        """The field of a layer on top of this one; options are numbers or (row, column) pairs."""
        pairs = [v if isinstance(v, tuple) else (v, v) for v in (kernel, stride, padding, dilation)]
        lines = [
            (size + d * (k - 1) * jump, jump * s, start - p * jump)
            for size, jump, start, k, s, p, d in zip(*self, *pairs, strict=True)
        ]
        return Field(*zip(*lines, strict=True))


def chain_fields(chain: str | nn.Sequential | Chain) -> dict[str, Field]:
    """The exact receptive field of every layer of a chain, by name.

    Args:
        chain: one of `CHAINS`; rows of (name, kernel, stride, padding); or nested `nn.Sequential`
            of convolutions, pooling and pointwise layers such as ReLU.

    Raises:
        OptionError: an unknown name, or another layer, for which there is `measure_field`.

    >>> chain_fields("zfnet")["pool5"]
    Field(size=(171, 171), jump=(32, 32), start=(-49, -49))
    """
    field, fields = Field(), {}
    if isinstance(chain, nn.Sequential):
        for name, layer in chain_layers(chain):
            field = fields[name] = _over(field, layer)
        return fields
    if isinstance(chain, str):
        if chain not in CHAINS:
            raise OptionError(f"got chain {chain!r}; the chains are {', '.join(CHAINS)}")
        chain = CHAINS[chain]
    for name, *window in chain:
        field = fields[name] = field.over(*window)
    return fields


_POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Identity),
    *(nn.BatchNorm2d, nn.LocalResponseNorm, nn.Dropout, nn.Dropout2d),
)


def _over(field: Field, layer: nn.Module) -> Field:
    if isinstance(layer, _POINTWISE):
        return field
    if isinstance(layer, nn.AvgPool2d):
        return field.over(layer.kernel_size, layer.stride, layer.padding)
    if isinstance(layer, nn.Conv2d | nn.MaxPool2d) and not isinstance(layer.padding, str):
        return field.over(layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    raise OptionError(f"got {layer} in a chain; use measure_field(model, images, layer)")


# ---- any other model -----------------------------------------------------------------------------


def measure_field(model: nn.Module, images: Tensor, layer: str) -> Field:
    """The receptive field of a layer of any model, from the support of a gradient.

    It is the union over the channels of the layer. Normalizations count as pointwise, although some
    take their statistics from the whole map. If the fields do not have one size and equal distances
    (after global pooling, with attention), or exceed eight times the image, the result is the whole
    image, with jump 0.

    Args:
        images: (N, C, H, W), preprocessed; only their shape, type and device matter. For fields
            larger than the image, the model also runs on images up to eight times as long.
        layer: a name from `list_layers`.

    Raises:
        OptionError: no such layer, or it does not depend on the images.
        ShapeError: the model cannot be run on such images.

    After Mahendran, Vedaldi 2016, whose code runs a copy of the network with all weights 1.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 7, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2))
    >>> measure_field(model, torch.zeros(1, 3, 33, 33), "2")
    Field(size=(11, 11), jump=(4, 4), start=(-1, -1))
    """
    recorder = ActivationRecorder(model, [layer])
    lines = [_measure_axis(recorder, images[:1], layer, axis) for axis in (2, 3)]
    return Field(*zip(*lines, strict=True))


Spans = dict[int, tuple[int, int]]
"""The first pixel that a unit sees, and the one after the last, along one axis."""

Line = tuple[int, int, int]
"""Size, jump and start of the fields along one axis."""


def _measure_axis(recorder: ActivationRecorder, images: Tensor, layer: str, axis: int) -> Line:
    shape, n = list(images.shape), images.shape[axis]
    count, spans = _spans(recorder, images, layer, axis)
    line = _fit(count, spans)
    while line is None and shape[axis] < 8 * n:
        shape[axis] *= 2
        try:
            line = _fit(*_spans(recorder, images.new_zeros(shape), layer, axis))
        except ShapeError:  # the model takes no other size
            break
    return line if line is not None and _agree(line, spans) else (n, 0, 0)


def _fit(count: int, spans: Spans) -> Line | None:
    """The line through the inner ends of the first and last two fields, which no border cuts."""
    if count < 3:
        return None
    (begin, _), (last_begin, last) = spans[count - 2], spans[count - 1]
    (first, end), (_, next_end) = spans[0], spans[1]
    jump = last_begin - begin
    if begin == first or next_end == last or jump != next_end - end:
        return None  # a border cuts even these, or distances differ
    start = last_begin - (count - 1) * jump
    return end - start, jump, start


def _agree(line: Line, spans: Spans) -> bool:
    """Whether the fields of a line, cut at the borders, are those that were measured."""
    size, jump, start = line
    first, last = min(a for a, _ in spans.values()), max(b for _, b in spans.values())
    begins = {unit: start + unit * jump for unit in spans}
    return all((max(b, first), min(b + size, last)) == spans[unit] for unit, b in begins.items())


def _spans(
    recorder: ActivationRecorder, images: Tensor, layer: str, axis: int
) -> tuple[int, Spans]:
    """The number of units along an axis, and the pixels that the outer and middle ones see."""
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.full_like(images, 0.5, requires_grad=True)
        with _StandIn():
            maps = recorder(x.clone())[layer]
        if maps.grad_fn is None:
            raise OptionError(f"layer {layer!r} does not depend on the images; choose another")
        if maps.dim() != 4:
            return 1, {0: (0, images.shape[axis])}
        count, spans = maps.shape[axis], {}
        for unit in {0, min(1, count - 1), count // 2, max(count - 2, 0), count - 1}:
            (support,) = torch.autograd.grad(maps.select(axis, unit).sum(), x, retain_graph=True)
            seen = (support != 0).any(5 - axis).flatten(0, 1).any(0).nonzero()
            spans[unit] = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 0)
        return count, spans


class _StandIn(Replacement):
    """While active, a model computes means of windows: positive weights, no activations.

    Convolutions average the channels first, which makes them cheap.
    """

    def replace(self, call: Call) -> Any:
        signal = next(signals(call.tensors()), None)
        if signal is None:
            return call.value()
        if call.name in ACTIVATIONS or call.name in _NORMS:
            return signal.clone()
        if call.name in _SPREADS:
            return _spread(call.name, call.function, *call.args, **call.kwargs)
        if "max_pool" in call.name and "fractional" not in call.name:
            return _spread_pool(call)
        return call.value()


_NORMS = {"batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm"}
_NORMS |= {"normalize", "rms_norm"}
_SPREADS = {f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)} | {"linear"}


class _Spread(Function):
    """One map copied to many channels; its gradient is 1 or 0, so that it does not underflow."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, axis: int, channels: int) -> Tensor:
        ctx.axis = axis
        shape = list(y.shape)
        shape[axis] = channels
        return y.expand(shape).clone()

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor | None, ...]:
        support = (signals[0] != 0).any(ctx.axis, keepdim=True)
        return support.to(signals[0].dtype), None, None


def _spread(
    name: str,
    function: Callable[..., Any],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """The mean of each window over all channels, for every output channel."""
    axis = 1 - weight.dim()
    mean = input.mean(axis, keepdim=True)
    if name == "linear":
        return _Spread.apply(mean, axis, len(weight))  # type: ignore[no-untyped-call]
    transposed = "transpose" in name
    further = ("output_padding", "groups", "dilation") if transposed else ("dilation", "groups")
    options = dict(zip(("stride", "padding", *further), args, strict=False)) | kwargs
    groups = options.pop("groups", 1)
    channels = weight.shape[1] * groups if transposed else len(weight)
    window = weight.shape[2:]
    y = function(mean, mean.new_full((1, 1, *window), 1 / window.numel()), None, **options)
    return _Spread.apply(y, axis, channels)  # type: ignore[no-untyped-call]


def _spread_pool(call: Call) -> Any:
    """The mean of each window, and the indices of the maxima if they are asked for."""
    options = bound(call.name, *call.args, **call.kwargs)
    mean = getattr(F, call.name.removesuffix("_with_indices").replace("max", "avg"))
    if "output_size" in options:
        y = mean(options["input"], options["output_size"])
    else:
        dims = int(call.name.partition("pool")[2][0])
        kernel, dilation = (each(options[name], dims) for name in ("kernel_size", "dilation"))
        span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]  # covers dilation
        stride = options["stride"] or kernel
        y = mean(options["input"], span, stride, options["padding"], options["ceil_mode"])
    hard = call.value()
    return (y, hard[1]) if isinstance(hard, tuple) else y
