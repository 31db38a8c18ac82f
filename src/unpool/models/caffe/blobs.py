"""Convert the blobs of Caffe layers to the tensors of a network."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from unpool.errors import OptionError, WeightsError
from unpool.limits import MAX_WEIGHT

if TYPE_CHECKING:
    from unpool.models import Network, Table
    from unpool.models.caffe.protobuf import Layer

BatchNorm = Literal["folded", "training"]

CODE = ("fc6", "fc7")  #: the fully connected layers of VGG-16 that networks keep
VGG16 = (
    *(f"conv{s}_{i}" for s, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)),
    *CODE,
)
"""The names of the layers of VGG-16, in order, without its classifier."""


class Imported(NamedTuple):
    """A network loaded from a Caffe file. Prepare its input with `prepare`."""

    model: "Network"
    ready: bool  #: False if it must be trained, or its statistics estimated, before use
    note: str  #: the network that was recognized, and what remains to be done


class Format(NamedTuple):
    """A file format of one kind of network, recognized by the names of its layers."""

    network: str
    examples: str  #: some of the layers, for messages
    has: Callable[["Layer"], bool]  #: whether a file of this format may contain the layer
    load: Callable[[Path, dict[str, "Layer"], BatchNorm | None], Imported]
    """Builds the network from the layers of `path`, by name; raises a `WeightsError` otherwise."""
    card: Mapping[str, Any] = MappingProxyType(
        {}
    )  #: additional entries of the model card, such as `input`
    labels: tuple[tuple[str, tuple[int, int, int]], ...] = ()
    """The authors' classes and their colors, if their number matches; otherwise those of VOC."""


@cache
def layer_names(network: type[nn.Module]) -> tuple[str, ...]:
    """The names of a network's layers that have weights, as in the keys of its state dict."""
    with torch.device("meta"):  # names and shapes only, without memory
        return tuple(dict.fromkeys(key.split(".")[-2] for key in network().state_dict()))


def sizes(path: Path, layers: dict[str, "Layer"], names: list[str]) -> tuple["Table", int, int]:
    """The arguments trunk, code and size of a VGG-16 network; raises if a layer is missing."""
    require_both(path, layers, names)
    width = {name: layers[name].blobs[1].size for name in names}  # number of outputs
    trunk = tuple((n, width[f"conv{i}_1"]) for i, n in enumerate((2, 2, 3, 3, 3), 1))  # VGG-16
    side = math.isqrt(layers["fc6"].blobs[0].size // (width["fc6"] * trunk[-1][1]))
    return trunk, width["fc6"], max(1, side) * 2 ** len(trunk)


def require_both(path: Path, layers: dict[str, "Layer"], names: list[str]) -> None:
    """Refuse missing layers, and layers without both weights and biases."""
    if bad := [name for name in names if name not in layers or len(layers[name].blobs) != 2]:
        raise WeightsError(
            f"{path} lacks weights and biases of {shorten(bad)}; give a complete file"
        )


def fit(path: Path, layers: dict[str, "Layer"], model: "Network") -> dict[str, Tensor]:
    """The blobs, without copying, under the keys and in the shapes of the network.

    The second-last part of a key names the layer: `fc.fc6.weight` belongs to fc6.
    """
    state, faults = {}, []
    for key, value in model.state_dict().items():
        name, part = key.split(".")[-2:]
        if name in layers and part in ("weight", "bias"):
            blob, wanted = layers[name].blobs[part == "bias"], tuple(value.shape)
            own = layers[name].name  # in the file
            if not _same(blob.shape, wanted, layers[name].type):
                faults.append(f"the {part} of {own} is {blob.shape}, not {wanted}")
            elif not max(-blob.min(), blob.max()) < MAX_WEIGHT:  # or NaN
                faults.append(f"the {part} of {own} is not finite")
            else:
                state[key] = torch.from_numpy(blob.reshape(wanted))
    refuse(path, faults, model)
    return state


def add_statistics(state: dict[str, Tensor], model: "Network") -> None:
    """Add the statistics of batch norm, which Caffe does not store: mean 0 and variance 1."""
    for key, value in model.state_dict().items():
        if key not in state:
            fill = torch.ones if key.endswith("running_var") else torch.zeros
            state[key] = fill(value.shape, dtype=value.dtype)


def require_batch_norm(path: Path, batch_norm: BatchNorm | None) -> None:
    """Raise an `OptionError` unless the meaning of batch norm's blobs is given."""
    if batch_norm is None:
        raise OptionError(
            f"{path} does not say what its batch norm means; pass batch_norm='folded' for a file "
            "made for inference, batch_norm='training' for one saved by the solver"
        )


def refuse(path: Path, faults: list[str], model: "Network") -> None:
    """Raise a `WeightsError` if there are faults."""
    if faults:
        raise WeightsError(
            f"{path} does not fit {type(model).__name__}: {shorten(faults)}; give a file of the "
            "authors' layers"
        )


def shorten(words: list[str], most: int = 4) -> str:
    """The first of some words, and how many more there are.

    >>> shorten(["one", "two", "three"], most=2)
    'one, two, and 1 more'
    """
    return ", ".join(words[:most] + [f"and {len(words) - most} more"] * (len(words) > most))


def _same(blob: tuple[int, ...], wanted: tuple[int, ...], kind: str) -> bool:
    """Whether shapes agree, apart from Caffe's leading ones and flattened maps."""
    if len(wanted) == 1:
        return math.prod(blob) == max(blob, default=1) == wanted[0]
    if kind == "InnerProduct":  # flattened as channel, row, column
        return blob[-2:] == (wanted[0], math.prod(wanted[1:])) and math.prod(blob[:-2]) == 1
    return blob == wanted
