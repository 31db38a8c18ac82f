"""Activations changed on their way through a network."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from torch import Tensor, nn

from unpool.errors import OptionError

Intervention: TypeAlias = Callable[[Tensor], Tensor]
"""Called with the activations of a layer, after its ReLU; gives those to go on with."""


def list_layers(model: nn.Module) -> list[str]:
    """The layers whose activations can be set, in order: fc1 to fc5, and the stages of streams."""
    return [
        name
        for name, _ in model.named_modules()
        if name.rpartition(".")[2] in ("fc1", "fc2", "fc3", "fc4", "fc5")
        or (name.rpartition(".")[0].endswith("stages") and name.rpartition(".")[2].isdecimal())
    ]


@contextmanager
def intervene(model: nn.Module, interventions: Mapping[str, Intervention]) -> Iterator[None]:
    """Change activations on their way through a network, and leave the network as it was.

    Args:
        model: any module.
        interventions: by the name of a layer, of `list_layers`.

    Raises:
        OptionError: no such layer.

    >>> net = torch.nn.Sequential()
    >>> net.add_module("fc1", torch.nn.Identity())
    >>> with intervene(net, {"fc1": torch.zeros_like}):
    ...     net(torch.ones(2))
    tensor([0., 0.])
    """
    handles = []
    try:
        for layer, change in interventions.items():
            module = _rectified(model, layer)

            def hook(_: nn.Module, __: object, y: Tensor, change: Intervention = change) -> Tensor:
                return change(y)

            handles.append(module.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rectified(model: nn.Module, layer: str) -> nn.Module:
    """The module that gives the activations of a layer: itself, or the ReLU that follows it."""
    if layer not in dict(model.named_modules()) or not layer:
        known = ", ".join(list_layers(model))
        raise OptionError(f"got layer {layer!r}; it is one of {known}")
    parent, _, name = layer.rpartition(".")
    siblings = list(model.get_submodule(parent).named_children())
    place = [child for child, _ in siblings].index(name)
    following = siblings[place + 1][1] if place + 1 < len(siblings) else None
    return following if isinstance(following, nn.ReLU) else siblings[place][1]
