"""Deconvnet projections: the structure in an image that excited a unit, in pixel space.

An image goes forward through the network, which keeps the switches of its pooling. Then all
activations of a layer but one are set to zero, and the rest goes back: unpooled by the switches,
rectified, and filtered with the transposed filters, without biases. This is one backward pass with
another rule for ReLU, so that it works for any model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError, require_path
from unpool.vision.drawing import to_images as to_images  # the room offers these three, too
from unpool.vision.figures import mosaic as mosaic
from unpool.vision.figures import patch as patch
from unpool.vision.images import Pixels, encode_png, write_image
from unpool.visualize import activations as layers
from unpool.visualize.activations import ActivationRecorder
from unpool.visualize.fields import Field, measure_field
from unpool.visualize.rules import Interception, Rule, find_rule

Unit = int | Sequence[int] | Tensor | None
Place = Literal["max", "all"] | tuple[int, int] | Tensor


@dataclass(frozen=True, repr=False)
class Projection:
    """The result of `project`: a signal in pixel space for each image, and its origin."""

    signal: Tensor  #: (N, C, H, W), signed, in the model's color order
    layer: str
    units: Tensor  #: (N,) int64, the feature map of each image
    places: Tensor | None  #: (N, 2) int64, row and column in the map; None for a whole map
    values: Tensor  #: (N,) the activation there; for a whole map or a region their sum
    order: Literal["RGB", "BGR"] = field(default="RGB", kw_only=True)  #: of the colors in `signal`

    def __repr__(self) -> str:
        """The layer and the units, without the numbers of the signal."""
        size = " x ".join(map(str, self.signal.shape))
        return f"{type(self).__name__}({self.layer!r}, units {self.units.tolist()}, {size})"

    def images(self, color: bool = True, order: Literal["RGB", "BGR"] | None = None) -> Pixels:
        """Each signal as an image, (N, H, W, 3) uint8 RGB; zero is mid-gray.

        Without `color`, the sum of the colors is shown in gray. `order` replaces `self.order`.
        """
        return to_images(self.signal, color=color, order=order or self.order)

    def figure(self) -> Pixels:
        """The signals as images side by side, up to four in a row, (H, W, 3) uint8 RGB."""
        return mosaic(self.images(), columns=min(len(self.signal), 4))

    def save(self, path: str | Path) -> Path:
        """Write the figure as .png, .jpg or .jpeg."""
        path = require_path("path", path)
        write_image(path, self.figure())
        return path

    def to_dict(self) -> dict[str, Any]:
        """Plain values: `layer`, and `units`, `places` and `values` of all images."""
        return {
            "layer": self.layer,
            "units": self.units.tolist(),
            "places": None if self.places is None else self.places.tolist(),
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

    Each image has its own unit, and one backward pass serves all. The model is not changed, not
    even after an error; it runs in evaluation mode, and no further than the layer. Several threads
    may use one model.

    Args:
        model: any module. ReLU, ReLU6 and max pooling are found in every spelling; a rectifier made
            by hand from a mask is refused.
        images: (N, C, H, W), floating-point, preprocessed. A single image serves several units or
            places.
        layer: a name from `list_layers`, or a module of the model; a layer without feature maps,
            (N, K), has units but no places.
        unit: the map, for all images or one each; the strongest of each image when not given.
        place: "max": the first maximum of the map. "all": the whole map. (row, column), or a tensor
            (N, 2) of integers, one for each image. A boolean tensor, (h, w) or (N, h, w): a region.
        rule: "deconvnet", "guided" (guided back-propagation), "saliency" (the gradient), a code of
            Mahendran and Vedaldi (see `find_rule`), or a `Rule`.
        start: the value sent down: the activation, as in the paper, or 1. A negative activation,
            such as a class score, shows evidence against the unit.
        overlap: where pooling windows share their maximum, values add up ("sum", the adjoint) or
            the last one wins ("overwrite"); "center" uses no switches. The rule's own when not
            given: the sum, for most.
        lrn: through response normalization the signal goes unchanged ("identity") or by the
            "gradient"; the rule's own when not given. As in the release of Mahendran and Vedaldi,
            only saliency takes the gradient; Captum always does.
        activations: how functions without a rule (SiLU, sigmoid ...) are treated, by name or for
            all: "relu", "gradient" or "constant". See `Interception`.

    Raises:
        OptionError: no such layer, unit, place or rule; a function without a rule, by name; or
            activations that are not finite.
        ShapeError: images that the model cannot take, or other numbers of units or places.

    Zeiler, Fergus 2014, section 2.1; Springenberg et al. 2015; Simonyan, Vedaldi, Zisserman 2014;
    Mahendran, Vedaldi 2016. The paper leaves open what its code does where windows overlap.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2))
    >>> found = project(model, torch.rand(2, 3, 9, 9), layer="2", unit=[1, 3])
    >>> found.signal.shape, found.units.tolist(), found.places.shape
    (torch.Size([2, 3, 9, 9]), [1, 3], torch.Size([2, 2]))
    >>> project(model, torch.rand(1, 3, 9, 9), model[0], unit=1).figure().shape
    (9, 9, 3)
    """
    wanted, layer = _require_rule(rule, overlap, lrn, start), layers.layer_name(model, layer)
    with torch.inference_mode(False), torch.enable_grad():
        images, units, places = _matched(images, unit, place)
        recorder = ActivationRecorder(model, [layer])
        root = images.detach().clone().requires_grad_()
        with Interception(wanted, activations) as interception:
            maps = recorder(root.clone())[layer]
            interception.require_rules(maps)
            above = maps.detach()
            units, region, spots = _select(above, units, places, layer)
            sent = above if start == "activation" else torch.ones_like(above)
            # of one number, since gradients of several make PyTorch load sympy
            total = (maps * sent.where(region, 0)).sum()
            (signal,) = torch.autograd.grad(total, root)
    values = above.where(region, 0).flatten(1).sum(1)
    layers.require_finite(f"layer {layer!r}", values, signal)
    return Projection(signal, layer, units, spots, values)


