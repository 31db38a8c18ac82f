"""The fast form of a trained network: the same function with less work.

Batch norm is folded into the layer before it, ReLU joins it, a deconvolution becomes the
convolution with its filters turned around, and a layer whose window is the whole map becomes a
matrix product. Weights are laid out once, channels last. One mechanism for all networks: it looks
for layers in `nn.Sequential`, which is what stages are made of here.
"""

import copy
import warnings
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpool.models.weights import Network
from unpool.ops.deconv import as_convolution

Net = TypeVar("Net", bound=Network)

CHECKED = 16
"""Output channels of a layer that are checked."""

CORNER = 16
"""Side of the noise, and of the corners of a layer's first maps, that are checked."""


@torch.no_grad()
def accelerate(net: Net, dtype: torch.dtype = torch.float32, consume: bool = False) -> Net:
    """The network in its fast form, for inference.

    Each layer is checked twice. Here, a few channels of its fast form are compared, on noise, with
    the layer, batch norm and ReLU that they stand for; where they do not agree, a warning says so
    and these stay. And the first time it is used, two corners of what it gives of the first image
    are computed by plain operators, too; where the two do not agree, plain operators go on.

    Args:
        net: with trained batch norm statistics, or without batch norm.
        dtype: of the weights and maps, float32 or bfloat16. The layer `score` stays at fp32, so
            that scores close to each other do not become ties.
        consume: turn `net` itself into its fast form, layer by layer, which takes hardly more
            memory than it has; otherwise it stays as it is.

    Returns:
        A network of the same class, in evaluation mode, whose scores equal those of `net.eval()`
        up to rounding. Weights that need no change share their memory with those of `net`.

    >>> from unpool.models import DeconvNet
    >>> net = DeconvNet(2, trunk=((1, 4),), code=8, size=32).eval()
    >>> x = torch.randn(1, 3, 32, 32)
    >>> with torch.inference_mode():
    ...     torch.allclose(accelerate(net)(x), net(x), atol=1e-5)
    True
    """
    fast = net.eval() if consume else _twin(net).eval()
    for stage in [m for m in fast.modules() if isinstance(m, nn.Sequential)]:
        _replace_layers(stage, dtype, consume)
    for name, part in fast.named_children():
        if name not in ("score", "seg-score-voc"):
            part.to(dtype)
    return fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def fold(net: Net) -> Net:
    """The network without batch norm: its scale and shift folded into the layers before it.

    Args:
        net: with trained batch norm statistics, or without batch norm; it stays as it is.

    Returns:
        A new network of the same class, without batch norm, in evaluation mode and channels-last
        layout, whose scores equal those of `net.eval()` up to rounding.

    >>> from unpool.models import DeconvNet
    >>> net = DeconvNet(2, trunk=((1, 4),), code=None, size=32).eval()
    >>> x = torch.randn(1, 3, 32, 32)
    >>> torch.allclose(fold(net)(x), net(x), atol=1e-5)
    True
    """
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules()):
        return _settled(copy.deepcopy(net))
    with torch.device("meta"):
        folded = type(net)(**{**net.arguments, "eps": None})
    wanted = folded.state_dict()
    state = {k: v.detach().clone() for k, v in net.state_dict().items() if k in wanted}
    for prefix, stage in net.named_modules():
        if isinstance(stage, nn.Sequential):
            for name, layer, norm, _ in _groups(stage):
                if norm is not None:
                    weight, bias = _folded(layer, stage.get_submodule(norm))
                    state[f"{prefix}.{name}.weight"], state[f"{prefix}.{name}.bias"] = weight, bias
    folded.load_state_dict(state, assign=True)
    return _settled(folded)


