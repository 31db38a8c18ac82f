"""Knowledge transfer: what a network knows of views of objects that it has seen from few sides.

Target styles are seen from 1, 2, 4, 8 or 16 azimuths; all views of the other styles are seen, too
(with transfer), or nothing else (without). What counts is the error of the targets at 15 azimuths
that are never seen: the mean squared error of RGB inside the mask over all pixels, 0 to 1. The
baselines see what the network sees of the targets: the nearest view, and the two neighbors blended
pixel by pixel. Every style is seen equally often.

Dosovitskiy, Springenberg, Brox 2015, section on the transfer of knowledge.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.errors import DataError
from unpool.files import atomic
from unpool.generate.baselines import baselines, draw_views, errors, premultiplied
from unpool.generate.batches import Views, load_views
from unpool.generate.experiments import COMPACT, Experiment, Progress, learn, ticker
from unpool.generate.generator import Generator
from unpool.recipes import Rate
from unpool.rendering.dataset import AZIMUTHS, Chairs

COUNTS = (1, 2, 4, 8, 16)
"""From how many azimuths targets are seen."""

_WITH, _WITHOUT, _BASELINES = "with transfer", "without transfer", "baselines"
_UNSEEN = range(1, 31, 2)  # numbers of the azimuths on which everything is measured

Curves = dict[str, dict[int, list[float]]]


class _Case(NamedTuple):
    """A choice of targets, and from how many azimuths they are seen."""

    seed: int
    targets: list[int]
    azimuths: int

    def name(self, way: str) -> str:
        """Of a result in the file."""
        return f"{way}, {self.azimuths} views, seed {self.seed}"


def measure_transfer(
    chairs: Chairs,
    folder: Path,
    *,
    steps: int = 800,
    targets: int = 6,
    seeds: int = 2,
    device: str = "auto",
    progress: Progress | None = None,
) -> Curves:
    """Train a compact network for each number of azimuths, with and without the other styles.

    Each result is kept in `transfer.json` as soon as it is there: begun again, this goes on where
    it was stopped.

    Args:
        chairs: rendered styles, with all 31 azimuths.
        folder: where `transfer.json` goes.
        steps: of each training; there are 10 for each seed.
        targets: styles that are seen from few sides; each seed has others.
        seeds: how often all of it is done.
        device: "auto", "cpu", "cuda" or "cuda:n".
        progress: see `Progress`.

    Returns:
        The curves "with transfer", "without transfer", "nearest" and "blending": for each number
        of azimuths the mean error over the seeds, and that of each seed.

    Raises:
        DataError: not enough styles or views.
        OptionError: `transfer.json` has results by another protocol.
    """
    if targets * seeds >= len(chairs.styles):
        raise DataError(
            f"got {chairs.root} with {len(chairs.styles)} styles; wanted more than the "
            f"{targets * seeds} that are targets: take fewer targets, or render more"
        )
    size = COMPACT.size
    protocol = {"steps": steps, "targets": targets, "seeds": seeds}
    protocol |= {"styles": len(chairs.styles), "size": size}
    experiment = Experiment(folder / "transfer.json", protocol)
    views = load_views(chairs, size)
    cases = [
        _Case(seed, _targets(len(chairs.styles), targets, seed), count)
        for seed in range(seeds)
        for count in COUNTS
    ]
    for case in cases:
        if (name := case.name(_BASELINES)) not in experiment.results:
            experiment.keep(name, _baselines(case, chairs, views))
    trainings = [(case, way) for case in cases for way in (_WITH, _WITHOUT)]
    for i, (case, way) in enumerate(trainings):
        if (name := case.name(way)) not in experiment.results:
            tick = ticker(progress, i, len(trainings), steps, name)
            error = _error(case, way == _WITH, chairs, views, steps, device, tick)
            experiment.keep(name, {"mse": error})
    curves = _curves(experiment, cases)
    experiment.write(curves=curves)
    return curves


def seen_azimuths(count: int) -> list[int]:
    """Numbers of azimuths evenly around; those of fewer are among those of more.

    >>> seen_azimuths(4)
    [0, 8, 16, 24]
    """
    return list(range(0, 31, 32 // count))[:count]


def draw_transfer(path: Path, curves: Curves) -> None:
    """Draw the curves, and the seeds as dashes, into a PNG file; this takes matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for (name, found), style in zip(curves.items(), ("o-", "s-", "^:", "v:"), strict=True):
        axes.plot(list(found), [values[0] for values in found.values()], style, label=name)
        for count, values in found.items():
            axes.plot([count] * len(values[1:]), values[1:], "_", color="gray")
    axes.set(xscale="log", yscale="log", xlabel="azimuths seen of a target")
    axes.set_ylabel("error at azimuths never seen (MSE)")
    axes.set_xticks(COUNTS, labels=map(str, COUNTS))
    axes.minorticks_off()
    axes.legend(frameon=False)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _targets(styles: int, count: int, seed: int) -> list[int]:
    """Numbers of styles; every seed has others."""
    order = np.random.default_rng(0).permutation(styles)
    return sorted(order[count * seed : count * (seed + 1)].tolist())


