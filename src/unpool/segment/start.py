"""The weights that a training run begins with, and with which its result may be a mean."""

from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unpool import distributed
from unpool.cards import settings
from unpool.errors import OptionError, WeightsError
from unpool.models import Network, from_pretrained, load_vgg
from unpool.recipes import SegmentationRecipe
from unpool.segment.growing import Learner, Scaffold
from unpool.training.run import load_state, save_state


class Start(NamedTuple):
    """What is still needed, when a training run is done, of the weights that it began with."""

    card: dict[str, Any]  #: theirs; empty if the recipe names none
    tensors: dict[str, Tensor]  #: by name; empty if the result is no mean with them


def begin(
    learner: Learner,
    recipe: SegmentationRecipe,
    classes: list[str],
    trunk_weights: str | Path | None,
    trunk_inputs: str = "caffe",
) -> Start:
    """Give a new network the weights that it begins with.

    Args:
        learner: its network is changed.
        recipe: may name a start.
        classes: names by class id, of the data.
        trunk_weights: VGG weights for the trunk.
        trunk_inputs: what those were trained on, see `load_vgg`.

    Raises:
        OptionError: weights that do not fit, or with which no mean can be taken.
        WeightsError: weights that are not there or cannot be read.
    """
    start = Start({}, {})
    if recipe.start is not None:
        trained, card = from_pretrained(recipe.start)
        take_over(learner.net, trained)
        settings(card, trained.classes, recipe.start)  # says so if a value cannot be used
        start = Start(card, {})
        if recipe.average_with_start:
            if trunk_weights is not None:
                raise OptionError(
                    "got weights for the trunk, but the result is a mean with those of start; "
                    "leave trunk_weights out, or set average_with_start=0"
                )
            _require_mean(learner.net, trained, card.get("classes") or [], classes)
            start = Start(card, trained.state_dict())
    if trunk_weights is not None:
        load_vgg(learner.net, trunk_weights, trunk_inputs)
        if recipe.tied and isinstance(learner, Scaffold):
            learner.tie()
    return start


def keep_start(path: Path, recipe: SegmentationRecipe, start: Start) -> None:
    """Keep in the run folder what `read_start` reads, whatever becomes of the weights themselves.

    Raises:
        TrainingError: it cannot be written.
    """
    if recipe.start is not None and distributed.rank() == 0:
        save_state(path, {"model": start.tensors, "card": start.card})


def read_start(path: Path, recipe: SegmentationRecipe, net: Network) -> Start:
    """What a run that goes on began with.

    Raises:
        WeightsError: it is missing, cannot be read, or is of another run.
    """
    if recipe.start is None:
        return Start({}, {})
    cure = "put back a copy, or begin a new run in another folder"
    if not path.exists():
        raise WeightsError(f"{path} is missing, which tells what the run began with; {cure}")
    state = load_state(path)
    wanted = _shapes(net.state_dict()) if recipe.average_with_start else {}
    if "card" not in state or _shapes(state["model"]) != wanted:
        raise WeightsError(f"{path} is not what the run began with; {cure}")
    return Start(state["card"], state["model"])


def take_over(net: Network, trained: object) -> None:
    """Give a network the tensors of a trained one, where names and shapes are the same.

    Score layers of other classes stay as they are.

    Raises:
        OptionError: the trained one is another network, or has another trunk.
    """
    if not isinstance(trained, type(net)):  # of those that segment, one's trunk has batch norm
        theirs, ours = type(trained).__name__, type(net).__name__
        raise OptionError(
            f"got {theirs} weights to start from, and a recipe that trains a network {ours}; set "
            f"start to {ours} weights"
        )
    if net.trunk.table != trained.trunk.table:
        raise OptionError("got weights to start from with another trunk; set trunk to theirs")
    own, other = net.state_dict(), trained.state_dict()
    fits = {k: v for k, v in other.items() if k in own and own[k].shape == v.shape}
    net.load_state_dict(fits, strict=False)


@torch.no_grad()
def mix(net: Network, other: dict[str, Tensor], share: float) -> None:
    """Make a network's tensors a mean with those of another one.

    Two trainings of which one began with the other lie in one valley: between them the loss is
    often lower than at either. Wortsman et al. 2022, "Robust fine-tuning of zero-shot models".

    Args:
        net: gets the mean.
        other: tensors by name, of the same architecture and the same classes in the same order.
        share: 0..1, how much `other` counts.
    """
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(other[name].to(tensor), share)


def _require_mean(net: Network, trained: Network, names: list[str], classes: list[str]) -> None:
    """Refuse what makes a mean of two networks senseless."""
    for i, (theirs, ours) in enumerate(zip_longest(names, classes, fillvalue="not named")):
        if theirs != ours:
            raise OptionError(
                f"got weights to start from whose class {i} is {theirs}, and data whose class {i} "
                f"is {ours}; a mean wants the same in the same order: write the same names into "
                "the weights' card or the data's classes.txt, or set average_with_start=0"
            )
    if _shapes(net.state_dict()) != _shapes(trained.state_dict()):
        raise OptionError(
            "got weights to start from of another architecture, with which no mean can be taken; "
            "set average_with_start=0"
        )


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