def _require_rule(
    rule: str | Rule, overlap: str | None, lrn: str | None, start: str = "activation"
) -> Rule:
    """The rule of some options of `project`."""
    if start not in ("activation", "one"):
        raise OptionError(f"got start={start!r}; wanted 'activation' or 'one'")
    return find_rule(rule, overlap, lrn)


def _matched(
    images: Tensor, unit: Unit, place: Place
) -> tuple[Tensor, Tensor | None, str | Tensor]:
    """The images expanded to the number of units and places, and those as tensors.

    Units are (N,), (1,) or None; places (N, 2), (1, 2), a region (N, h, w) or (1, h, w), or a word.
    """
    if not isinstance(images, Tensor):
        raise ShapeError(
            f"got a {type(images).__name__} for the images; wanted a tensor (N, C, H, W), "
            "preprocessed for the model: unpool.project takes images of every kind"
        )
    if images.dim() < 2 or not images.is_floating_point():
        raise ShapeError(
            f"got images of {tuple(images.shape)} {images.dtype}; wanted a batch (N, C, H, W) of "
            "floating-point numbers, preprocessed for the model"
        )
    units = None if unit is None else _integers("unit", unit, 1, "whole numbers")[:, 0]
    places: str | Tensor
    if isinstance(place, str) and place in ("max", "all"):
        places = place
    elif isinstance(place, Tensor) and place.dtype == torch.bool:
        places = place.detach().reshape(-1, *place.shape[-2:])
    else:
        wanted = "'max', 'all', (row, column), or a tensor (N, 2) of whole numbers"
        places = _integers("place", place, 2, wanted)
    n, u = len(images), 1 if units is None else len(units)
    p = 1 if isinstance(places, str) else len(places)
    count = max(n, u, p) if n else 0
    if not {n, u, p} <= {1, count}:
        raise ShapeError(
            f"got {n} images, {u} units, {p} places; wanted one for each image, or one for all"
        )
    return images.expand(count, *images.shape[1:]), units, places


def _integers(name: str, value: object, width: int, wanted: str) -> Tensor:
    """Whole numbers as a tensor (N, width)."""
    try:
        numbers = torch.as_tensor(value).detach().cpu()
        if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
            raise TypeError
        return numbers.to(torch.int64).reshape(-1, width)
    except (TypeError, ValueError, RuntimeError):
        raise OptionError(f"got {name}={value!r}; wanted {wanted}, counted from 0") from None


