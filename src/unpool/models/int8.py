"""The int8 form of a network: convolutions of integers, from image to scores.

Weights are int8 with a scale for each output channel. Maps after a ReLU are uint8 with one scale,
and stay integers from layer to layer: pooling and unpooling need no scale, and the scale of a map
that a floating-point layer reads is multiplied into its weights. Made from the fast form, whose
layers it replaces, and checked in the same way. Jacob et al. 2018 (arXiv 1712.05877), section 2.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpool.cards import find_weights
from unpool.devices import bf16_pays
from unpool.errors import OptionError, WeightsError
from unpool.files import read_json, write_json
from unpool.limits import MAX_LAYERS
from unpool.models.deconvnet import DeconvNet
from unpool.models.fast import Convolution, Expansion, Fast, Reduction, accelerate
from unpool.models.fcn import FCN
from unpool.models.segnet import SegNet

if TYPE_CHECKING:
    from unpool.models.weights import Network

NETWORKS = (DeconvNet, FCN, SegNet)
"""The networks that have an int8 form."""

FILE = "int8.json"
"""The scales of saved weights, beside them."""

LARGEST = 255  #: of uint8

_LEVELS = 127  # of int8, on each side of zero


class Scale(NamedTuple):
    """How a layer reads and writes integers: value = scale * (integer - zero)."""

    input: float  #: scale of its input
    zero: int = 0  #: the integer that stands for zero in its input; only the image has negatives
    output: float | None = None  #: scale of its output; None: it writes floating-point values
    int8: bool = True  #: whether it computes with integers; if not, it reads them


@dataclass(frozen=True)
class Scales:
    """The scales of a network's maps, as `unpool.models.calibration.calibrate` found them."""

    layers: dict[str, Scale]  #: by name; layers that are missing neither read nor write integers
    sha256: str | None = None  #: of the weights; None: of a network that was not saved
    measured: dict[str, Any] = field(default_factory=dict)  #: at the calibration

    @classmethod
    def read(cls, source: str | Path, sha256: str) -> "Scales":
        """The scales beside saved weights, by name or folder, whose tensors have this digest.

        Raises a `WeightsError` if there are none, if they are of others, or cannot be used.
        """
        path = find_weights(source) / FILE
        if not path.is_file():
            raise WeightsError(
                f"got {source} with precision int8, for which its maps must be measured first: "
                f"unpool quantize {source}, or leave the precision out"
            )
        entries = read_json(path, WeightsError)
        try:
            layers = {str(name): _scale(**entry) for name, entry in entries["layers"].items()}
            measured = dict(entries.get("measured", {}))
            if entries["format"] != 1 or len(layers) > 2 * MAX_LAYERS:
                raise ValueError
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            raise WeightsError(
                f"{path} does not hold the scales of a network; make it again: unpool quantize"
            ) from None
        if entries.get("sha256") != sha256:
            raise WeightsError(
                f"got {path}, which was made for other weights than those beside it; make it "
                "again: unpool quantize"
            )
        return cls(layers, sha256, measured)

    def write(self, folder: Path) -> None:
        """Write the file `FILE` into a folder of weights."""
        layers = {name: scale._asdict() for name, scale in self.layers.items()}
        write_json(folder / FILE, {"format": 1, **asdict(self), "layers": layers})


