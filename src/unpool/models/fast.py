"""The fast form of a trained network: the same function with less work."""

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from unpool.models.weights import Network

__all__ = ["bf16_pays", "fold"]

Net = TypeVar("Net", bound=Network)


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
        return _fast(copy.deepcopy(net))
    with torch.device("meta"):
        folded = type(net)(**{**net.arguments, "eps": None})
    wanted = folded.state_dict()
    state = {k: v.detach().clone() for k, v in net.state_dict().items() if k in wanted}
    for prefix, stage in net.named_modules():
        if isinstance(stage, nn.Sequential):
            for name, layer, norm in _pairs(stage):
                weight, bias = _folded(layer, norm)
                state[f"{prefix}.{name}.weight"], state[f"{prefix}.{name}.bias"] = weight, bias
    folded.load_state_dict(state, assign=True)
    return _fast(folded)


def bf16_pays(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 faster than fp32.

    >>> bf16_pays(torch.device("cpu")) in (True, False)
    True
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    has = torch.cpu.get_capabilities()
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))


def _fast(net: Net) -> Net:
    net.eval()
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _pairs(stage: nn.Sequential) -> Iterator[tuple[str, nn.Module, nn.BatchNorm2d]]:
    """The layers of a stage, by name, each with its batch norm."""
    last: tuple[str, nn.Module] = "", stage
    for name, module in stage.named_children():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            last = name, module
        elif isinstance(module, nn.BatchNorm2d):
            yield *last, module


def _folded(layer: nn.Module, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0  # of the output channels
    shape = [-1 if d == axis else 1 for d in range(4)]
    return weight * scale.view(shape), (bias - norm.running_mean) * scale + norm.bias
