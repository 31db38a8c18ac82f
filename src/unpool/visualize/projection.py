"""Deconvnet projections: what in an image has excited a unit, back in pixels.

An image goes up through the network, and the switches of its pooling are kept. Then all
activations of a layer but one are set to zero, and what is left goes down: unpooled to the
switches, rectified, and filtered with the transposed filters. Biases play no part. This is one
backward pass in which ReLU has another rule, so that it works for any model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError
from unpool.vision.drawing import to_images
from unpool.vision.figures import mosaic
from unpool.vision.images import Pixels, encode_png, write_image
from unpool.visualize.activations import (
    ActivationRecorder,
    Layer,
    layer_name,
    list_layers,
    require_finite,
    stage_ends,
)
from unpool.visualize.fields import Field, measure_field
from unpool.visualize.rules import Interception, Rule, find_rule

Unit = int | Sequence[int] | Tensor | None
Place = Literal["max", "all"] | tuple[int, int] | Tensor


@dataclass(frozen=True)
class Projection:
    """What `project` gives: a signal in pixels for each image, and where it came from."""

    signal: Tensor  #: (N, C, H, W), as the images; about zero, in the model's color order
    layer: str
    units: Tensor  #: (N,) int64, the map of each image
    places: Tensor | None  #: (N, 2) int64, row and column in the map; None for a whole map
    values: Tensor  #: (N,) the activation there; for a whole map or a region their sum
    order: Literal["RGB", "BGR"] = field(default="RGB", kw_only=True)
    """Of the colors in `signal`, for figures."""

    def images(self, color: bool = True, order: Literal["RGB", "BGR"] | None = None) -> Pixels:
        """Each signal as an image, (N, H, W, 3) uint8 RGB; zero is mid-gray.

        Args:
            color: keep the colors; otherwise their sum is shown in gray.
            order: of the colors in `signal`; `self.order` when not given.
        """
        return to_images(self.signal, color=color, order=order or self.order)

    def figure(self) -> Pixels:
        """The signals as images side by side, up to four in a row, (H, W, 3) uint8 RGB."""
        shown = self.images()
        return mosaic(shown, columns=min(len(shown), 4))

    def save(self, path: str | Path) -> Path:
        """Write the figure as PNG or JPEG.

        Args:
            path: ending in .png, .jpg or .jpeg.
        """
        write_image(path, self.figure())
        return Path(path)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: `layer`, and of each image its `unit`, `place` and `value`."""
        places = None if self.places is None else self.places.tolist()
        return {
            "layer": self.layer,
            "units": self.units.tolist(),
            "places": places,
            "values": self.values.tolist(),
        }

    def _repr_png_(self) -> bytes:
        return encode_png(self.figure())