@torch.no_grad()
def to_int8(net: "Network", scales: Scales | None, consume: bool = False) -> "Network":
    """Convert a network to its int8 form, for inference.

    Args:
        net: with batch norm as trained, or without; one of `NETWORKS`.
        scales: of this network.
        consume: reuse the memory of `net`, as in `accelerate`.

    Returns:
        A network that takes float32 images and returns float32 scores.

    Raises:
        OptionError: another network.
        WeightsError: scales of other layers.
    """
    require_int8(net)
    if scales is None:
        raise OptionError(
            "got precision int8 for a network whose maps were not measured; pass scales of "
            "unpool.models.calibration.calibrate, or save the network and use unpool quantize"
        )
    fast = accelerate(net, consume=consume)
    layers = layers_of(fast)
    if unknown := scales.layers.keys() - layers.keys():
        raise WeightsError(
            f"got scales for {min(unknown)}, which the network lacks; they belong to other "
            "weights: make them again with unpool quantize"
        )
    dtype = torch.bfloat16 if bf16_pays(torch.device("cpu")) else torch.float32
    for name, layer in layers.items():
        scale = scales.layers.get(name)
        parent, _, own = name.rpartition(".")
        if scale is not None and scale.int8:
            setattr(fast.get_submodule(parent), own, integer_form(layer, scale, dtype))
            continue
        if scale is not None:
            scaled = layer.get_parameter("weight") * scale.input  # not in place: it may be shared
            layer.weight = nn.Parameter(scaled, requires_grad=False)
        if isinstance(layer, Fast):
            layer.to(dtype)
        layer.register_forward_pre_hook(_convert)
    return fast


def require_int8(net: object) -> "Network":
    """The network itself if it has an int8 form, or an `OptionError`."""
    if not isinstance(net, NETWORKS):
        raise OptionError(
            f"got precision int8 for a {type(net).__name__}; it is for "
            f"{', '.join(kind.__name__ for kind in NETWORKS)}: leave it out"
        )
    return net


def layers_of(fast: "Network") -> dict[str, nn.Module]:
    """The layers of a fast form by name, in the order of the state dict."""
    kinds = Fast, nn.Conv2d, nn.ConvTranspose2d
    return {name: part for name, part in fast.named_modules() if isinstance(part, kinds)}


def integer_form(layer: nn.Module, scale: Scale, dtype: torch.dtype) -> nn.Module:
    """The int8 form of a layer of a fast form; `dtype` is that of its output if not integers."""
    if isinstance(layer, Convolution):
        return _Convolution(layer, scale, dtype)
    if isinstance(layer, Reduction):
        return _Reduction(layer, scale, dtype)
    if isinstance(layer, Expansion):
        return _Expansion(layer, scale, dtype)
    assert isinstance(layer, nn.Conv2d)
    return _Scores(layer, scale)


