"""A deconvnet as an explicit network: each layer of a chain with its mirror image, as in the paper.

It gives the same projections as `project` without a gradient, which makes it readable, and a check
of `project`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpool.errors import OptionError
from unpool.ops.switches import Switches, pool, unpool
from unpool.visualize.activations import chain_layers
from unpool.visualize.shadow import shadow_copy

Kept = Switches | tuple[int, int] | None
"""What the mirror image of a layer needs: switches, the size of the layer's input, or nothing."""


@dataclass
class AttachedDeconvnet:
    """A chain of layers with its mirror image: see `attach_deconvnet`."""

    layers: list[nn.Module]  #: in the order of the chain, in evaluation mode
    overlap: Literal["overwrite", "sum"]  #: see `unpool.ops.unpool`

    @torch.no_grad()
    def up(self, images: Tensor) -> tuple[Tensor, list[Kept]]:
        """The maps (N, C, h, w) of images (N, 3, H, W), and what each mirror image needs."""
        x, kept = images, list[Kept]()
        for layer in self.layers:
            if isinstance(layer, nn.MaxPool2d):
                kernel, stride, padding, _ = _window(layer)
                x, switches = pool(x, kernel, stride, padding, layer.ceil_mode)
                kept.append(switches)
            else:
                kept.append((x.shape[-2], x.shape[-1]) if isinstance(layer, nn.Conv2d) else None)
                x = layer(x)
        return x, kept

    @torch.no_grad()
    def __call__(self, signal: Tensor, kept: list[Kept]) -> Tensor:
        """Project a signal (N, C, h, w) to pixels (N, 3, H, W), given what `up` has kept."""
        for layer, found in zip(reversed(self.layers), reversed(kept), strict=True):
            if isinstance(found, Switches):
                signal = unpool(signal, found, self.overlap)
            elif isinstance(layer, nn.ReLU):
                signal = F.relu(signal)
            elif isinstance(layer, nn.Conv2d) and found is not None:
                signal = _deconvolve(signal, layer, found)
            elif isinstance(layer, nn.BatchNorm2d) and layer.running_var is not None:
                gain = torch.rsqrt(layer.running_var + layer.eps)
                gain = gain if layer.weight is None else gain * layer.weight
                signal = signal * gain.view(-1, 1, 1)
        return signal


def attach_deconvnet(
    trunk: nn.Sequential, overlap: Literal["overwrite", "sum"] = "sum"
) -> AttachedDeconvnet:
    """Attach a deconvnet to a chain of layers: unpooling, ReLUs and the transposed filters.

    Response normalization and dropout pass signals on unchanged, batch norm multiplies them by its
    gain, and biases are left out.

    Args:
        trunk: of `Conv2d`, `ReLU`, `MaxPool2d`, `BatchNorm2d`, `LocalResponseNorm`, dropout, and
            nested chains. Its weights are shared; it is used in evaluation mode.
        overlap: where pooling windows share their maximum, values add up or the last one wins.

    Raises:
        OptionError: another layer, or one whose windows are not square or not padded by zeros.

    Zeiler, Fergus 2014, section 2.1 and figure 1.

    >>> trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
    >>> deconvnet = attach_deconvnet(trunk)
    >>> maps, kept = deconvnet.up(torch.rand(1, 3, 10, 10))
    >>> strongest = maps * (maps == maps.max())
    >>> deconvnet(strongest, kept).shape
    torch.Size([1, 3, 10, 10])
    """
    shadow = shadow_copy(trunk)
    assert isinstance(shadow, nn.Sequential)
    layers = [layer for _, layer in chain_layers(shadow)]
    for layer in layers:
        _require_mirror(layer)
    return AttachedDeconvnet(layers, overlap)


def _require_mirror(layer: nn.Module) -> None:
    fits = isinstance(layer, nn.ReLU | nn.LocalResponseNorm | nn.Dropout | nn.Dropout2d)
    if isinstance(layer, nn.Conv2d):
        fits = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if isinstance(layer, nn.BatchNorm2d):
        fits = layer.running_var is not None
    if isinstance(layer, nn.MaxPool2d):
        window = _window(layer)
        fits = len(window) == 4 and window[3] == 1 and not layer.return_indices
    if not fits:
        raise OptionError(
            f"got {layer} in the chain, which has no mirror image here; end the chain before it, "
            "or use project(), which takes any model"
        )


def _window(layer: nn.MaxPool2d) -> list[int]:
    """Kernel, stride, padding and dilation, without those that differ between the directions."""
    options = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    sides = [{value} if isinstance(value, int) else set(value) for value in options]
    return [side.pop() for side in sides if len(side) == 1]


def _deconvolve(signal: Tensor, layer: nn.Conv2d, size: tuple[int, int]) -> Tensor:
    """Apply the transposed filters, and restore the rows and columns that a stride left out."""
    assert not isinstance(layer.padding, str)
    window = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    extra = [
        n - ((m - 1) * stride - 2 * pad + dilation * (kernel - 1) + 1)
        for n, m, kernel, stride, pad, dilation in zip(size, signal.shape[2:], *window, strict=True)
    ]
    return F.conv_transpose2d(
        signal, layer.weight, None, layer.stride, layer.padding, extra, layer.groups, layer.dilation
    )
