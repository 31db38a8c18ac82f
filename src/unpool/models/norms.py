"""Add batch norm or network deconvolution to networks, and fold network deconvolution."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from unpool.errors import OptionError, require_choice
from unpool.ops.whitening import Delinear, FastDeconv

Net = TypeVar("Net", bound=nn.Module)

Norm = Literal["batch", "deconv"]
NORMS: tuple[Norm, ...] = ("batch", "deconv")

BLOCK, LINEAR = 16, 64  #: size of a block, in convolutions and in fully connected layers

_FIRST_STEPS, _FIRST_UPDATES = 15, 100  # of a network's first layer, as released
_MOMENTUM = 0.3  # higher than the released 0.1, so that running roots follow the changing network


@torch.no_grad()
def deconvolve(module: nn.Module, block: int = BLOCK, linear: int | None = None) -> list[str]:
    """Replace every convolution that has batch norm by a `FastDeconv`, in place.

    Batch norm must be registered right after its convolution. The filters are kept as initial
    weights. Batch norm is removed from a `nn.Sequential`, and becomes the identity elsewhere. The
    first layer computes its root in 15 steps, in the first 100 of every 1000 training steps.

    Args:
        module: any network, to be trained.
        block: the block of each `FastDeconv`.
        linear: the block of the `Delinear` that replaces each `nn.Linear`; None keeps `nn.Linear`.

    Returns:
        The names of the layers that were replaced.

    Raises:
        OptionError: batch norm does not follow a convolution; nothing has been changed.

    Ye et al. 2020 (arXiv 1905.11926); the released networks.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    >>> deconvolve(net), len(net)
    (['0'], 2)
    """
    pairs = list(_pairs(module))
    paired = {norm for *_, norm in pairs}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.BatchNorm2d) and name not in paired:
            raise OptionError(
                f"got batch norm {name!r} that does not follow a convolution; wanted networks in "
                "which each does"
            )
    settings: dict[str, Any] = {"momentum": _MOMENTUM}
    first = {"steps": _FIRST_STEPS, "freeze": _FIRST_UPDATES}
    made: dict[str, nn.Module] = {}
    for name, layer, _ in pairs:
        made[name] = _whitening_form(layer, block=block, **settings, **({} if made else first))
    for name, layer in module.named_modules() if linear is not None else ():
        if type(layer) is nn.Linear:
            sizes = layer.in_features, layer.out_features
            made[name] = _take(Delinear(*sizes, block=linear or 1, **settings), layer)
    for name, layer in made.items():
        module.set_submodule(name, layer)
    for *_, name in pairs:
        parent, _, own = name.rpartition(".")
        within = module.get_submodule(parent)
        if isinstance(within, nn.Sequential):
            delattr(within, own)
        else:
            setattr(within, own, nn.Identity())
    return list(made)


@torch.no_grad()
def fold_whitening(module: nn.Module) -> nn.Module:
    """Replace each `FastDeconv` and `Delinear` of a module by its plain form, in place.

    The plain form is the convolution or fully connected layer that computes the same in evaluation.
    `ChannelDeconv` is kept; in evaluation it multiplies by a constant matrix.

    Returns:
        The module, or its plain form if the module itself is such a layer.

    >>> net = nn.Sequential(FastDeconv(3, 4, 3), nn.ReLU())
    >>> type(fold_whitening(net)[0]) is nn.Conv2d
    True
    """
    if isinstance(module, FastDeconv | Delinear):
        return module.folded()
    for name, layer in list(module.named_modules()):
        if isinstance(layer, FastDeconv | Delinear):
            module.set_submodule(name, layer.folded())
    return module


def add_norm(features: nn.Module, classifier: nn.Module, norm: str | None) -> None:
    """Add normalization to a classifier in place: to convolutions, with "deconv" to all layers.

    Args:
        features: the convolutions.
        classifier: the layers after them; convolutions among these are not changed.
        norm: one of `NORMS`, or None for no normalization.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Sequential(nn.Linear(4, 2))
    >>> add_norm(*net, "deconv")
    >>> [type(layer).__name__ for layer in (net[0][0], net[1][0])]
    ['FastDeconv', 'Delinear']
    """
    if norm is None:
        return
    require_choice("norm", norm, NORMS)
    add_batch_norm(features)
    if norm == "deconv":
        deconvolve(features)
        deconvolve(classifier, linear=LINEAR)


def add_batch_norm(module: nn.Module) -> None:
    """Add batch norm after every convolution, in place, as the next child of the same module.

    It is named `bn1` after `conv1`, and `squeeze_norm` after `squeeze`.

    >>> net = nn.Sequential()
    >>> _ = net.append(nn.Conv2d(3, 4, 3)).append(nn.ReLU())
    >>> add_batch_norm(net)
    >>> [name for name, _ in net.named_children()]
    ['0', '0_norm', '1']
    """
    for name, layer in list(module.named_children()):
        norm = f"bn{name[4:]}" if name.startswith("conv") else f"{name}_norm"
        if not isinstance(layer, nn.Conv2d):
            add_batch_norm(layer)
        else:
            later = list(module.named_children())
            later = later[[own for own, _ in later].index(name) + 1 :]
            module.add_module(norm, nn.BatchNorm2d(layer.out_channels))
            for own, part in later:  # move behind it
                delattr(module, own)
                module.add_module(own, part)


def _pairs(module: nn.Module) -> Iterator[tuple[str, nn.Conv2d, str]]:
    """Convolutions that are followed by batch norm, with the names of both."""
    for path, parent in module.named_modules():
        children = list(parent.named_children())
        prefix = f"{path}." if path else ""
        for (name, layer), (after, norm) in pairwise(children):
            if type(layer) is nn.Conv2d and isinstance(norm, nn.BatchNorm2d):
                yield prefix + name, layer, prefix + after


def _whitening_form(layer: nn.Conv2d, **settings: Any) -> FastDeconv:
    if layer.padding_mode != "zeros":
        raise OptionError(f"got {layer}; wanted padding with zeros")
    geometry: Any = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
    return _take(FastDeconv(layer.in_channels, layer.out_channels, *geometry, **settings), layer)


def _take(new: Net, layer: nn.Conv2d | nn.Linear) -> Net:
    """Move the weights of a layer to another one, which always has a bias."""
    new.to(layer.weight)
    weights = dict(layer.named_parameters())
    if layer.bias is None:
        nn.init.zeros_(new.get_parameter("bias"))
    for name, value in weights.items():
        new.register_parameter(name, value)
    return new