def quantize(x: Tensor, scale: float, zero: int = 0) -> Tensor:
    """Integers (uint8) of values of any shape, rounded to the nearest, halves to the even.

    >>> quantize(torch.tensor([-1.0, 0.25, 1.0, 1000.0]), 0.5).tolist()
    [0, 0, 2, 255]
    """
    return (x.float() * (1 / scale)).round_().add_(zero).clamp_(0, LARGEST).to(torch.uint8)


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (O, ...) as int8, and the scale of each output channel (O,)."""
    largest = weight.flatten(1).abs().amax(1)
    scale = torch.where(largest > 0, largest / _LEVELS, 1.0).float()
    shape = [-1, *[1] * (weight.dim() - 1)]
    return (weight / scale.view(shape)).round().to(torch.int8), scale


class _Integers(Fast):
    """A layer of the fast form on integers, with its ReLU. Weights are rounded by output channel,
    the first axis of all layers here."""

    def __init__(self, layer: Fast, scale: Scale, dtype: torch.dtype) -> None:
        weight, steps = quantize_weight(layer.weight)
        Fast.__init__(self, weight, layer.bias, layer.relu)
        self.scale, self.dtype = scale, dtype if scale.output is None else torch.uint8
        # not parameters: they follow no .to(dtype)
        self.steps, self.zeros = steps, torch.zeros_like(steps, dtype=torch.int8)
        self.packed: dict[Any, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if x.is_floating_point():
            x = quantize(x, self.scale.input, self.scale.zero)
        return super().forward(x)

    def _how(self) -> tuple[Any, ...]:
        """The last arguments of both operators: of the output, and the ReLU."""
        return self.scale.output or 1.0, 0, self.dtype, "relu" if self.relu else "none", [], ""

    def _convolve(self, x: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
        ones, scale = [1, 1], self.scale
        if "convolution" not in self.packed:
            self.packed["convolution"] = torch.ops.onednn.qconv_prepack(
                weight, self.steps, scale.input, scale.zero, ones, padding, ones, 1, list(x.shape)
            )
        parts = self.packed["convolution"], self.steps, self.zeros, self.bias
        return torch.ops.onednn.qconv2d_pointwise(
            x, scale.input, scale.zero, *parts, ones, padding, ones, 1, *self._how()
        )

    def _multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if "product" not in self.packed:
            self.packed["product"] = torch.ops.onednn.qlinear_prepack(self.weight, list(x.shape))
        parts = self.packed["product"], self.steps, self.zeros, bias
        return torch.ops.onednn.qlinear_pointwise(
            x, self.scale.input, self.scale.zero, *parts, *self._how()
        )

    def _values(self, x: Tensor) -> Tensor:
        return (x.float() - self.scale.zero) * self.scale.input

    def _written(self, y: Tensor) -> Tensor:
        """Values as this layer writes them."""
        y = self._rectified(y)
        return y.to(self.dtype) if self.scale.output is None else quantize(y, self.scale.output)


class _Convolution(_Integers, Convolution):
    def __init__(self, layer: Convolution, scale: Scale, dtype: torch.dtype) -> None:
        super().__init__(layer, scale, dtype)
        self.padding = layer.padding

    def quick(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight, self.padding)

    def plain(self, x: Tensor, channels: int | None = None) -> Tensor:
        weight = self.weight[:channels] * self.steps[:channels, None, None, None]
        return self._written(
            F.conv2d(self._values(x), weight, self._bias(channels), padding=self.padding)
        )


class _Reduction(_Integers, Reduction):
    def __init__(self, layer: Reduction, scale: Scale, dtype: torch.dtype) -> None:
        super().__init__(layer, scale, dtype)
        self.inputs, self.window = layer.inputs, layer.window

    def quick(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != self.window:
            return self._convolve(x, self._filters(self.weight), [0, 0])
        y = self._multiply(x.permute(0, 2, 3, 1).flatten(1), self.bias)
        return y[..., None, None]

    def plain(self, x: Tensor, channels: int | None = None) -> Tensor:
        weight = self._filters(self.weight[:channels] * self.steps[:channels, None])
        return self._written(F.conv2d(self._values(x), weight, self._bias(channels)))


class _Expansion(_Integers, Expansion):
    def __init__(self, layer: Expansion, scale: Scale, dtype: torch.dtype) -> None:
        super().__init__(layer, scale, dtype)
        self.outputs, self.window = layer.outputs, layer.window

    def quick(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (1, 1):
            return self.plain(x)
        positions = len(self.weight) // self.outputs
        bias = None if self.bias is None else self.bias.repeat(positions)
        y = self._multiply(x.flatten(1), bias)
        return y.view(-1, *self.window, self.outputs).permute(0, 3, 1, 2)

    def plain(self, x: Tensor, channels: int | None = None) -> Tensor:
        weight = self._filters(self.weight * self.steps[:, None])[:, :channels]
        return self._written(F.conv_transpose2d(self._values(x), weight, self._bias(channels)))


class _Scores(nn.Conv2d):
    """The last layer: integers in, float32 scores out."""

    def __init__(self, layer: nn.Conv2d, scale: Scale) -> None:
        nn.Module.__init__(self)
        assert not isinstance(layer.padding, str)
        fast = Convolution(layer.weight, layer.bias, False, list(layer.padding))
        self.layer = _Convolution(fast, scale, torch.float32)
        # networks convert its input to the dtype of its weight
        self.weight = nn.Parameter(torch.empty(0, dtype=torch.uint8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def _convert(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].to(layer.weight.dtype),)  # type: ignore[arg-type]


def _scale(input: float, zero: int, output: float | None, int8: bool) -> Scale:
    """An entry of a file, or a `ValueError`."""
    positive = (0 < float(value) < float("inf") for value in (input, output or 1.0))
    if not all(positive) or not 0 <= zero <= LARGEST or not isinstance(int8, bool):
        raise ValueError
    return Scale(float(input), int(zero), None if output is None else float(output), int8)