def _numbers(chairs: Chairs, styles: Sequence[int], azimuths: Sequence[int]) -> list[int]:
    """The views of some styles from some azimuths."""
    chosen, wanted = {AZIMUTHS[a] for a in azimuths}, set(styles)
    return [i for i, v in enumerate(chairs.views) if v.style in wanted and v.azimuth in chosen]


def _balanced(chairs: Chairs, numbers: Sequence[int]) -> NDArray[np.int64]:
    """The views, those of styles that have few repeated until all have about as many."""
    by_style: dict[int, list[int]] = {}
    for i in numbers:
        by_style.setdefault(chairs.views[i].style, []).append(i)
    most = max(map(len, by_style.values()))
    return np.array([i for own in by_style.values() for i in own * round(most / len(own))])


def _split(case: _Case, chairs: Chairs) -> tuple[list[int], list[int]]:
    """The numbers of the targets' views that are seen, and of those that are measured."""
    seen, tested = (
        _numbers(chairs, case.targets, azimuths)
        for azimuths in (seen_azimuths(case.azimuths), _UNSEEN)
    )
    if not (seen and tested):
        raise DataError(
            f"got {chairs.root} without views of azimuth 0, or of others; render all azimuths"
        )
    return seen, tested


def _baselines(case: _Case, chairs: Chairs, views: Views) -> dict[str, float]:
    seen, tested = _split(case, chairs)
    truth = premultiplied(views.images[tested])
    made = baselines(chairs, views.images, seen, tested)
    return {way: float(errors(images, truth).mean()) for way, images in made.items()}


def _error(
    case: _Case,
    transfer: bool,
    chairs: Chairs,
    views: Views,
    steps: int,
    device: str,
    tick: Callable[[int], object],
) -> float:
    """The error of a network that is trained for a case, with the other styles or without."""
    seen, tested = _split(case, chairs)
    sources = [s for s in range(len(chairs.styles)) if transfer and s not in case.targets]
    learned = _balanced(chairs, seen + _numbers(chairs, sources, range(31)))
    rates = (Rate(steps, COMPACT.rates[0].lr),)
    warmup = min(COMPACT.warmup, steps)
    recipe = dataclasses.replace(COMPACT, rates=rates, warmup=warmup, seed=case.seed)
    net = learn(views, learned, len(chairs.styles), recipe, device, tick)
    generator = Generator(net, chairs.styles, device=device)
    chosen = [chairs.views[i] for i in tested]
    columns = zip(*((v.style, v.azimuth, v.elevation) for v in chosen), strict=True)
    drawn = draw_views(generator, *map(list, columns))
    return float(errors(drawn, premultiplied(views.images[tested])).mean())


def _curves(experiment: Experiment, cases: Sequence[_Case]) -> Curves:
    """By curve and number of azimuths, the mean over the seeds, and each."""
    found: Curves = {}
    for curve in (_WITH, _WITHOUT, "nearest", "blending"):
        way, key = (curve, "mse") if curve in (_WITH, _WITHOUT) else (_BASELINES, curve)
        for count in COUNTS:
            own = [case for case in cases if case.azimuths == count]
            values = [experiment.results[case.name(way)][key] for case in own]
            found.setdefault(curve, {})[count] = [float(np.mean(values)), *values]
    return found
