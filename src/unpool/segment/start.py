"""The initial weights of a training run, and weight averaging with them."""

from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from unpool.cards import Card
from unpool.errors import OptionError, WeightsError
from unpool.models import CRFRNN, FCN, Network, from_pretrained, load_vgg
from unpool.models.fast import fold
from unpool.models.vgg import trunk_argument
from unpool.segment.learner import GrowingLearner, Learner
from unpool.training.run import load_state, save_state

if TYPE_CHECKING:
    from unpool.recipes.segment import SegmentationRecipe


class WarmStart(NamedTuple):
    """The initial weights, as needed at the end of a run."""

    card: Card | None  #: the card of the weights; None without a warm start
    tensors: dict[str, Tensor]  #: tensors by name; empty without weight averaging
    left: tuple[str, ...] = ()  #: layers that the weights do not fit, see `transfer_weights`


def warm_start(
    learner: Learner,
    recipe: "SegmentationRecipe",
    classes: list[str],
    trunk_weights: str | Path | None,
    trunk_inputs: str,
) -> WarmStart:
    """Load the initial weights into a new network.

    Args:
        learner: its network is changed in place.
        recipe: the recipe, with or without `start`.
        classes: names of the classes of the data, by class id.
        trunk_weights: VGG weights for the trunk, or a folder for `trunk_of`.
        trunk_inputs: the preprocessing of `trunk_weights`, see `load_vgg`.

    Raises:
        OptionError, WeightsError: weights that do not fit, cannot be averaged, or cannot be read.
    """
    start = WarmStart(None, {})
    if recipe.start is not None:
        trained, card = from_pretrained(recipe.start)
        left = transfer_weights(learner.net, trained)
        start = WarmStart(card, {}, left)
        if recipe.average_with_start:
            if trunk_weights is not None:
                raise OptionError(
                    "got weights for the trunk, but the result is averaged with those of start; "
                    "leave trunk_weights out, or set average_with_start=0"
                )
            _require_alike(learner.net, trained, card.classes or [], classes)
            start = WarmStart(card, trained.state_dict())
    if trunk_weights is not None:
        load_trunk(learner.net, trunk_weights, trunk_inputs)
        if recipe.tied and isinstance(learner, GrowingLearner):
            learner.tie()
    return start


def load_trunk(net: Network, weights: str | Path, inputs: str = "caffe") -> None:
    """Load weights into the trunk, and into fc6 and fc7 where they fit.

    Args:
        net: changed in place.
        weights: a file of VGG weights, or a folder for `trunk_of`.
        inputs: the preprocessing of the weights in a file, see `load_vgg`.
    """
    if Path(weights).is_dir():
        load_vgg(net, trunk_of(weights))
    else:
        load_vgg(net, weights, inputs)


def trunk_of(folder: str | Path) -> dict[str, Tensor]:
    """The convolutions of a saved network's trunk, in the form of VGG weights, batch norm folded.

    Raises a `WeightsError` unless it is a segmentation network.
    """
    net, card = from_pretrained(folder)
    if not isinstance(net, Network):
        raise WeightsError(
            f"got {folder}, weights of a {card.architecture}; wanted those of a network that "
            "segments, such as a DeconvNet, or a file of VGG weights"
        )
    # folded, since the network that takes them may have no batch norm
    layers = [layer for layer in fold(net).trunk.modules() if isinstance(layer, nn.Conv2d)]
    return {
        f"features.{i}.{name}": value.detach()
        for i, layer in enumerate(layers)
        for name, value in layer.state_dict().items()
    }


def store_start(path: Path, start: WarmStart) -> None:
    """Store the initial weights in the run folder, for `read_start`."""
    if start.card is not None:
        save_state(path, {"model": start.tensors, "card": start.card.to_dict()})


def read_start(path: Path, recipe: "SegmentationRecipe", net: Network) -> WarmStart:
    """The initial weights of a resumed run, as `store_start` wrote them."""
    if recipe.start is None:
        return WarmStart(None, {})
    cure = "put back a copy, or start a new run in another folder"
    if not path.exists():
        raise WeightsError(f"{path} is missing, the initial weights of the run; {cure}")
    state = load_state(path)
    wanted = _shapes(net.state_dict()) if recipe.average_with_start else {}
    if "card" not in state or _shapes(state["model"]) != wanted:
        raise WeightsError(f"{path} does not hold the initial weights of the run; {cure}")
    return WarmStart(Card.from_dict(state["card"], path), state["model"])


def transfer_weights(net: Network, trained: object) -> tuple[str, ...]:
    """Copy the tensors of a trained network that have the same names and shapes.

    Score layers for other classes keep their weights; other networks or trunks are refused. An
    FCN's weights are loaded into the FCN of a `CRFRNN`.

    Returns:
        The names of other layers that keep their weights, such as fc6 of another width.
    """
    if isinstance(net, CRFRNN) and isinstance(trained, FCN):
        net = net.net
    if not isinstance(trained, type(net)):
        theirs, ours = type(trained).__name__, type(net).__name__
        fitting = f"{ours} or FCN" if isinstance(net, CRFRNN) else ours
        raise OptionError(
            f"got {theirs} weights to start from, and a recipe that trains a network {ours}; set "
            f"start to {fitting} weights"
        )
    if net.trunk.table != trained.trunk.table:
        theirs = str(trunk_argument(trained.trunk.table)).replace(" ", "")  # for a shell, too
        raise OptionError(f"got weights to start from with another trunk; set trunk={theirs}")
    own, other = net.state_dict(), trained.state_dict()
    fits = {k: v for k, v in other.items() if k in own and own[k].shape == v.shape}
    net.load_state_dict(fits, strict=False)
    learned = {name for name, _ in net.named_parameters()} - fits.keys()
    paths = [name.split(".")[:-1] for name in own if name in learned]
    return tuple(dict.fromkeys(path[-1] for path in paths if "score" not in ".".join(path)))


@torch.no_grad()
def average_weights(net: Network, other: dict[str, Tensor], fraction: float) -> None:
    """Average a network's tensors with those of another network.

    If one network was fine-tuned from the other, the loss of an average is often lower than that
    of either network. Wortsman et al. 2022, "Robust fine-tuning of zero-shot models".

    Args:
        net: changed in place.
        other: tensors by name, of the same architecture and the same classes in the same order.
        fraction: 0..1, the weight of `other`.
    """
    for name, tensor in net.state_dict().items():
        # not the counters of batch norm
        if tensor.is_floating_point():
            tensor.lerp_(other[name].to(tensor), fraction)


def _require_alike(net: Network, trained: Network, names: list[str], classes: list[str]) -> None:
    """Refuse to average networks with different classes or architectures."""
    for i, (theirs, ours) in enumerate(zip_longest(names, classes, fillvalue="not named")):
        if theirs != ours:
            raise OptionError(
                f"got weights to start from whose class {i} is {theirs}, and data whose class {i} "
                f"is {ours}; averaging needs the same classes in the same order: write the same "
                "names into the weights' card or the data's classes.txt, or set "
                "average_with_start=0"
            )
    if _shapes(net.state_dict()) != _shapes(trained.state_dict()):
        raise OptionError(
            "got weights to start from of another architecture, which cannot be averaged; set "
            "average_with_start=0"
        )


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
