"""Capacity of a network that draws: how depth, streams and width show in its error.

Each variant learns the same views, as long and in the same order; what counts is the error at
azimuths that are held out. Networks and trainings are small: what is compared is the variants with
each other, not with the paper (Dosovitskiy et al. 2017, on the network's architecture).
"""

import dataclasses
from pathlib import Path
from typing import Any

from unpool.files import atomic
from unpool.generate.batches import load_views, split_views
from unpool.generate.evaluate import measure
from unpool.generate.experiments import COMPACT, Experiment, Progress, learn, ticker
from unpool.recipes import CHAIRS, Rate
from unpool.rendering.dataset import Chairs

_HALF = {"code": 64, "shared": 128, "widths": (48, 32, 16)}
_TWICE = {"code": 256, "shared": 512, "widths": (192, 128, 64)}
_DEEP = {"streams": 1, "mask_widths": None}

VARIANTS: dict[str, dict[str, Any]] = {
    "two streams": {},
    "two streams, half as wide": {**_HALF, "mask_widths": (16, 12, 8)},
    "two streams, twice as wide": {**_TWICE, "mask_widths": (64, 48, 32)},
    "one stream, deep": _DEEP,
    "one stream, deep, half as wide": {**_HALF, **_DEEP},
}
"""How the networks differ from `COMPACT`."""


def measure_capacity(
    chairs: Chairs,
    folder: Path,
    *,
    steps: int = 800,
    styles: int = 20,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, dict[str, float]]:
    """Train each of `VARIANTS`, and measure it at azimuths that are held out, every fifth.

    Each result is kept in `capacity.json` as soon as it is there: begun again, this goes on where
    it was stopped.

    Args:
        chairs: rendered styles.
        folder: where `capacity.json` goes.
        steps: of each training.
        styles: the first so many are learned.
        device: "auto", "cpu", "cuda" or "cuda:n".
        progress: see `Progress`.

    Returns:
        For each variant the number of its parameters, and `mse`, `iou` and `iou_mean` as in
        `unpool.generate.evaluate.Measured`.

    Raises:
        DataError: no views at the azimuths to hold out, or none at others.
        OptionError: `capacity.json` has results by another protocol.
    """
    few = tuple(view for view in chairs.views if view.style < styles)
    chairs = chairs._replace(styles=chairs.styles[:styles], views=few)
    learned, held = split_views(chairs, CHAIRS.held_out)
    protocol = {"steps": steps, "styles": len(chairs.styles), "size": COMPACT.size}
    experiment = Experiment(folder / "capacity.json", protocol)
    views = load_views(chairs, COMPACT.size)
    rates, warmup = (Rate(steps, COMPACT.rates[0].lr),), min(COMPACT.warmup, steps)
    for i, (name, changed) in enumerate(VARIANTS.items()):
        if name not in experiment.results:
            recipe = dataclasses.replace(COMPACT, rates=rates, warmup=warmup, **changed)
            tick = ticker(progress, i, len(VARIANTS), steps, name)
            net = learn(views, learned, len(chairs.styles), recipe, device, tick)
            parameters = sum(p.numel() for p in net.parameters())
            figures = measure(net, views.take(held))._asdict()
            experiment.keep(name, {"parameters": parameters, **figures})
    return experiment.results


def draw_capacity(path: Path, results: dict[str, dict[str, float]]) -> None:
    """Draw errors over the numbers of parameters into a PNG file; this takes matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    measures = {"mse": "MSE inside the mask", "iou": "IoU of the mask"}
    for axes, (key, title) in zip(figure.subplots(1, 2), measures.items(), strict=True):
        for kind, marker in (("two streams", "o-"), ("one stream", "s-")):
            own = sorted((r["parameters"], r[key]) for n, r in results.items() if kind in n)
            axes.plot(*zip(*own, strict=True), marker, label=kind)
        axes.set(xscale="log", xlabel="parameters", title=title)
        axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