def project(
    model: nn.Module,
    images: Tensor,
    layer: str | nn.Module,
    unit: Unit = None,
    *,
    place: Place = "max",
    rule: str | Rule = "deconvnet",
    start: Literal["activation", "one"] = "activation",
    overlap: Literal["sum", "overwrite", "center"] | None = None,
    lrn: Literal["identity", "gradient"] | None = None,
    activations: str | Mapping[str, str] | None = None,
) -> Projection:
    """Project units of a layer down to the pixels that excited them.

    Every image has a unit of its own, and one backward pass serves all. The model stays as it is,
    byte for byte, also after an error; it runs as in evaluation mode, and no further than the
    layer. Several threads may look into one model. What it computes is not changed either: every
    function gives upwards what it always gives.

    Args:
        model: any module. ReLU, ReLU6 and max pooling are found in every spelling; a rectifier made
            by hand from a mask is refused.
        images: (N, C, H, W), floating, prepared as the model wants them. A single image serves
            several units or places.
        layer: a name from `list_layers`, or a module of the model; a layer without maps, (N, K),
            has units but no places.
        unit: which map, for all images or one for each; the strongest of each image when not
            given.
        place: "max": where the map is largest (the first such place). "all": the whole map. (row,
            column): there. A tensor (N, 2) of integers: one for each image. A boolean tensor,
            (h, w) or (N, h, w): a region of the map.
        rule: "deconvnet", "guided" (guided back-propagation), "saliency" (the gradient), a code of
            Mahendran and Vedaldi (see `find_rule`), or a `Rule`.
        start: what is sent down: the activation itself, as in the paper, or 1. A negative one, as a
            class can have, shows what speaks against it: ReLUs keep the half they drop for 1.
        overlap: at pooling windows that share their maximum, values add up ("sum", the adjoint) or
            the last one wins ("overwrite"); "center" uses no switches. The rule's own when not
            given: the sum, for most.
        lrn: through response normalization the signal goes unchanged ("identity") or by the
            "gradient"; the rule's own when not given. As in the release of Mahendran and Vedaldi,
            only saliency takes the gradient; Captum always does.
        activations: what to do with functions that have no rule (SiLU, sigmoid ...), by name or
            for all: "relu", "gradient" or "constant". See `Interception`.

    Returns:
        The projections, with the units, places and activations they belong to.

    Raises:
        OptionError: no such layer, unit, place or rule; a function without a rule, by name; or
            activations that are not finite.
        ShapeError: images that the model cannot take, or not as many units or places.

    Zeiler, Fergus 2014, section 2.1; Springenberg, Dosovitskiy, Brox, Riedmiller 2015; Simonyan,
    Vedaldi, Zisserman 2014; Mahendran, Vedaldi 2016. The paper does not say what its code does
    where windows overlap.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2))
    >>> found = project(model, torch.rand(2, 3, 9, 9), layer="2", unit=[1, 3])
    >>> found.signal.shape, found.units.tolist(), found.places.shape
    (torch.Size([2, 3, 9, 9]), [1, 3], torch.Size([2, 2]))
    >>> project(model, torch.rand(1, 3, 9, 9), model[0], unit=1).figure().shape
    (9, 9, 3)
    """
    if start not in ("activation", "one"):
        raise OptionError(f"got start={start!r}; wanted 'activation' or 'one'")
    wanted, layer = find_rule(rule, overlap, lrn), layer_name(model, layer)
    with torch.inference_mode(False), torch.enable_grad():
        images, units, spots = _matched(images, unit, place)
        recorder = ActivationRecorder(model, [layer])
        root = images.detach().clone().requires_grad_()
        with Interception(wanted, activations) as interception:
            maps = recorder(root.clone())[layer]
            interception.require_rules(maps)
            above = maps.detach()
            units, region = _started(above, units, spots, layer)
            sent = above if start == "activation" else torch.ones_like(above)
            # of one number: gradients of several make PyTorch load sympy
            total = (maps * sent.where(region, 0)).sum()
            (signal,) = torch.autograd.grad(total, root)
    values = above.where(region, 0).flatten(1).sum(1)
    require_finite(f"layer {layer!r}", values, signal)
    return Projection(signal, layer, units, _places(region, spots), values)


def _matched(
    images: Tensor, unit: Unit, place: Place
) -> tuple[Tensor, Tensor | None, str | Tensor]:
    """As many images as units and places, where one of either serves all.

    Units come as (N,) or (1,), or None; places as (N, 2), (1, 2), a region (N, h, w), (1, h, w), or
    a word.
    """
    if not isinstance(images, Tensor):
        raise ShapeError(
            f"got a {type(images).__name__} for the images; wanted a tensor (N, C, H, W), prepared "
            "as the model takes it: unpool.project takes images of every kind"
        )
    if images.dim() < 2 or not images.is_floating_point():
        raise ShapeError(
            f"got images of {tuple(images.shape)} {images.dtype}; wanted a batch (N, C, H, W) of "
            "floating-point numbers, prepared as the model takes them"
        )
    units = None if unit is None else _integers(unit, "unit").reshape(-1)
    spots: str | Tensor
    if isinstance(place, str):
        if place not in ("max", "all"):
            raise OptionError(
                f"got place={place!r}; it is 'max', 'all', (row, column), or a tensor of them"
            )
        spots = place
    elif isinstance(place, Tensor) and place.dtype == torch.bool:
        spots = place.detach().reshape(-1, *place.shape[-2:])
    else:
        spots = _integers(place, "place").reshape(-1, 2)
    counts = {
        "images": len(images),
        "units": 1 if units is None else len(units),
        "places": 1 if isinstance(spots, str) else len(spots),
    }
    count = max(counts.values()) if len(images) else 0
    if any(n not in (1, count) for n in counts.values()):
        listed = ", ".join(f"{n} {what}" for what, n in counts.items())
        raise ShapeError(f"got {listed}; wanted one for each image, or one for all")
    return images.expand(count, *images.shape[1:]), units, spots


def _integers(value: int | Sequence[int] | Tensor, name: str) -> Tensor:
    numbers = torch.as_tensor(value).detach().cpu()
    if numbers.is_floating_point() or numbers.dtype == torch.bool:
        raise OptionError(f"got {name}={value}; wanted whole numbers, counted from 0")
    return numbers.to(torch.int64)


