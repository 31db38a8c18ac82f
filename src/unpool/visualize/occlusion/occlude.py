"""Occlusion: a gray square is slid over an image, and the network is asked at every stop.

Three maps in one pass: the probability of a class, the most probable class, and the total
activation of the map that was strongest before anything was hidden; and its projection beside them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError, UnpoolError
from unpool.visualize.activations import (
    ActivationRecorder,
    first_tensor,
    is_probability,
    list_layers,
    require_finite,
)
from unpool.visualize.occlusion.chain import Link, trace_chain
from unpool.visualize.occlusion.incremental import Incremental
from unpool.visualize.occlusion.naive import Baseline, Naive, baseline_image
from unpool.visualize.occlusion.result import Occlusion
from unpool.visualize.occlusion.window import Sides, Windows, occluder_windows
from unpool.visualize.projection import project
from unpool.visualize.rules import Interception, Rule, find_rule

Progress = Callable[[int, int], None]
"""Called with the number of stops done and their total."""

_PART = 256  # stops between two reports


def occlude(
    model: nn.Module,
    image: Tensor,
    *,
    target: int | None = None,
    layer: str | None = None,
    window: Sides | None = None,
    stride: Sides | None = None,
    baseline: Baseline = 0.0,
    value: Literal["probability", "score"] = "probability",
    method: Literal["auto", "incremental", "naive"] = "auto",
    batch: int = 8,
    rule: str | Rule = "deconvnet",
    activations: str | Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Occlusion:
    """Slide an occluder over an image, and see what a classifier makes of it at every stop.

    Args:
        model: any module that gives class scores (N, K), or several tensors of which that is the
            first; it stays as it is, and runs as in evaluation mode.
        image: (1, C, H, W), as the model takes it.
        target: the class whose value is mapped; the most probable one when not given.
        layer: a layer with maps, from `list_layers`: the total activation of the map whose total
            is largest without an occluder is mapped, too, and that map is projected.
        window: height and width of the occluder, see `slide`.
        stride: from one stop to the next, likewise.
        baseline: what the occluder shows, in the values that the model takes: 0 is gray where the
            mean of the pixels was subtracted.
        value: the softmax of the scores (or what the model gives, if it ends with one), or just
            what it gives.
        method: "incremental" computes only what the occluder can change, which is exact and works
            for chains of layers (VGG, AlexNet, ZFNet ...); "naive" asks the model at every stop;
            "auto" is incremental for chains, and naive for others, and the result says which.
        batch: stops at a time, of "naive".
        rule: of the projection, as `activations`, see `project`. Where it says nothing of a
            function that the model calls, there is no projection, and the result says why.
        progress: see `Progress`.

    Raises:
        OptionError: no such class, layer or rule, a window or stride that does not fit, scores
            that are not finite, or a model that is no chain where "incremental" was asked for.
        ShapeError: an image that the model cannot take, a baseline of another shape, or a model
            that gives no class scores.

    Zeiler, Fergus 2014, section 4.2 and figure 7, which give neither window nor stride.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 5))
    >>> found = occlude(model, torch.rand(1, 3, 12, 12), layer="1", window=4, stride=2)
    >>> found.values.shape, found.labels.shape, found.totals.shape, found.drop.shape
    (torch.Size([5, 5]), torch.Size([5, 5]), torch.Size([5, 5]), torch.Size([12, 12]))
    """
    _require_options(value, method, batch)
    Interception(find_rule(rule), activations)  # which refuses what is no rule
    shown = baseline_image(baseline, image)
    windows = occluder_windows((image.shape[2], image.shape[3]), window, stride)
    watched, whole = None, None
    if layer is not None:
        unit, whole = _strongest(model, image, layer)
        watched = layer, unit
    try:
        engine, note = _engine(model, image, shown, watched, method, batch)
    except Exception as error:
        if not isinstance(error, UnpoolError):
            list_layers(model, image)  # raises if the model cannot take the image
        raise
    found, totals = _slid(engine, windows, target, value, progress)
    found = replace(found, incremental=isinstance(engine, Incremental), note=note)
    if watched is None:
        return found
    found = replace(found, total=whole, totals=totals)
    return _projected(found, model, image, watched, rule, activations)


def _slid(
    engine: Incremental | Naive,
    windows: Windows,
    target: int | None,
    value: str,
    progress: Progress | None,
) -> tuple[Occlusion, Tensor | None]:
    """The maps of the class, and the totals of the map that is watched."""
    scores = _require_scores(engine.output)
    label = int(scores[0].argmax())
    target = label if target is None else target
    if not 0 <= target < scores.shape[1]:
        raise OptionError(f"got class {target}; the model has 0 to {scores.shape[1] - 1}")
    soften = value == "probability" and not is_probability(scores)
    boxes, values, labels, totals = windows.boxes(), [], [], []
    for start in range(0, len(boxes), _PART):
        outputs, total = engine(boxes[start : start + _PART])
        values.append((outputs.softmax(1) if soften else outputs)[:, target].cpu())
        labels.append(outputs.argmax(1).cpu())
        totals += [] if total is None else [total.cpu()]
        require_finite("the model", scores, outputs, *totals[-1:])
        if progress is not None:
            progress(min(start + _PART, len(boxes)), len(boxes))
    before = (scores.softmax(1) if soften else scores)[0, target]
    known = Occlusion(
        windows,
        target,
        float(before),
        torch.cat(values).view(windows.shape),
        label,
        torch.cat(labels).view(windows.shape),
    )
    return known, torch.cat(totals).view(windows.shape) if totals else None


def _projected(
    found: Occlusion,
    model: nn.Module,
    image: Tensor,
    watched: tuple[str, int],
    rule: str | Rule,
    activations: str | Mapping[str, str] | None,
) -> Occlusion:
    """With the name of the map that is watched, and its projection where the rule allows one."""
    layer, unit = watched
    found = replace(found, layer=layer, unit=unit)
    try:
        shown = project(model, image, layer, unit, place="all", rule=rule, activations=activations)
    except OptionError as error:
        return replace(found, unprojected=str(error))
    return replace(found, projection=shown)


def _engine(
    model: nn.Module,
    image: Tensor,
    shown: Tensor,
    watched: tuple[str, int] | None,
    method: str,
    batch: int,
) -> tuple[Incremental | Naive, str]:
    """What computes the outputs, and why it is not the incremental one."""
    note = "not asked for"
    if method != "naive":
        try:
            links = trace_chain(model, image)
            unit = None if watched is None else (_number(links, watched[0]), watched[1])
            return Incremental(links, image, shown, unit), ""
        except OptionError as error:
            if method == "incremental":
                raise OptionError(f"{error}; use method='naive', or 'auto'") from None
            note = str(error)
    inner = None if watched is None else (f"model.{watched[0]}", watched[1])
    return Naive(_First(model), image, shown, inner, batch), note


class _First(nn.Module):
    """A model that gives the first tensor of what another gives."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor | None:
        return first_tensor(self.model(x))