class _Fast(nn.Module):
    """A layer and its ReLU, with a check at its first use."""

    def __init__(self, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.relu, self.checked, self.is_plain = relu, False, False

    def forward(self, x: Tensor) -> Tensor:
        if self.is_plain:
            return self.plain(x)
        y = self.quick(x)
        if not self.checked:
            self.checked = True
            if not _agree(*self.corners(x[:1], y[:1])):
                _complain(self)
                self.is_plain = True
                return self.plain(x)
        return y

    def corners(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """A part of what came out of an image, and the same part by plain operators."""
        return y[:, :CHECKED], self.plain(x, CHECKED)

    def quick(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def plain(self, x: Tensor, channels: int | None = None) -> Tensor:
        """The first output channels (all when None), by the plain operators."""
        raise NotImplementedError

    def _bias(self, channels: int | None) -> Tensor | None:
        return None if self.bias is None else self.bias[:channels]

    def _rectified(self, y: Tensor) -> Tensor:
        return y.relu_() if self.relu else y


class _Convolution(_Fast):
    """A convolution of stride 1, or a deconvolution as one; weight (O, I, k, k)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, relu: bool, padding: list[int]) -> None:
        super().__init__(weight.contiguous(memory_format=torch.channels_last), bias, relu)
        self.padding = padding

    def quick(self, x: Tensor) -> Tensor:
        if self.relu and _fuses(x):
            ones = [1, 1]  # of stride and dilation
            return torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, self.padding, ones, ones, 1, "relu", [], ""
            )
        return self.plain(x)

    def plain(self, x: Tensor, channels: int | None = None) -> Tensor:
        y = F.conv2d(x, self.weight[:channels], self._bias(channels), padding=self.padding)
        return self._rectified(y)

    def corners(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = (CORNER + side - 1 for side in self.weight.shape[-2:])
        first = self.plain(x[..., :rows, :columns], CHECKED)[..., :CORNER, :CORNER]
        last = self.plain(x[..., -rows:, -columns:], CHECKED)[..., -CORNER:, -CORNER:]
        y = y[:, :CHECKED]
        found = torch.stack([y[..., :CORNER, :CORNER], y[..., -CORNER:, -CORNER:]])
        return found, torch.stack([first, last])


class _Reduction(_Fast):
    """A convolution without padding; over a map of its window's size a matrix product.

    The weight is kept as that matrix, (O, k * k * I), and read as filters for larger maps.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
        super().__init__(weight.permute(0, 2, 3, 1).flatten(1).contiguous(), bias, relu)
        self.inputs, self.window = weight.shape[1], weight.shape[-2:]

    def quick(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != self.window:
            return self.plain(x)
        y = F.linear(x.permute(0, 2, 3, 1).flatten(1), self.weight, self.bias)
        return self._rectified(y)[..., None, None]

    def plain(self, x: Tensor, channels: int | None = None) -> Tensor:
        filters = self.weight[:channels].view(-1, *self.window, self.inputs).permute(0, 3, 1, 2)
        return self._rectified(F.conv2d(x, filters, self._bias(channels)))


class _Expansion(_Fast):
    """A deconvolution without cropping; of a single cell a matrix product.

    The weight is kept as that matrix, (k * k * O, I), and read as filters for larger maps.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
        super().__init__(weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous(), bias, relu)
        self.outputs, self.window = weight.shape[1], weight.shape[-2:]

    def quick(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (1, 1):
            return self.plain(x)
        y = F.linear(x.flatten(1), self.weight).view(-1, *self.window, self.outputs)
        if self.bias is not None:
            y = y + self.bias
        return self._rectified(y).permute(0, 3, 1, 2)

    def plain(self, x: Tensor, channels: int | None = None) -> Tensor:
        filters = self.weight.view(*self.window, self.outputs, -1).permute(3, 2, 0, 1)
        filters = filters[:, :channels]
        return self._rectified(F.conv_transpose2d(x, filters, self._bias(channels)))


def _twin(net: Net) -> Net:
    """A copy that shares the memory of its weights, but not the parameters that hold them."""
    shared = {
        id(p): nn.Parameter(p.detach(), p.requires_grad and p.is_floating_point())
        for p in net.parameters()
    }
    return copy.deepcopy(net, {**shared, **{id(b): b.detach() for b in net.buffers()}})


def _replace_layers(stage: nn.Sequential, dtype: torch.dtype, consume: bool) -> None:
    """Put the fast form of each layer in the place of layer, batch norm and ReLU."""
    for name, layer, norm, relu in list(_groups(stage)):
        parts = [stage.get_submodule(part) for part in (norm, relu) if part is not None]
        if not _stands_for(layer, parts, dtype):
            _complain(layer)
            continue
        weight, bias = layer.weight, layer.bias
        if norm is not None:
            weight, bias = _folded(layer, stage.get_submodule(norm), consume)
        weight = weight.detach().to(dtype)
        if consume:
            layer.weight = nn.Parameter(weight)  # the old one is free from here
        bias = None if bias is None else bias.detach().to(dtype)
        fast = _fast_form(layer, weight, bias, relu is not None)
        if fast is None and norm is None:
            continue
        if fast is None:
            layer.weight = nn.Parameter(weight)
            layer.bias = None if bias is None else nn.Parameter(bias)
        else:
            setattr(stage, name, fast)
        for gone in (norm, relu if fast is not None else None):
            if gone is not None:
                delattr(stage, gone)


def _stands_for(
    layer: nn.Conv2d | nn.ConvTranspose2d, parts: list[nn.Module], dtype: torch.dtype
) -> bool:
    """Whether the fast form of a few channels gives, of noise, what layer, norm and ReLU give."""
    few, *after = (_few_channels(part) for part in (layer, *parts))
    weight, bias = few.weight, few.bias
    if after and isinstance(after[0], nn.BatchNorm2d):
        weight, bias = _folded(few, after[0])
    relu = bool(after) and isinstance(after[-1], nn.ReLU)
    bias = None if bias is None else bias.to(dtype)
    fast = _fast_form(layer, weight.to(dtype), bias, relu)
    if fast is None:
        return True
    side = {_Expansion: 1, _Reduction: max(layer.kernel_size)}.get(type(fast), CORNER)
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, layer.in_channels, side, side, generator=random).to(weight.device)
    return _agree(fast.quick(x.to(dtype)), nn.Sequential(few, *after)(x))


def _few_channels(part: nn.Module) -> Any:
    """A copy of a layer, batch norm or ReLU that gives the first channels only."""
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
) -> _Fast | None:
    """The fast form of a layer; None where there is none, as for strides."""
    simple = layer.stride == layer.dilation == (1, 1) and layer.groups == 1
    if not simple or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return None
    pad, kernel = layer.padding, layer.kernel_size
    if isinstance(layer, nn.ConvTranspose2d):
        inner = [k - 1 - p for k, p in zip(kernel, pad, strict=True)]
        if layer.output_padding != (0, 0) or min(inner) < 0:
            return None
        if pad == (0, 0):
            return _Expansion(weight, bias, relu)
        return _Convolution(as_convolution(weight), bias, relu, inner)
    if pad == (0, 0):
        return _Reduction(weight, bias, relu)
    return _Convolution(weight, bias, relu, list(pad))


def _fuses(x: Tensor) -> bool:
    """Whether this build of torch has the convolution that ends in a ReLU, and may use it."""
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def _agree(found: Tensor, expected: Tensor) -> bool:
    """Whether they are the same but for rounding."""
    found, expected = found.detach(), expected.detach()
    unit = 1e-3 if found.dtype == torch.float32 else 2e-2
    found, expected = found.float(), expected.float()
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return torch.allclose(found, expected, rtol=unit, atol=unit * scale, equal_nan=True)


def _complain(layer: nn.Module) -> None:
    warnings.warn(
        f"the fast form of {layer} gives other values on this machine than the plain one, which is "
        "used instead; please report it",
        stacklevel=3,
    )


def _settled(net: Net) -> Net:
    net.eval()
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _groups(
    stage: nn.Sequential,
) -> Iterator[tuple[str, nn.Conv2d | nn.ConvTranspose2d, str | None, str | None]]:
    """The layers of a stage, by name, each with the names of its batch norm and its ReLU."""
    children = list(stage.named_children())
    for i, (name, layer) in enumerate(children):
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            continue
        after = children[i + 1 : i + 3]
        norm = after.pop(0)[0] if after and isinstance(after[0][1], nn.BatchNorm2d) else None
        relu = after[0][0] if after and isinstance(after[0][1], nn.ReLU) else None
        yield name, layer, norm, relu


def _folded(layer: nn.Module, norm: nn.Module, consume: bool = False) -> tuple[Tensor, Tensor]:
    """Weight and bias with the batch norm in them; the layer's own weight changes if consumed."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0  # of the output channels
    shape = [-1 if d == axis else 1 for d in range(4)]
    folded = weight.mul_(scale.view(shape)) if consume else weight * scale.view(shape)
    return folded, (bias - norm.running_mean) * scale + norm.bias