def _started(
    maps: Tensor, units: Tensor | None, spots: str | Tensor, layer: str
) -> tuple[Tensor, Tensor]:
    """The unit of each image, and where its signal starts, as a mask of the maps."""
    count, channels, *sides = maps.shape
    flat = maps.reshape(count, channels, math.prod(sides))
    if units is None:
        units = flat.amax(2).argmax(1)
    units = units.to(maps.device).expand(count)
    wrong = units[(units < 0) | (units >= channels)]
    if len(wrong):
        raise OptionError(
            f"got unit {int(wrong[0])} of layer {layer!r}, which has {channels}; wanted 0 to "
            f"{channels - 1}"
        )
    image = torch.arange(count, device=maps.device)
    region = torch.zeros_like(flat, dtype=torch.bool)
    if isinstance(spots, Tensor):
        _require_fit(spots, sides, layer)
    if isinstance(spots, Tensor) and spots.dtype == torch.bool:
        region[image, units] = spots.to(maps.device).flatten(1)
    elif isinstance(spots, Tensor):
        region[image, units, (spots[:, 0] * sides[1] + spots[:, 1]).to(maps.device)] = True
    elif spots == "all":
        region[image, units] = True
    else:
        region[image, units, flat[image, units].argmax(1)] = True
    return units, region.view(maps.shape)


def _require_fit(spots: Tensor, sides: list[int], layer: str) -> None:
    """Refuse places outside the maps, and regions of another size."""
    if len(sides) != 2:
        raise OptionError(
            f"got a place in layer {layer!r}, which has no maps; leave the place out, or choose a "
            "layer with (C, h, w) of list_layers"
        )
    if spots.dtype == torch.bool:
        if list(spots.shape[1:]) != sides:
            raise ShapeError(
                f"got a region of {tuple(spots.shape[1:])} in layer {layer!r}, whose maps are "
                f"{tuple(sides)}; resize it to the maps"
            )
        return
    for row, column in spots.tolist():
        if not (0 <= row < sides[0] and 0 <= column < sides[1]):
            raise OptionError(
                f"got place ({row}, {column}) in layer {layer!r}, whose maps are {tuple(sides)}; "
                f"wanted (0, 0) to ({sides[0] - 1}, {sides[1] - 1})"
            )


def _places(region: Tensor, spots: str | Tensor) -> Tensor | None:
    """The row and column of each image, (N, 2), where it has just one."""
    whole = spots.dtype == torch.bool if isinstance(spots, Tensor) else spots == "all"
    if region.dim() != 4 or whole:
        return None
    return region.nonzero()[:, 2:]


# ---- several layers ------------------------------------------------------------------------------


class LayerUnits(NamedTuple):
    """Units of a layer, and their receptive fields."""

    layer: Layer
    field: Field
    units: list[int]


def choose_units(
    model: nn.Module,
    trial: Tensor,
    names: Sequence[str],
    units: Sequence[int],
    default: Callable[[int], list[int]],
    **options: Any,
) -> list[LayerUnits]:
    """Look up layers and their units, and check that they can be projected.

    Args:
        model: any module.
        trial: an image, (1, C, H, W), to run the model on.
        names: of layers, as in `list_layers`; those of `stage_ends` when empty.
        units: of each layer; when empty, `default` chooses them, given their number.
        default: see `units`.
        options: of `project`.

    Raises:
        OptionError: no such layer, unit or place; a layer whose output is neither (N, C, h, w) nor
            (N, C); a function without a rule.
        ShapeError: the model cannot be run on images of this size.
    """
    known = {layer.name: layer for layer in list_layers(model, trial)}
    names = list(dict.fromkeys(names)) or stage_ends(list(known.values()))
    if not names:
        raise OptionError(
            "got no layers, and the model has no stages whose last layer could be used; name some: "
            f"{', '.join([*known][:5])} ..."
        )
    chosen = []
    for name in names:
        project(model, trial, name, [min(units), max(units)] if units else None, **options)
        layer = known[name]
        if len(layer.shape) not in (1, 3):
            raise OptionError(
                f"layer {name!r} gives {layer.shape} for an image; wanted (C, h, w) or (C,): "
                "choose another of list_layers"
            )
        own = list(dict.fromkeys(units)) or default(layer.shape[0])
        chosen.append(LayerUnits(layer, measure_field(model, trial, name), own))
    return chosen