def _select(
    maps: Tensor, units: Tensor | None, places: str | Tensor, layer: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The unit of each image, a mask of the activations that are sent down, and their places.

    The places are (N, 2), row and column; None for regions and for layers without maps.
    """
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
    image, whole = torch.arange(count, device=maps.device), False
    region = torch.zeros_like(flat, dtype=torch.bool)
    if places == "max":
        region[image, units, flat[image, units].argmax(1)] = True
    elif isinstance(places, str):
        region[image, units] = whole = True
    else:
        _require_fit(places, sides, layer)
        places = places.to(maps.device)
        if whole := places.dtype == torch.bool:
            region[image, units] = places.flatten(1)
        else:
            region[image, units, places[:, 0] * sides[1] + places[:, 1]] = True
    region = region.view(maps.shape)
    return units, region, None if whole or len(sides) != 2 else region.nonzero()[:, 2:]


def _require_fit(places: Tensor, sides: list[int], layer: str) -> None:
    """Refuse places outside the maps, and regions of another size."""
    if len(sides) != 2:
        raise OptionError(
            f"got a place in layer {layer!r}, which has no maps; leave the place out, or choose a "
            "layer with (C, h, w) of list_layers"
        )
    region = places.dtype == torch.bool
    if region and list(places.shape[1:]) != sides:
        raise ShapeError(
            f"got a region of {tuple(places.shape[1:])} in layer {layer!r}, whose maps are "
            f"{tuple(sides)}; resize it to the maps"
        )
    for row, column in [] if region else places.tolist():
        if not (0 <= row < sides[0] and 0 <= column < sides[1]):
            raise OptionError(
                f"got place ({row}, {column}) in layer {layer!r}, whose maps are {tuple(sides)}; "
                f"wanted (0, 0) to ({sides[0] - 1}, {sides[1] - 1})"
            )


class LayerUnits(NamedTuple):
    """Units of a layer, and their receptive fields."""

    name: str
    shape: tuple[int, ...]  #: of the output of the layer, without the batch
    field: Field
    units: list[int]


def choose_units(
    model: nn.Module,
    trial: Tensor,
    names: Sequence[str],
    units: Sequence[int],
    default: Callable[[int], list[int]],
    fields: dict[str, Field] | None = None,
    **options: Any,
) -> list[LayerUnits]:
    """Look up layers and their units, and check that they can be projected.

    Args:
        trial: an image, (1, C, H, W), to run the model on.
        names: of layers, as in `list_layers`; those of `stage_ends` when empty.
        units: of each layer; when empty, `default` chooses them, given their number.
        fields: the receptive fields of this model's layers that are known; others are added.
        options: of `project`.

    Raises:
        OptionError, ShapeError: as `project`; or a layer whose output is neither (N, C, h, w) nor
            (N, C).
    """
    measured = {} if fields is None else fields
    names = list(dict.fromkeys(names)) or layers.stage_ends(layers.list_layers(model, trial))
    if not names:
        known = [layer.name for layer in layers.list_layers(model, trial)]
        raise OptionError(
            "got no layers, and the model has no stages whose last layer could be used; name some: "
            f"{', '.join(known[:5])} ..."
        )
    chosen = []
    for name, shape in try_out(model, trial, names, units, **options).items():
        if name not in measured:
            measured[name] = measure_field(model, trial, name)
        own = list(dict.fromkeys(units)) or default(shape[0])
        chosen.append(LayerUnits(name, shape, measured[name], own))
    return chosen


def try_out(
    model: nn.Module,
    trial: Tensor,
    names: Sequence[str],
    units: Sequence[int],
    place: Place = "max",
    activations: str | Mapping[str, str] | None = None,
    **rule: Any,
) -> dict[str, tuple[int, ...]]:
    """Run a model on an image, and raise what `project` raises, without its backward pass.

    Returns:
        The shape of the output of each layer, (C, h, w) or (C,).
    """
    wanted, found = _require_rule(**{"rule": "deconvnet", "overlap": None, "lrn": None} | rule), {}
    ends = [min(units), max(units)] if units else None
    with torch.inference_mode(False), torch.enable_grad():
        images, numbers, places = _matched(trial, ends, place)
        recorder = ActivationRecorder(model, names)
        with Interception(wanted, activations) as interception:
            maps = recorder(trial.detach().clone().requires_grad_().clone())
            for name in names:
                interception.require_rules(maps[name])
    for name in names:
        above = maps[name].detach()
        found[name] = tuple(above.shape[1:])
        if len(found[name]) not in (1, 3):
            raise OptionError(
                f"layer {name!r} gives {found[name]} for an image; wanted (C, h, w) or (C,): "
                "choose another of list_layers"
            )
        _select(above.expand(len(images), *found[name]), numbers, places, name)
        layers.require_finite(f"layer {name!r}", above)
    return found
