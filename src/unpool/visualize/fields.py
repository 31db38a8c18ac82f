"""Receptive fields: which pixels a unit sees.

For chains of convolution and pooling they follow from the table of layers, exactly. For any other
model they are measured, as the support of a gradient: not the model's own, which ReLU and pooling
cut short, but that of a stand-in that lets everything through.
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
from unpool.visualize.functions import ACTIVATIONS, Replacement, signals

Chain = Sequence[tuple[str, int, int, int]]
"""A layer a row: its name, the side of its windows, their distance, and the padding."""


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
"""The published networks. Krizhevsky et al. 2012; Zeiler, Fergus 2014; Simonyan, Zisserman 2015."""


class Field(NamedTuple):
    """The pixels that the units of a layer see; each entry is for rows and for columns.

    >>> Field((11, 11), (4, 4), (-1, -1)).box(0, 2)
    (7, -1, 18, 10)
    """

    size: tuple[int, int] = (1, 1)  #: of what one unit sees, in pixels
    jump: tuple[int, int] = (1, 1)  #: from one unit to the next, in pixels
    start: tuple[int, int] = (0, 0)  #: the first pixel of unit (0, 0); below 0 in the padding

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """What the unit at (row, column) sees: x0, y0, x1, y1 in pixels, x1 and y1 excluded.

        It may reach beyond the image, into the padding.
        """
        y, x = (s + i * j for s, i, j in zip(self.start, (row, column), self.jump, strict=True))
        return x, y, x + self.size[1], y + self.size[0]

    def over(self, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> "Field":
        """The field of a layer above this one; each number is for both directions, or a pair."""
        pairs = [v if isinstance(v, tuple) else (v, v) for v in (kernel, stride, padding, dilation)]
        lines = []
        for size, jump, start, k, s, p, d in zip(*self, *pairs, strict=True):
            lines.append((size + d * (k - 1) * jump, jump * s, start - p * jump))
        (h, v, top), (w, u, left) = lines
        return Field((h, w), (v, u), (top, left))


def chain_fields(chain: str | nn.Sequential | Chain) -> dict[str, Field]:
    """The receptive field of every layer of a chain, by name, exactly.

    Args:
        chain: one of `CHAINS`; or rows of (name, kernel, stride, padding); or convolutions and
            pooling with what works at each place, as ReLU does, in nested `nn.Sequential`.

    Raises:
        OptionError: an unknown name, or a layer of another kind: use `measure_field`.

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
    for name, kernel, stride, padding in chain:
        field = fields[name] = field.over(kernel, stride, padding)
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

    The union over the channels of the layer, where these differ. Normalizations count as working
    at each place, though the statistics of some come from the whole map. Where units do not see
    fields of one size at even distances (after global pooling, with attention), or where all see
    more than eight times the image, the field is the whole image, with jump 0.

    Args:
        model: any module; it stays as it is.
        images: (N, C, H, W), as the model takes them; only their shape, type and device matter.
            Where a field is larger, the model is also run on longer images.
        layer: a name from `list_layers`.

    Raises:
        OptionError: no such layer, or it does not depend on the images.
        ShapeError: the model cannot be run on such images.

    After Mahendran, Vedaldi 2016, whose release runs a copy of the network with weights of 1.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 7, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2))
    >>> measure_field(model, torch.zeros(1, 3, 33, 33), "2")
    Field(size=(11, 11), jump=(4, 4), start=(-1, -1))
    """
    recorder = ActivationRecorder(model, [layer])
    (h, v, top), (w, u, left) = (_line(recorder, images[:1], layer, axis) for axis in (2, 3))
    return Field((h, w), (v, u), (top, left))


Span = tuple[int, int]


def _line(
    recorder: ActivationRecorder, images: Tensor, layer: str, axis: int
) -> tuple[int, int, int]:
    """Size, jump and start of the fields along one axis."""
    n = images.shape[axis]
    count, spans = _spans(recorder, images, layer, axis)
    line, factor = _fitted(count, spans), 1
    while line is None and factor < 8:
        factor *= 2
        shape = list(images.shape)
        shape[axis] *= factor
        try:
            line = _fitted(*_spans(recorder, images.new_zeros(shape), layer, axis))
        except ShapeError:  # the model takes no other size
            break
    return line if line is not None and _agree(line, spans) else (n, 0, 0)


def _fitted(count: int, spans: dict[int, Span]) -> tuple[int, int, int] | None:
    """The fields of which the first two end, and the last two begin, within what is seen."""
    if count < 3:
        return None
    (begin, _), (last_begin, last) = spans[count - 2], spans[count - 1]
    (first, end), (_, next_end) = spans[0], spans[1]
    jump = last_begin - begin
    if begin == first or next_end == last or jump != next_end - end:
        return None
    start = last_begin - (count - 1) * jump
    return end - start, jump, start


def _agree(line: tuple[int, int, int], spans: dict[int, Span]) -> bool:
    """Whether the fields, cut to what is seen at all, are those that were measured."""
    size, jump, start = line
    first, last = min(a for a, _ in spans.values()), max(b for _, b in spans.values())
    begins = {unit: start + unit * jump for unit in spans}
    return all((max(b, first), min(b + size, last)) == spans[unit] for unit, b in begins.items())


def _spans(
    recorder: ActivationRecorder, images: Tensor, layer: str, axis: int
) -> tuple[int, dict[int, Span]]:
    """How many units there are along an axis, and which pixels the outer and middle ones see."""
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.full_like(images, 0.5, requires_grad=True)
        with _StandIn():
            maps = recorder(x.clone())[layer]
        if maps.grad_fn is None:
            raise OptionError(f"layer {layer!r} does not depend on the images; choose another")
        if maps.dim() != 4:
            return 1, {0: (0, images.shape[axis])}
        count = maps.shape[axis]
        spans = {}
        for unit in sorted({0, min(1, count - 1), count // 2, max(count - 2, 0), count - 1}):
            (reach,) = torch.autograd.grad(maps.select(axis, unit).sum(), x, retain_graph=True)
            seen = (reach != 0).any(5 - axis).flatten(0, 1).any(0).nonzero()
            spans[unit] = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 0)
        return count, spans


class _StandIn(Replacement):
    """While it is entered, a model spreads positive values: means for weights, no activations.

    Convolutions take the mean of their channels first, so that it costs little.
    """

    def stand_in(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        signal = next(signals(args, kwargs), None)
        if signal is None:
            return function(*args, **kwargs)
        if name in ACTIVATIONS or name in _NORMS:
            return signal.clone()
        if name in _SPREADS:
            return _spread(name, function, *args, **kwargs)
        if "max_pool" in name and "fractional" not in name:
            return _spread_pool(name, function, args, kwargs)
        return function(*args, **kwargs)


_NORMS = {"batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm"}
_NORMS |= {"normalize", "rms_norm"}
_SPREADS = {f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)} | {"linear"}


class _Reach(Function):
    """One map for many; on the way back only whether there is something, lest it vanish."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, axis: int, channels: int) -> Tensor:
        ctx.axis = axis
        shape = list(y.shape)
        shape[axis] = channels
        return y.expand(shape).clone()

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor | None, ...]:
        reach = (signals[0] != 0).any(ctx.axis, keepdim=True)
        return reach.to(signals[0].dtype), None, None


