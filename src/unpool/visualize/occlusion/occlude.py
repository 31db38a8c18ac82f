"""Occlusion: slide a gray square over an image, and run the network at every position.

One pass gives three maps: the probability of a class, the most probable class, and the total
activation of the feature map that is strongest on the unoccluded image; and its projection.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError
from unpool.visualize import activations as layers
from unpool.visualize.activations import SCORE, ActivationRecorder
from unpool.visualize.occlusion import window as occluder
from unpool.visualize.occlusion.chain import trace_chain
from unpool.visualize.occlusion.incremental import Incremental
from unpool.visualize.occlusion.result import Occlusion
from unpool.visualize.projection import project
from unpool.visualize.rules import Interception, Rule, find_rule

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.visualize.occlusion.window import Baseline, Box, Sides, Windows

_PART = 256  # positions between two reports


def occlude(
    model: nn.Module,
    image: Tensor,
    *,
    target: int | None = None,
    layer: str | None = None,
    window: "Sides | None" = None,
    stride: "Sides | None" = None,
    baseline: "Baseline" = 0.0,
    value: Literal["probability", "score"] = "probability",
    method: Literal["auto", "incremental", "naive"] = "auto",
    batch: int = 8,
    rule: str | Rule = "deconvnet",
    activations: str | Mapping[str, str] | None = None,
    progress: "Progress | None" = None,
) -> Occlusion:
    """Slide an occluder over an image, and run a classifier at every position.

    Args:
        model: any module that gives class scores (N, K), alone or as the first of several tensors;
            it is not changed, and runs in evaluation mode.
        image: (1, C, H, W), as the model takes it.
        target: the class whose value is mapped; the most probable one when not given.
        layer: a layer with feature maps, from `list_layers`. The map with the largest total
            activation on the unoccluded image is projected, and its total is mapped, too.
        window: height and width of the occluder, see `occluder_windows`.
        stride: rows and columns from one position to the next, likewise.
        baseline: the values of the occluder, as the model takes them: 0 is gray where the mean of
            the pixels was subtracted.
        value: the softmax of the scores (or the output itself, if the model ends with a softmax),
            or the scores.
        method: "incremental" recomputes only what the occluder can change, which is exact and works
            for chains of layers (VGG, AlexNet, ZFNet ...); "naive" runs the model at every
            position; "auto" is incremental for chains and naive for others, as the result records.
        batch: positions at a time, of "naive".
        rule: of the projection, see `project`. If it does not cover a function of the model, there
            is no projection, and the result gives the reason.
        activations: likewise.

    Raises:
        OptionError: no such class, layer or rule, a window or stride that does not fit, scores
            that are not finite, or a model that is no chain with method "incremental".
        ShapeError: an image that the model cannot take, a baseline of another shape, or a model
            that gives no class scores.

    Zeiler, Fergus 2014, section 4.2 and figure 7, which give neither window nor stride.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 5))
    >>> found = occlude(model, torch.rand(1, 3, 12, 12), layer="1", window=4, stride=2)
    >>> found.values.shape, found.labels.shape, found.totals.shape, found.drop.shape
    (torch.Size([5, 5]), torch.Size([5, 5]), torch.Size([5, 5]), torch.Size([12, 12]))
    """
    if value not in ("probability", "score") or method not in ("auto", "incremental", "naive"):
        raise OptionError(
            f"got value={value!r}, method={method!r}; a value is 'probability' or 'score', a "
            "method 'auto', 'incremental' or 'naive'"
        )
    if batch < 1:
        raise OptionError(f"got batch={batch}; wanted 1 or more")
    Interception(find_rule(rule), activations)  # refuses wrong options before any work
    gray = occluder.baseline_image(baseline, image)
    windows = occluder.occluder_windows((image.shape[2], image.shape[3]), window, stride)
    watched, total = None, None
    if layer is not None:
        unit, total = _strongest(model, image, layer)
        watched = layer, unit
    engine, note = _engine(model, image, gray, watched, method, batch)
    found = _slide(engine, windows, target, value, progress)
    found = replace(found, incremental=isinstance(engine, Incremental), note=note)
    if watched is None:
        return found
    found = replace(found, layer=layer, unit=unit, total=total)
    try:
        shown = project(model, image, *watched, place="all", rule=rule, activations=activations)
    except OptionError as error:
        return replace(found, unprojected=str(error))
    return replace(found, projection=shown)


class Naive:
    """Runs any model on an image with an occluder at many positions, `batch` at a time.

    The other arguments are those of `Incremental`.
    """

    def __init__(
        self,
        model: nn.Module,
        image: Tensor,
        baseline: Tensor,
        watched: tuple[str, int] | None = None,
        batch: int = 8,
    ) -> None:
        self._image, self._baseline, self._batch = image, baseline, batch
        names = [SCORE] if watched is None else [SCORE, f"{SCORE}.{watched[0]}"]
        self._unit = 0 if watched is None else watched[1]
        self._recorder = ActivationRecorder(layers.score_layer(model), names)
        with torch.inference_mode():
            self.output = self._run(image.clone())[0]  #: for the unoccluded image

    @torch.inference_mode()
    def __call__(self, boxes: Sequence["Box"]) -> tuple[Tensor, Tensor | None]:
        """The outputs (P, K) for occluders at some boxes, and the totals (P,) float64 or None."""
        parts = (boxes[i : i + self._batch] for i in range(0, len(boxes), self._batch))
        hidden = (occluder.occluded(self._image, self._baseline, part) for part in parts)
        outputs, totals = zip(*map(self._run, hidden), strict=True)
        return torch.cat(outputs), None if totals[0] is None else torch.cat(totals)

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        found: dict[str, Tensor] = {}

        def visit(name: str, maps: Tensor) -> None:  # at once, since layers may work in place
            if name != SCORE:
                maps = maps[:, self._unit].flatten(1).sum(1, dtype=torch.float64)
            found[name] = maps

        self._recorder.visit(images, visit)
        return found.pop(SCORE), next(iter(found.values()), None)


def _engine(
    model: nn.Module,
    image: Tensor,
    baseline: Tensor,
    watched: tuple[str, int] | None,
    method: str,
    batch: int,
) -> tuple[Incremental | Naive, str]:
    """The engine that computes the outputs, and the reason if it is not the incremental one."""
    note = "not asked for"
    if method != "naive":
        try:
            return Incremental(trace_chain(model, image), image, baseline, watched), ""
        except OptionError as error:
            if method == "incremental":
                raise OptionError(f"{error}; use method='naive', or 'auto'") from None
            note = str(error)
    return Naive(model, image, baseline, watched, batch), note


def _slide(
    engine: Incremental | Naive,
    windows: "Windows",
    target: int | None,
    value: str,
    progress: "Progress | None",
) -> Occlusion:
    scores = engine.output
    if scores.dim() != 2:
        raise ShapeError(
            f"got a model that gives {tuple(scores.shape)}; wanted class scores (N, K): use "
            "occlude_region for a segmentation network, or wrap the model so that it gives scores"
        )
    label = int(scores[0].argmax())
    target = label if target is None else target
    if not 0 <= target < scores.shape[1]:
        raise OptionError(f"got class {target}; the model has 0 to {scores.shape[1] - 1}")
    soften = value == "probability" and not layers.is_probability(scores)
    before = float((scores.softmax(1) if soften else scores)[0, target])
    boxes, values, labels, totals = windows.boxes(), [], [], []
    for start in range(0, len(boxes), _PART):
        outputs, total = engine(boxes[start : start + _PART])
        values.append((outputs.softmax(1) if soften else outputs)[:, target].cpu())
        labels.append(outputs.argmax(1).cpu())
        totals += [] if total is None else [total.cpu()]
        layers.require_finite("the model", scores, outputs, *totals[-1:])
        if progress is not None:
            progress(min(start + _PART, len(boxes)), len(boxes), "occluding")
    shape = windows.shape
    mapped, kinds = torch.cat(values).view(shape), torch.cat(labels).view(shape)
    summed = torch.cat(totals).view(shape) if totals else None
    return Occlusion(windows, target, before, mapped, label, kinds, totals=summed)


def _strongest(model: nn.Module, image: Tensor, layer: str) -> tuple[int, float]:
    """The feature map of a layer with the largest total activation, and that total."""
    with torch.inference_mode():
        maps = ActivationRecorder(model, [layer])(image)[layer]
    if maps.dim() != 4:
        raise OptionError(
            f"layer {layer!r} gives {tuple(maps.shape[1:])} for an image; wanted maps (C, h, w): "
            "choose another of list_layers"
        )
    sums = maps.sum((0, 2, 3), dtype=torch.float64)
    layers.require_finite("the model", sums)
    unit = int(sums.argmax())
    return unit, float(sums[unit])
