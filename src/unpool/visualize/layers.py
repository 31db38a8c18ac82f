"""Layers to look at: which, and whether they can be."""

import math
from collections.abc import Sequence
from typing import Any

from unpool.errors import OptionError
from unpool.visualize.activations import Layer, list_layers
from unpool.visualize.fields import Field, measured_field
from unpool.visualize.preprocessing import Subject
from unpool.visualize.projection import project


def stages(layers: Sequence[Layer]) -> list[str]:
    """The layers worth a look at first: the last before maps shrink, down to the smallest.

    That they lose up to half their area, as without padding, does not count.

    >>> shapes = [(8, 9, 9), (8, 9, 9), (8, 4, 4), (16, 4, 4), (16, 1, 1), (10,)]
    >>> stages([Layer(str(i), "", shape) for i, shape in enumerate(shapes)])
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


def tried(
    subject: Subject, names: Sequence[str], units: Sequence[int] = (), **options: Any
) -> list[tuple[Layer, Field]]:
    """Layers, and what their units see; each is tried out, so that what is wrong shows at once.

    Args:
        subject: the model.
        names: of the layers, as in `list_layers`; those of `stages` when not given.
        units: that will be looked at in each.
        options: of `project`.

    Raises:
        OptionError: no such layer, unit or place; a layer with neither maps nor a value a unit; a
            function without a rule.
        ShapeError: the model takes no images of this size.
    """
    trial = subject.trial()
    there = {layer.name: layer for layer in list_layers(subject.model, trial)}
    names = list(dict.fromkeys(names)) or stages(list(there.values()))
    if not names:
        raise OptionError(
            "got no layers, and the model has none whose maps become smaller; name some of "
            f"{', '.join([*there][:5])} ..."
        )
    found = []
    for name in names:
        ends = [min(units), max(units)] if units else None
        project(subject.model, trial, name, ends, **options)
        layer = there[name]
        if len(layer.shape) not in (1, 3):
            raise OptionError(
                f"layer {name!r} gives {layer.shape} for an image; wanted maps (C, h, w) or (C,): "
                "choose another of list_layers (--list-layers)"
            )
        found.append((layer, measured_field(subject.model, trial, name)))
    return found
