"""The fast form of a trained network: the same function with less work.

Network deconvolution is folded, and batch norm into the layer before it; ReLU is fused with that, a
deconvolution becomes the convolution with rotated filters, and a layer whose window is the whole
map becomes a matrix product. Weights are stored channels-last. One mechanism serves all networks:
it replaces layers in `nn.Sequential`, of which all stages consist.
"""

import copy
import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpool.models.classifiers import Fire
from unpool.models.crfrnn import CRFRNN
from unpool.models.norms import fold_whitening
from unpool.ops.deconv import as_convolution

if TYPE_CHECKING:
    from unpool.models.weights import Network

Net = TypeVar("Net", bound="Network")

CHECKED = 16  #: the number of output channels of a layer that are checked

CORNER = 16  #: side of the noise, and of the corners of a layer's first maps, used for checks


@torch.no_grad()
def accelerate(net: Net, dtype: torch.dtype = torch.float32, consume: bool = False) -> Net:
    """Convert a network to its fast form, for inference.

    Each layer is checked twice. When it is converted, a few channels of its fast form are compared
    on noise with the layer, batch norm and ReLU that it replaces; if they disagree, a warning is
    issued and these are kept. At its first use, two corners of its output are also computed with
    plain operators; if they disagree, plain operators are used from then on.

    Args:
        net: a network with trained batch norm statistics, or without batch norm.
        dtype: of weights and maps, float32 or bfloat16. The layer `score` stays float32, so that
            close scores do not become ties, and so does the CRF of a `CRFRNN`.
        consume: reuse the memory of `net`, which is then the network returned. By default `net` is
            not changed, and weights that stay as they are share its memory.

    Returns:
        A network of the same class, in evaluation mode, whose scores equal those of `net.eval()`
        up to rounding.

    >>> from unpool.models import DeconvNet
    >>> net = DeconvNet(2, trunk=((1, 4),), code=8, size=32).eval()
    >>> x = torch.randn(1, 3, 32, 32)
    >>> with torch.inference_mode():
    ...     torch.allclose(accelerate(net)(x), net(x), atol=1e-5)
    True
    """
    fast = net.eval() if consume else _shallow_copy(net).eval()
    fold_whitening(fast)
    for stage in [m for m in fast.modules() if isinstance(m, nn.Sequential)]:
        _replace_layers(stage, dtype, consume)
    network = fast.net if isinstance(fast, CRFRNN) else fast  # whose CRF stays float32, too
    for name, part in network.named_children():
        if name not in ("score", "seg-score-voc"):  # rounded scores would have more ties
            part.to(dtype)
    return fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def fold(net: Net) -> Net:
    """A copy of a network with batch norm folded into the layers before it.

    Network deconvolution is folded, too: its layers become plain ones. The copy is in evaluation
    mode and channels-last layout, and its scores equal those of `net.eval()` up to rounding.

    >>> from unpool.models import DeconvNet
    >>> net = DeconvNet(2, trunk=((1, 4),), code=None, size=32).eval()
    >>> x = torch.randn(1, 3, 32, 32)
    >>> torch.allclose(fold(net)(x), net(x), atol=1e-5)
    True
    """
    folded = copy.deepcopy(net).eval()
    fold_whitening(folded)
    vars(folded)["norm"] = None  # for its `arguments`
    for stage in [m for m in folded.modules() if isinstance(m, nn.Sequential | Fire)]:
        for _, layer, norm, _ in list(_groups(stage)):
            if norm is not None:
                parts = _folded(layer, stage.get_submodule(norm))
                layer.weight, layer.bias = (nn.Parameter(part) for part in parts)
                delattr(stage, norm)
                vars(folded)["eps"] = None  # so that its `arguments` build it without batch norm
    return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Fast(nn.Module):
    """A layer with its ReLU, checked at its first use."""

    def __init__(self, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.relu, self.checked, self.is_plain = relu, False, False

    def forward(self, x: Tensor) -> Tensor:
        """The output for maps (N, C, H, W), checked at the first use."""
        if self.is_plain:
            return self.plain(x)
        y = self.quick(x)
        if not self.checked:
            self.checked = True
            if not _agree(*self.corners(x[:1], y[:1])):
                _warn(self)
                self.is_plain = True
                return self.plain(x)
        return y

    def corners(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """A part of the output for an image, and the same part by plain operators."""
        return y[:, :CHECKED], self.plain(x, CHECKED)

    def quick(self, x: Tensor) -> Tensor:
        """The output, by the quickest operators."""
        return self.plain(x)

    def plain(self, x: Tensor, channels: int | None = None) -> Tensor:
        """The first output channels (None: all), by plain operators."""
        raise NotImplementedError

    def _bias(self, channels: int | None) -> Tensor | None:
        return None if self.bias is None else self.bias[:channels]

    def _rectified(self, y: Tensor) -> Tensor:
        return y.relu_() if self.relu else y


class Convolution(Fast):
    """A convolution of stride 1, or a deconvolution written as one; weight (O, I, k, k)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, relu: bool, padding: list[int]) -> None:
        super().__init__(weight.contiguous(memory_format=torch.channels_last), bias, relu)
        self.padding = padding

    def quick(self, x: Tensor) -> Tensor:
        """The output, by the quickest operators."""
        if not self.relu or not _fuses(x):
            return self.plain(x)
        ones = [1, 1]  # stride and dilation
        # private in torch, but it fuses the ReLU; hence the check at its first use
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, self.padding, ones, ones, 1, "relu", [], ""
        )

    def plain(self, x: Tensor, channels: int | None = None) -> Tensor:
        """The first output channels (None: all), by plain operators."""
        y = F.conv2d(x, self.weight[:channels], self._bias(channels), padding=self.padding)
        return self._rectified(y)

    def corners(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """A part of the output for an image, and the same part by plain operators."""
        rows, columns = (CORNER + side - 1 for side in self.weight.shape[-2:])
        first = self.plain(x[..., :rows, :columns], CHECKED)[..., :CORNER, :CORNER]
        last = self.plain(x[..., -rows:, -columns:], CHECKED)[..., -CORNER:, -CORNER:]
        y = y[:, :CHECKED]
        found = torch.stack([y[..., :CORNER, :CORNER], y[..., -CORNER:, -CORNER:]])
        return found, torch.stack([first, last])


class Reduction(Fast):
    """A convolution without padding; for maps of its window's size a matrix product.

    The weight is stored as that matrix, (O, k * k * I), and viewed as filters for larger maps.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
        super().__init__(weight.permute(0, 2, 3, 1).flatten(1).contiguous(), bias, relu)
        self.inputs, self.window = weight.shape[1], weight.shape[-2:]

    def quick(self, x: Tensor) -> Tensor:
        """The output, by the quickest operators."""
        if x.shape[-2:] != self.window:
            return self.plain(x)
        y = F.linear(x.permute(0, 2, 3, 1).flatten(1), self.weight, self.bias)
        return self._rectified(y)[..., None, None]

    def plain(self, x: Tensor, channels: int | None = None) -> Tensor:
        """The first output channels (None: all), by plain operators."""
        filters = self._filters(self.weight[:channels])
        return self._rectified(F.conv2d(x, filters, self._bias(channels)))

    def _filters(self, weight: Tensor) -> Tensor:
        return weight.view(-1, *self.window, self.inputs).permute(0, 3, 1, 2)


class Expansion(Fast):
    """A deconvolution without cropping; for 1 x 1 maps a matrix product.

    The weight is stored as that matrix, (k * k * O, I), and viewed as filters for larger maps.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
        super().__init__(weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous(), bias, relu)
        self.outputs, self.window = weight.shape[1], weight.shape[-2:]

    def quick(self, x: Tensor) -> Tensor:
        """The output, by the quickest operators."""
        if x.shape[-2:] != (1, 1):
            return self.plain(x)
        y = F.linear(x.flatten(1), self.weight).view(-1, *self.window, self.outputs)
        if self.bias is not None:
            y = y + self.bias
        return self._rectified(y).permute(0, 3, 1, 2)

    def plain(self, x: Tensor, channels: int | None = None) -> Tensor:
        """The first output channels (None: all), by plain operators."""
        filters = self._filters(self.weight)[:, :channels]
        return self._rectified(F.conv_transpose2d(x, filters, self._bias(channels)))

    def _filters(self, weight: Tensor) -> Tensor:
        return weight.view(*self.window, self.outputs, -1).permute(3, 2, 0, 1)


def _shallow_copy(net: Net) -> Net:
    """A copy with parameters of its own that share the memory of the weights."""
    shared = {
        id(p): nn.Parameter(p.detach(), p.requires_grad and p.is_floating_point())
        for p in net.parameters()
    }
    return copy.deepcopy(net, {**shared, **{id(b): b.detach() for b in net.buffers()}})


def _replace_layers(stage: nn.Sequential, dtype: torch.dtype, consume: bool) -> None:
    """Replace each layer with its batch norm and ReLU by its fast form."""
    for name, layer, norm, relu in list(_groups(stage)):
        parts = [stage.get_submodule(part) for part in (norm, relu) if part is not None]
        if not _is_equivalent(layer, parts, dtype):
            _warn(layer)
            continue
        weight, bias = layer.weight, layer.bias
        if norm is not None:
            weight, bias = _folded(layer, stage.get_submodule(norm), consume)
        weight = weight.detach().to(dtype)
        if consume:
            layer.weight = nn.Parameter(weight)  # frees the old one
        bias = None if bias is None else bias.detach().to(dtype)
        fast = _fast_form(layer, weight, bias, relu is not None)
        if fast is not None:
            setattr(stage, name, fast)
        elif norm is not None:
            layer.weight = nn.Parameter(weight)
            layer.bias = None if bias is None else nn.Parameter(bias)
        for merged in (norm, relu if fast is not None else None):
            if merged is not None:
                delattr(stage, merged)


def _is_equivalent(
    layer: nn.Conv2d | nn.ConvTranspose2d, parts: list[nn.Module], dtype: torch.dtype
) -> bool:
    """Whether the fast form agrees with layer, norm and ReLU, for a few channels on noise."""
    few, *after = (_few_channels(part) for part in (layer, *parts))
    weight, bias = few.weight, few.bias
    if after and isinstance(after[0], nn.BatchNorm2d):
        weight, bias = _folded(few, after[0])
    relu = bool(after) and isinstance(after[-1], nn.ReLU)
    bias = None if bias is None else bias.to(dtype)
    fast = _fast_form(layer, weight.to(dtype), bias, relu)
    if fast is None:
        return True
    side = {Expansion: 1, Reduction: max(layer.kernel_size)}.get(type(fast), CORNER)
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, layer.in_channels, side, side, generator=random).to(weight.device)
    return _agree(fast.quick(x.to(dtype)), nn.Sequential(few, *after)(x))


def _few_channels(part: nn.Module) -> Any:
    """A copy of a layer, batch norm or ReLU with only the first output channels."""
    axis = 1 if isinstance(part, nn.ConvTranspose2d) else 0
    few: dict[int, Any] = {}
    for tensor in (*part.parameters(), *part.buffers()):
        along = axis if tensor.dim() == 4 else 0
        if tensor.dim():
            first = tensor.detach().narrow(along, 0, min(CHECKED, tensor.shape[along]))
            is_weight = isinstance(tensor, nn.Parameter)
            few[id(tensor)] = nn.Parameter(first, requires_grad=False) if is_weight else first
    return copy.deepcopy(part, few)


def _fast_form(
    layer: nn.Conv2d | nn.ConvTranspose2d, weight: Tensor, bias: Tensor | None, relu: bool
) -> Fast | None:
    """The fast form of a layer; None if there is none, as with strides."""
    simple = layer.stride == layer.dilation == (1, 1) and layer.groups == 1
    if not simple or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return None
    pad, kernel = layer.padding, layer.kernel_size
    if isinstance(layer, nn.ConvTranspose2d):
        inner = [k - 1 - p for k, p in zip(kernel, pad, strict=True)]
        if layer.output_padding != (0, 0) or min(inner) < 0:
            return None
        if pad == (0, 0):
            return Expansion(weight, bias, relu)
        return Convolution(as_convolution(weight), bias, relu, inner)
    if pad == (0, 0):
        return Reduction(weight, bias, relu)
    return Convolution(weight, bias, relu, list(pad))


def _fuses(x: Tensor) -> bool:
    """Whether this build of torch has the fused convolution and ReLU, and may use it now."""
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def _agree(found: Tensor, expected: Tensor) -> bool:
    if found.dtype == torch.uint8:  # where two values are as near, either may be chosen
        return bool(((found.int() - expected.int()).abs() <= 1).all())
    unit = 1e-3 if found.dtype == torch.float32 else 2e-2  # of rounding, relative to the largest
    found, expected = found.detach().float(), expected.detach().float()
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    if not math.isfinite(scale):  # nothing to compare; who runs the network refuses its output
        return True
    return torch.allclose(found, expected, rtol=unit, atol=unit * scale)


def _warn(layer: nn.Module) -> None:
    warnings.warn(
        f"the fast form of {layer} gives other values on this machine than the plain one, which is "
        "used instead; please report it",
        stacklevel=3,
    )


def _groups(
    stage: nn.Module,
) -> Iterator[tuple[str, nn.Conv2d | nn.ConvTranspose2d, str | None, str | None]]:
    """The layers of a stage with their names and those of their batch norm and ReLU."""
    children = list(stage.named_children())
    for i, (name, layer) in enumerate(children):
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            continue
        after = children[i + 1 : i + 3]
        norm = after.pop(0)[0] if after and isinstance(after[0][1], nn.BatchNorm2d) else None
        relu = after[0][0] if after and isinstance(after[0][1], nn.ReLU) else None
        yield name, layer, norm, relu


def _folded(layer: nn.Module, norm: nn.Module, consume: bool = False) -> tuple[Tensor, Tensor]:
    """Weight and bias with batch norm folded in; `consume` changes the layer's weight in place."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0  # the axis of output channels
    shape = [-1 if d == axis else 1 for d in range(4)]
    folded = weight.mul_(scale.view(shape)) if consume else weight * scale.view(shape)
    return folded, (bias - norm.running_mean) * scale + norm.bias
