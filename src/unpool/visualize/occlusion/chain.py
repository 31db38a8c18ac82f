"""Chains: models whose layers run one after the other, each on the output of the last."""

from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unpool.errors import OptionError
from unpool.visualize.activations import count_call, run_model
from unpool.visualize.shadow import shadow_copy


class Link(NamedTuple):
    """A layer of a chain."""

    name: str  #: as `list_layers` calls it
    layer: nn.Module
    aliases: tuple[str, ...] = ()  #: of modules that end with it, such as the `nn.Sequential`


class _Broken(BaseException):
    """Raised where a chain breaks; not an `Exception`, which a model might catch."""


class _Trace:
    """Records the layers of a model as they run; its methods are hooks."""

    def __init__(self, images: Tensor) -> None:
        self.links: list[Link] = []
        self.last, self.version = images, images._version
        self.calls: Counter[str] = Counter()

    def enter(
        self, name: str, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        if len(inputs) != 1 or options or not isinstance(inputs[0], Tensor):
            raise _Broken(f"{name} takes more than the maps of one layer")
        self.require(inputs[0], name)

    def require(self, x: Tensor, where: str) -> None:
        """Require that `x` is the last output, or that output flattened."""
        before = self.links[-1].name if self.links else "the images"
        if x._version != self.version:
            raise _Broken(f"something changes the values between {before} and {where}")
        if x is self.last:
            return
        flat = (len(self.last), self.last[0].numel())
        if x.data_ptr() != self.last.data_ptr() or x.shape != flat or not x.is_contiguous():
            raise _Broken(f"{where} does not take the output of {before}, but something made of it")
        self.links.append(Link("", nn.Flatten()))
        self.last = x

    def leave(self, name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        called = count_call(self.calls, name)
        if next(layer.children(), None) is not None:
            if name and self.links and output is self.last:
                link = self.links[-1]
                self.links[-1] = link._replace(aliases=(*link.aliases, called))
            return
        if not isinstance(output, Tensor):
            raise _Broken(f"{name} gives no tensor")
        self.links.append(Link(called, layer))
        self.last, self.version = output, output._version


def trace_chain(model: nn.Module, images: Tensor) -> list[Link]:
    """The layers of a model that is a chain, in the order in which they run.

    They are modules without children, of a shadow copy of the model. Anything that the model
    computes outside of its modules breaks the chain, except for flattening.

    Raises:
        OptionError: it is not a chain; the message says where it breaks.
        ShapeError: the model cannot be run on such images, (N, C, H, W).

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))
    >>> for link in trace_chain(model, torch.zeros(1, 3, 8, 8)):
    ...     print(link.name, link.layer, link.aliases)
    0 Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1)) ()
    1.0 ReLU() ()
    1.1 MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False) ('1',)
    """
    shadow, handles = shadow_copy(model), []
    # outside inference mode tensors have versions, which reveal in-place operations
    with torch.inference_mode(False), torch.no_grad():
        images = images.clone()
        trace = _Trace(images)
        for name, module in shadow.named_modules():
            handles.append(module.register_forward_hook(partial(trace.leave, name)))
            if next(module.children(), None) is None:
                before = partial(trace.enter, name)
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        try:
            output = run_model(shadow, images)
            if not isinstance(output, Tensor):
                raise _Broken(f"it gives a {type(output).__name__}, and no tensor")
            trace.require(output, "the output")
        except _Broken as broken:
            raise OptionError(f"the model is not a chain of layers: {broken}") from None
        finally:
            for handle in handles:
                handle.remove()
    return trace.links
