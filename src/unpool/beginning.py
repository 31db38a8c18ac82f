"""The weights that a training begins with, and with which its result may be a mean."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from unpool import parallel
from unpool.cards import read_card
from unpool.errors import OptionError
from unpool.models import Classifier, Network, from_pretrained, load_vgg
from unpool.models.scaffold import Learner, Scaffold
from unpool.recipes import Recipe
from unpool.runs import Run, save_state

__all__ = ["begin", "mix", "require_start", "take_over"]


def require_start(recipe: Recipe, classes: list[str]) -> None:
    """Refuse weights to start from that are not there, or of which no mean can be taken.

    Args:
        recipe: names them.
        classes: names by class id, of the data.

    Raises:
        WeightsError: there are none.
        OptionError: a mean is wanted, and they are of other classes.
    """
    if recipe.start is None:
        return
    known = read_card(recipe.start).get("classes", classes)
    if recipe.start_share and known != classes:
        raise OptionError(
            f"got weights to start from of the classes {', '.join(known)}, and data of "
            f"{', '.join(classes)}; a mean wants the same in the same order: set start_share=0"
        )


def begin(
    run: Run[Recipe, Learner], trunk_weights: str | Path | None, trunk_inputs: str = "caffe"
) -> None:
    """Give a new run the weights that it begins with.

    Those that count at the end are kept in the run folder, as `start_path`.

    Args:
        run: its recipe may name a start.
        trunk_weights: VGG weights for the trunk.
        trunk_inputs: what those were trained on, see `load_vgg`.

    Raises:
        OptionError: weights that do not fit, or that would be made a mean with others.
        WeightsError: weights that cannot be read.
        TrainingError: the run folder cannot be written to.
    """
    recipe, net = run.recipe, run.learner.net
    if recipe.start is not None:
        trained = from_pretrained(recipe.start)[0]
        take_over(net, trained)
        if recipe.start_share:
            if trunk_weights is not None:
                raise OptionError(
                    "got weights for the trunk, but the result is a mean with those of start; "
                    "leave --trunk-weights out, or set start_share=0"
                )
            mix(net, trained.state_dict(), recipe.start_share)  # says so if it cannot be done
            if parallel.rank() == 0:
                save_state(run.start_path, {"model": trained.state_dict()})
    if trunk_weights is not None:
        load_vgg(net, trunk_weights, trunk_inputs)
        if recipe.tied and isinstance(run.learner, Scaffold):
            run.learner.tie()


def take_over(net: Network, trained: Network | Classifier) -> None:
    """Give a network the tensors of a trained one, where names and shapes are the same.

    Score layers of other classes stay as they are.

    Raises:
        OptionError: the two have not the same trunk.
    """
    if isinstance(trained, Classifier):
        raise OptionError(
            f"got weights of the classifier {type(trained).__name__} to start from; set start to "
            "those of a network that segments"
        )
    own, other = net.state_dict(), trained.state_dict()
    fits = {k: v for k, v in other.items() if k in own and own[k].shape == v.shape}
    same = net.trunk.table == trained.trunk.table
    if not same or not all(k in fits for k in own if k.startswith("trunk.")):
        raise OptionError("got weights to start from with another trunk; set trunk to theirs")
    net.load_state_dict(fits, strict=False)


@torch.no_grad()
def mix(net: Network, other: Mapping[str, Tensor], share: float) -> None:
    """Make a network's tensors a mean with those of another one.

    Two trainings of which one began with the other lie in one valley: between them the loss is
    often lower than at either. Wortsman et al. 2022, "Robust fine-tuning of zero-shot models".

    Args:
        net: gets the mean.
        other: tensors by name, of the same architecture and the same classes in the same order.
        share: 0..1, how much `other` counts.

    Raises:
        OptionError: the two are not of one architecture.
    """
    own = net.state_dict()
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in other.items()}:
        raise OptionError(
            "got weights to start from of another architecture, with which no mean can be taken; "
            "set start_share=0"
        )
    for name, tensor in own.items():
        if tensor.is_floating_point():
            tensor.lerp_(other[name].to(tensor), share)
