"""Occlusion: a gray square is slid over a picture, and the network is asked at every stop.

Three maps in one pass: the probability of a class, the most probable class, and the total
activation of the map that was strongest before anything was hidden; and its projection beside them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError, UnpoolError
from unpool.files import atomic
from unpool.vision.images import write_image
from unpool.visualize.chains import Link, trace_chain
from unpool.visualize.heatmaps import Panel, heat_panel, kind_panels, outlined, sheet
from unpool.visualize.incremental import Incremental
from unpool.visualize.looped import Baseline, Plain, shown_by
from unpool.visualize.pictures import draw
from unpool.visualize.probes import Probe, list_layers
from unpool.visualize.project import Projection, project
from unpool.visualize.sliding import Sides, Sliding, slide

__all__ = ["Occlusion", "occlude", "save_found"]

Progress = Callable[[int, int], None]
"""Called with the number of stops done and their total."""

_PART = 256  # stops between two reports


@dataclass(frozen=True)
class Occlusion:
    """What `occlude` gives: maps of (rows, columns) stops, and the same without an occluder."""

    sliding: Sliding  #: where the occluder stopped
    target: int  #: the class that `values` are of
    value: float  #: its probability or score without an occluder
    values: Tensor  #: (rows, columns) float32
    label: int  #: the most probable class without an occluder
    labels: Tensor  #: (rows, columns) int64
    layer: str | None = None
    unit: int | None = None  #: the map of that layer that `totals` are of
    total: float | None = None  #: the sum of that map without an occluder
    totals: Tensor | None = None  #: (rows, columns) float64
    projection: Projection | None = None  #: of that map, whole
    incremental: bool = False  #: whether only what the occluder changes was computed again
    note: str = ""  #: if not, why

    @property
    def drop(self) -> Tensor:
        """How far each pixel, hidden, lowers the value: (H, W) float64.

        The mean over the stops that hide it, as Captum's `Occlusion` attributes it.
        """
        return self.sliding.spread(self.value - self.values.double())

    def record(self) -> dict[str, Any]:
        """All that was found, as plain values."""
        best = int(self.values.argmin())
        return {
            "size": list(self.sliding.size),
            "occluder": list(self.sliding.window),
            "stride": list(self.sliding.stride),
            "class": self.target,
            "value": self.value,
            "lowest": float(self.values.min()),
            "lowest_box": list(self.sliding.boxes()[best]),
            "label": self.label,
            "layer": self.layer,
            "unit": self.unit,
            "total": self.total,
            "exact incremental": "yes" if self.incremental else "no",
            "note": self.note,
            "values": self.values.tolist(),
            "labels": self.labels.tolist(),
            "totals": None if self.totals is None else self.totals.tolist(),
        }

    def panels(
        self,
        picture: NDArray[np.uint8],
        names: Sequence[str] = (),
        order: Literal["RGB", "BGR"] = "RGB",
    ) -> list[Panel]:
        """The panels of the paper's figure 7: pictures with captions.

        Args:
            picture: that was looked at, (H, W, 3) uint8, RGB.
            names: of the classes, by their numbers; numbers are shown where there are none.
            order: of the colors that the network takes.

        Returns:
            The picture with the outline of an occluder; if a layer was named, the activity and the
            projection of its strongest map; the value of the class; the most probable class, and
            its legend.
        """
        if picture.shape != (*self.sliding.size, 3):
            raise ShapeError(
                f"got a picture of {picture.shape} for maps of {self.sliding.size}; pass the "
                "square that the network saw, such as Inputs.crop gives"
            )
        name = names[self.target] if self.target < len(names) else f"class {self.target}"
        found = [(outlined(picture, self.sliding), "picture, and an occluder")]
        if self.totals is not None and self.projection is not None:
            found.append(heat_panel(self.totals, self.sliding, "activity"))
            shown = draw(self.projection.signal, order=order)[0]
            found.append((shown, f"map {self.unit} of {self.layer}, projected"))
        found.append(heat_panel(self.values, self.sliding, name))
        return [*found, *kind_panels(self.labels, self.sliding, names)]

    def save(
        self,
        stem: str | Path,
        picture: NDArray[np.uint8],
        names: Sequence[str] = (),
        order: Literal["RGB", "BGR"] = "RGB",
    ) -> list[Path]:
        """Write STEM.png, the figure, and STEM.json, all that was found.

        Args:
            stem: the path of what is written, without its ending.
            picture: see `panels`, as the other arguments.

        Returns:
            Both paths.
        """
        shown = sheet(self.panels(picture, names, order))
        return save_found(Path(stem), shown, self.record())


def save_found(stem: Path, shown: NDArray[np.uint8], record: dict[str, Any]) -> list[Path]:
    """Write a figure, and what it shows."""
    figure, facts = (stem.with_name(f"{stem.name}.{end}") for end in ("png", "json"))
    write_image(figure, shown)
    with atomic(facts) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return [figure, facts]


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
    method: Literal["auto", "incremental", "plain"] = "auto",
    batch: int = 8,
    progress: Progress | None = None,
) -> Occlusion:
    """Slide an occluder over a picture, and see what a classifier makes of it at every stop.

    Args:
        model: any module that gives class scores (N, K), before softmax; it stays as it is, and
            runs as in evaluation mode.
        image: (1, C, H, W), as the model takes it.
        target: the class whose value is mapped; the most probable one when not given.
        layer: a layer with maps, from `list_layers`: the total activation of the map whose total
            is largest without an occluder is mapped, too, and that map is projected.
        window: height and width of the occluder, see `slide`.
        stride: from one stop to the next, likewise.
        baseline: what the occluder shows, in the values that the model takes: 0 is gray where the
            mean of the pixels was subtracted.
        value: the softmax of the scores, or the score itself.
        method: "incremental" computes only what the occluder can change, which is exact and works
            for chains of layers (VGG, AlexNet, ZFNet ...); "plain" asks the model at every stop;
            "auto" is incremental for chains, and plain for others, and the result tells which.
        batch: stops at a time, of "plain".
        progress: see `Progress`.

    Raises:
        OptionError: no such class or layer, a window or stride that does not fit, or a model that
            is no chain where "incremental" was asked for.
        ShapeError: a picture that the model cannot take, a baseline of another shape, or a model
            that gives no class scores.

    Zeiler, Fergus 2014, section 4.2 and figure 7, which give neither window nor stride.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 5))
    >>> found = occlude(model, torch.rand(1, 3, 12, 12), layer="1", window=4, stride=2)
    >>> found.values.shape, found.labels.shape, found.totals.shape, found.drop.shape
    (torch.Size([5, 5]), torch.Size([5, 5]), torch.Size([5, 5]), torch.Size([12, 12]))
    """
    _require_options(value, method, batch)
    shown = shown_by(baseline, image)
    sliding = slide((image.shape[2], image.shape[3]), window, stride)
    watched = None if layer is None else (layer, _strongest(model, image, layer))
    try:
        engine, note = _engine(model, image, shown, watched, method, batch)
    except (RuntimeError, ValueError) as error:
        if not isinstance(error, UnpoolError):
            list_layers(model, image)  # which tells what the model cannot take
        raise
    scores = _require_scores(engine.output)
    label = int(scores[0].argmax())
    target = label if target is None else target
    if not 0 <= target < scores.shape[1]:
        raise OptionError(f"got class {target}; the model has 0 to {scores.shape[1] - 1}")
    boxes, found = sliding.boxes(), []
    for start in range(0, len(boxes), _PART):
        outputs, total = engine(boxes[start : start + _PART])
        found.append((_valued(outputs, value)[:, target], outputs.argmax(1), total))
        if progress is not None:
            progress(min(start + _PART, len(boxes)), len(boxes))
    values, labels, totals = zip(*found, strict=True)
    known = Occlusion(
        sliding,
        target,
        float(_valued(scores, value)[0, target]),
        torch.cat(values).cpu().view(sliding.shape),
        label,
        torch.cat(labels).cpu().view(sliding.shape),
        incremental=isinstance(engine, Incremental),
        note=note,
    )
    if watched is None:
        return known
    projection = project(model, image, watched[0], watched[1], place="all")
    return replace(
        known,
        layer=watched[0],
        unit=watched[1],
        total=float(projection.values),
        totals=torch.cat(totals).cpu().view(sliding.shape),
        projection=projection,
    )


def _engine(
    model: nn.Module,
    image: Tensor,
    shown: Tensor,
    watched: tuple[str, int] | None,
    method: str,
    batch: int,
) -> tuple[Incremental | Plain, str]:
    """What computes the outputs, and why it is not the incremental one."""
    note = "not asked for"
    if method != "plain":
        try:
            links = trace_chain(model, image)
            unit = None if watched is None else (_number(links, watched[0]), watched[1])
            return Incremental(links, image, shown, unit), ""
        except OptionError as error:
            if method == "incremental":
                raise OptionError(f"{error}; use method='plain', or 'auto'") from None
            note = str(error)
    return Plain(model, image, shown, watched, batch), note


def _number(links: Sequence[Link], layer: str) -> int:
    for number, link in enumerate(links):
        if layer in (link.name, *link.aliases):
            return number
    raise OptionError(f"layer {layer!r} does not end with a layer of the chain")


def _strongest(model: nn.Module, image: Tensor, layer: str) -> int:
    """The map of a layer whose total activation is largest."""
    with torch.inference_mode():
        maps = Probe(model, [layer])(image)[layer]
    if maps.dim() != 4:
        raise OptionError(
            f"layer {layer!r} gives {tuple(maps.shape[1:])} for a picture; wanted maps (C, h, w): "
            "choose another in list_layers(model, images)"
        )
    return int(maps.sum((0, 2, 3), dtype=torch.float64).argmax())


def _valued(scores: Tensor, value: str) -> Tensor:
    return scores.softmax(1) if value == "probability" else scores


def _require_scores(output: Any) -> Tensor:
    if not isinstance(output, Tensor) or output.dim() != 2:
        came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ShapeError(
            f"got a model that gives {came}; wanted class scores (N, K): use occlude_region for a "
            "model that segments, or wrap it so that it gives scores"
        )
    return output


def _require_options(value: str, method: str, batch: int) -> None:
    if value not in ("probability", "score") or method not in ("auto", "incremental", "plain"):
        raise OptionError(
            f"got value={value!r}, method={method!r}; a value is 'probability' or 'score', a "
            "method 'auto', 'incremental' or 'plain'"
        )
    if batch < 1:
        raise OptionError(f"got batch={batch}; wanted 1 or more")
