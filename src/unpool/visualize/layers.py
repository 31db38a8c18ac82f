"""Which layers to look at, and whether they can be."""

import math
from collections.abc import Sequence
from typing import Any

from unpool.errors import OptionError
from unpool.visualize.activations import Layer, list_layers
from unpool.visualize.fields import Field, measure_field
from unpool.visualize.preprocessing import LoadedModel
from unpool.visualize.projection import project


def stage_ends(layers: Sequence[Layer]) -> list[str]:
    """The last layer of each stage: the last before feature maps shrink, down to the smallest.

    Maps that lose up to half their area, as without padding, are of one stage.

    >>> shapes = [(8, 9, 9), (8, 9, 9), (8, 4, 4), (16, 4, 4), (16, 1, 1), (10,)]
    >>> stage_ends([Layer(str(i), "", shape) for i, shape in enumerate(shapes)])
    ['1', '3']
    """
    maps = [layer for layer in layers if len(layer.shape) == 3 and math.prod(layer.shape[1:]) > 1]
    chosen: list[str] = []
    for i, layer in enumerate(maps):
        area = math.prod(layer.shape[1:])
        following = math.prod(maps[i + 1].shape[1:]) if i + 1 < len(maps) else 0
        if 2 * following <= area or following > area:
            chosen.append(layer.name)
        if following > area:
            break
    return chosen


def checked_layers(
    loaded: LoadedModel, names: Sequence[str], units: Sequence[int] = (), **options: Any
) -> list[tuple[Layer, Field]]:
    """Named layers with the fields of their units, each checked before anything runs.

    Args:
        loaded: the model.
        names: of the layers, as in `list_layers`; those of `stages` when not given.
        units: that will be looked at in each.
        options: of `project`.

    Raises:
        OptionError: no such layer, unit or place; a layer whose output is neither (N, C, h, w) nor
            (N, C); a function without a rule.
        ShapeError: the model cannot be run on images of this size.
    """
    trial = loaded.trial_image()
    there = {layer.name: layer for layer in list_layers(loaded.model, trial)}
    names = list(dict.fromkeys(names)) or stage_ends(list(there.values()))
    if not names:
        raise OptionError(
            "got no layers, and the model has no stages whose last layer could be used; name some: "
            f"{', '.join([*there][:5])} ..."
        )
    found = []
    for name in names:
        ends = [min(units), max(units)] if units else None
        project(loaded.model, trial, name, ends, **options)
        layer = there[name]
        if len(layer.shape) not in (1, 3):
            raise OptionError(
                f"layer {name!r} gives {layer.shape} for an image; wanted (C, h, w) or (C,): "
                "choose another of list_layers"
            )
        found.append((layer, measure_field(loaded.model, trial, name)))
    return found