def _spread(
    name: str,
    function: Callable[..., Any],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """The mean of each window in all channels, for every channel that comes out."""
    axis = 1 - weight.dim()
    mean = input.mean(axis, keepdim=True)
    if name == "linear":
        return _Reach.apply(mean, axis, len(weight))  # type: ignore[no-untyped-call]
    transposed = "transpose" in name
    further = ("output_padding", "groups", "dilation") if transposed else ("dilation", "groups")
    options = dict(zip(("stride", "padding", *further), args, strict=False)) | kwargs
    groups = options.pop("groups", 1)
    channels = weight.shape[1] * groups if transposed else len(weight)
    window = weight.shape[2:]
    y = function(mean, mean.new_full((1, 1, *window), 1 / window.numel()), None, **options)
    return _Reach.apply(y, axis, channels)  # type: ignore[no-untyped-call]


def _spread_pool(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The mean of each window, with the places of its maximum if these are wanted."""
    options = bound(name, *args, **kwargs)
    mean = getattr(F, name.removesuffix("_with_indices").replace("max", "avg"))
    if "output_size" in options:
        y = mean(options["input"], options["output_size"])
    else:
        dims = int(name.partition("pool")[2][0])
        kernel = each(options["kernel_size"], dims)
        dilation = each(options["dilation"], dims)
        span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        stride = options["stride"] or kernel
        y = mean(options["input"], span, stride, options["padding"], options["ceil_mode"])
    hard = function(*args, **kwargs)
    return (y, hard[1]) if isinstance(hard, tuple) else y