def _number(links: Sequence[Link], layer: str) -> int:
    for number, link in enumerate(links):
        if layer in (link.name, *link.aliases):
            return number
    raise OptionError(f"layer {layer!r} does not end with a layer of the chain")


def _strongest(model: nn.Module, image: Tensor, layer: str) -> tuple[int, float]:
    """The map of a layer whose total activation is largest, and that."""
    with torch.inference_mode():
        maps = ActivationRecorder(model, [layer])(image)[layer]
    if maps.dim() != 4:
        raise OptionError(
            f"layer {layer!r} gives {tuple(maps.shape[1:])} for an image; wanted maps (C, h, w): "
            "choose another of list_layers"
        )
    sums = maps.sum((0, 2, 3), dtype=torch.float64)
    require_finite("the model", sums)
    unit = int(sums.argmax())
    return unit, float(sums[unit])


def _require_scores(output: Any) -> Tensor:
    if not isinstance(output, Tensor) or output.dim() != 2:
        came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ShapeError(
            f"got a model that gives {came}; wanted class scores (N, K): use occlude_region for a "
            "model that segments, or wrap it so that it gives scores"
        )
    return output


def _require_options(value: str, method: str, batch: int) -> None:
    if value not in ("probability", "score") or method not in ("auto", "incremental", "naive"):
        raise OptionError(
            f"got value={value!r}, method={method!r}; a value is 'probability' or 'score', a "
            "method 'auto', 'incremental' or 'naive'"
        )
    if batch < 1:
        raise OptionError(f"got batch={batch}; wanted 1 or more")
