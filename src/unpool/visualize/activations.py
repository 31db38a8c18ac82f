"""Layers of any model by name, and their activations."""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError, UnpoolError, first_line, suggest
from unpool.visualize.shadow import shadow_copy

Visitor = Callable[[str, Tensor], None]
"""Called with the name of a layer and its output, as soon as the layer has run."""

SCORE = "score"
"""The name of the layer that `score_layer` makes of a model."""


class Layer(NamedTuple):
    """One call of a module of a model."""

    name: str  #: as in `model.named_modules()`; the second call of a reused layer ends in ":2"
    kind: str  #: the class of the module
    shape: tuple[int, ...]  #: of its output, without the batch: (C, h, w) for feature maps


class ActivationRecorder:
    """Runs a model up to the deepest of some layers, and records their outputs.

    Weights are shared with the model; buffers (statistics of batch norm) are copied when the
    recorder is built. If a layer returns several tensors, the first is recorded. Use one recorder
    per thread.

    Raises:
        OptionError: the model has no such layer (see `list_layers`), or is TorchScript.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2))
    >>> recorder = ActivationRecorder(model, ["0", "1"])
    >>> {name: tuple(maps.shape) for name, maps in recorder(torch.zeros(2, 3, 8, 8)).items()}
    {'0': (2, 4, 6, 6), '1': (2, 4, 6, 6)}
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        self.layers = list(dict.fromkeys(layers))
        if not self.layers:
            raise OptionError("got no layers; name one or more of list_layers")
        self._shadow = shadow_copy(model)
        modules = dict(self._shadow.named_modules())
        for name in {_module_name(layer, modules) for layer in self.layers}:
            modules[name].register_forward_hook(partial(self._record, name))
        self._calls: Counter[str] = Counter()
        self._left: set[str] = set()
        self._visitor: Visitor | None = None

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Run the model on (N, C, H, W), and return the outputs of the layers, in running order.

        Returns:
            By name: (N, C, h, w) for layers with feature maps, (N, K) for others; safe from later
            layers that work in place, and with gradients if these are enabled.

        Raises:
            ShapeError: the model cannot be run on such images.
            OptionError: a layer did not run, or returned no tensor.
        """
        maps: dict[str, Tensor] = {}
        self.visit(images, lambda name, t: maps.update({name: t.clone() if self._left else t}))
        return maps

    def visit(self, images: Tensor, visitor: Visitor) -> None:
        """Run the model on images (N, C, H, W), and call `visitor` for each of the layers.

        The visitor must use its tensor at once, since later layers may change it in place.
        """
        self._calls, self._left, self._visitor = Counter(), set(self.layers), visitor
        try:
            run_model(self._shadow, images)
        except _Done:
            pass
        finally:
            self._visitor = None
        if self._left:
            raise OptionError(
                f"layer {min(self._left)!r} of the model did not run, or returned no tensor; "
                "choose one of list_layers"
            )

    def _record(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        maps = first_tensor(output)
        if self._visitor is None or maps is None:  # no visitor: a backward pass with checkpointing
            return
        layer = count_call(self._calls, name)
        if layer in self._left:
            self._left.remove(layer)
            self._visitor(layer, maps)
            if not self._left:
                raise _Done


def list_layers(model: nn.Module, images: Tensor) -> list[Layer]:
    """The layers of a model that return tensors, in the order in which they finish.

    A module that runs several times is listed each time: "relu", "relu:2", ... Of the images, (N,
    C, H, W), only the shape matters.

    Raises:
        ShapeError: the model cannot be run on such images.
        OptionError: the model is TorchScript.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> for layer in list_layers(model, torch.zeros(1, 3, 8, 8)):
    ...     print(*layer)
    0 Conv2d (4, 6, 6)
    1 ReLU (4, 6, 6)
    """
    shadow, calls, layers = shadow_copy(model), Counter[str](), list[Layer]()

    def record(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if (maps := first_tensor(output)) is not None:
            kind, shape = type(module).__name__, tuple(maps.shape[1:])
            layers.append(Layer(count_call(calls, name), kind, shape))

    for name, module in shadow.named_modules():
        if name and "parametrizations" not in name.split("."):  # those give weights, not maps
            module.register_forward_hook(partial(record, name))
    with torch.no_grad():
        run_model(shadow, images)
    return layers


def stage_ends(layers: Sequence[Layer]) -> list[str]:
    """The last layer of each stage: the last before feature maps shrink, down to the smallest.

    A stage ends where the area of the maps falls to half or less, so that convolutions without
    padding do not end one.

    >>> shapes = [(8, 9, 9), (8, 9, 9), (8, 4, 4), (16, 4, 4), (16, 1, 1), (10,)]
    >>> stage_ends([Layer(str(i), "", shape) for i, shape in enumerate(shapes)])
    ['1', '3']
    """
    sizes = [(layer.name, math.prod(layer.shape[1:])) for layer in layers if len(layer.shape) == 3]
    maps = [(name, area) for name, area in sizes if area > 1]
    chosen: list[str] = []
    for (name, area), (_, following) in pairwise([*maps, ("", 0)]):
        if 2 * following <= area or following > area:
            chosen.append(name)
        if following > area:
            break
    return chosen


def chain_layers(chain: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers of a chain and of nested chains, in order, with their dotted names.

    >>> chain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))
    >>> [name for name, layer in chain_layers(chain)]
    ['0', '1.0', '1.1']
    """
    for name, layer in chain._modules.items():  # unlike named_children, it repeats shared layers
        if isinstance(layer, nn.Sequential):
            yield from chain_layers(layer, f"{prefix}{name}.")
        elif layer is not None:
            yield f"{prefix}{name}", layer


def score_layer(model: nn.Module) -> nn.Sequential:
    """A model as the only layer of another, called `SCORE`, so that its output can be recorded."""
    return nn.Sequential(OrderedDict([(SCORE, model)]))


def first_tensor(output: Any) -> Tensor | None:
    """The first tensor in the output of a module, or None.

    Of a dictionary, "out" is preferred: torchvision's segmentation models give scores as "out",
    and those of an auxiliary classifier as "aux".

    >>> first_tensor({"count": 3, "aux": torch.zeros(2), "out": torch.ones(2)})
    tensor([1., 1.])
    """
    if isinstance(output, dict):
        output = [output["out"]] if "out" in output else list(output.values())
    items: Iterable[Any] = output if isinstance(output, list | tuple) else [output]
    return next((item for item in items if isinstance(item, Tensor)), None)


class _Done(BaseException):
    """Raised when all layers have run; not an `Exception`, which a model might catch."""


def run_model(shadow: nn.Module, images: Tensor) -> Any:
    """The output of a model for images (N, C, H, W); a `ShapeError` if it does not take them."""
    try:
        return shadow(images)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        if isinstance(error, UnpoolError | torch.OutOfMemoryError):
            raise
        raise ShapeError(
            f"the model cannot be run on {tuple(images.shape)} {str(images.dtype)[6:]} on "
            f"{images.device}: {first_line(error)}; pass images of the size, type and device that "
            "it takes: for example, set size=N of the preprocessing"
        ) from error


def layer_name(model: nn.Module, layer: str | nn.Module) -> str:
    """The name of a layer, which may be given by name or as a module of the model.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> layer_name(model, model[1])
    '1'
    """
    if isinstance(layer, str):
        return layer
    if not isinstance(layer, nn.Module):
        raise OptionError(
            f"got layer {layer!r}; wanted its name, or the module itself: list_layers names all"
        )
    names = {id(module): name for name, module in model.named_modules() if name}
    if id(layer) not in names:
        raise OptionError(
            f"got a {type(layer).__name__} as the layer, which is not part of the model; pass one "
            "of its modules, or a name from list_layers"
        )
    return names[id(layer)]


def count_call(calls: Counter[str], name: str) -> str:
    """Count a call of a module, and return the name of the layer: "relu", "relu:2" ..."""
    calls[name] += 1
    return name if calls[name] == 1 else f"{name}:{calls[name]}"


def _module_name(layer: str, modules: dict[str, nn.Module]) -> str:
    """The name of the module of a layer: "relu" for "relu:2"."""
    name, _, call = layer.rpartition(":")
    known = [k for k in modules if k]
    if layer in known:
        return layer
    if name in known and call.isdecimal() and int(call) > 1:
        return name
    raise OptionError(
        f"got layer {layer!r}, which the model does not have; {suggest(layer, known)}"
    )


def require_finite(what: str, *values: Tensor) -> None:
    """Raise an `OptionError` if a value is not finite; `what` gives them, such as "the model"."""
    if not all(value.isfinite().all() for value in values):
        raise OptionError(
            f"{what} gives values that are not finite; the weights are damaged, or the images "
            "are not preprocessed as the model expects"
        )


def is_probability(scores: Tensor) -> bool:
    """Whether scores (N, K, ...) are probabilities: the model ends with a softmax of its own.

    >>> is_probability(torch.tensor([[0.25, 0.75]])), is_probability(torch.tensor([[2.0, 0.0]]))
    (True, False)
    """
    sums = scores.float().sum(1)
    return bool(scores.min() >= 0) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
