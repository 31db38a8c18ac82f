"""Knowledge transfer: what training on many styles adds to styles that are seen from few sides.

Target styles are seen from 1, 2, 4, 8 or 16 azimuths, together with all views of the other styles
(with transfer) or alone (without). Reported is the error of the targets at 15 azimuths that are
never seen: the mean squared error of RGB inside the mask over all pixels, on a scale of 0 to 1. The
baselines use the same views of the targets as the network: the nearest view, and the two
neighboring views blended pixel by pixel. Batches hold every style equally often.

Dosovitskiy, Springenberg & Brox 2015, section on knowledge transfer.

usage: python -m experiments.transfer --data RENDERS -o FOLDER [--steps N] [--targets N] [--seeds N]
writes transfer.json and transfer.png; half an hour on two cores, and an interrupted run continues
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from experiments.compact import COMPACT, for_steps, step_counter, train_compact
from experiments.results_file import ResultsFile
from unpool import Progress
from unpool.cli import console
from unpool.cli.console import progress
from unpool.errors import DataError
from unpool.generate.baselines import baselines, errors, generate_views, premultiplied
from unpool.generate.batches import Views, load_views
from unpool.generate.generator import Generator
from unpool.rendering.dataset import AZIMUTHS, Chairs, open_chairs
from unpool.vision.figures import plot

COUNTS = (1, 2, 4, 8, 16)
"""Numbers of azimuths from which targets are seen."""

_WITH, _WITHOUT, _BASELINES = "with transfer", "without transfer", "baselines"
_UNSEEN = range(1, 31, 2)  # indices of the azimuths at which errors are measured

Curves = dict[str, dict[int, list[float]]]


class _Case(NamedTuple):
    """A selection of targets, and the number of azimuths they are seen from."""

    seed: int
    targets: list[int]
    azimuths: int

    def name(self, method: str) -> str:
        """The name of a result in the file."""
        return f"{method}, {self.azimuths} views, seed {self.seed}"


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

    Each result is written to `transfer.json` as soon as it is known; called again, this continues
    where it was interrupted.

    Args:
        chairs: rendered styles, with all 31 azimuths.
        folder: where `transfer.json` is written.
        steps: of each training run; there are 10 runs for each seed.
        targets: number of styles that are seen from few sides; each seed has others.
        seeds: number of repetitions.
        device: "auto", "cpu", "cuda" or "cuda:n".
        progress: called with steps done, steps in total, and the current run.

    Returns:
        The curves "with transfer", "without transfer", "nearest" and "blending": for each number
        of azimuths the mean error over the seeds, then that of each seed.

    Raises:
        DataError: not enough styles or views.
        OptionError: `transfer.json` has results of another protocol.
    """
    if targets * seeds >= len(chairs.styles):
        raise DataError(
            f"got {chairs.root} with {len(chairs.styles)} styles; wanted more than the "
            f"{targets * seeds} targets: set fewer targets or seeds, or render more styles"
        )
    size = COMPACT.size
    protocol = {"steps": steps, "targets": targets, "seeds": seeds}
    protocol |= {"styles": len(chairs.styles), "size": size}
    file = ResultsFile(folder / "transfer.json", protocol)
    views = load_views(chairs, size)
    cases = [
        _Case(seed, _targets(len(chairs.styles), targets, seed), count)
        for seed in range(seeds)
        for count in COUNTS
    ]
    for case in cases:
        if (name := case.name(_BASELINES)) not in file.results:
            file.add(name, _baseline_errors(case, chairs, views))
    runs = [(case, method) for case in cases for method in (_WITH, _WITHOUT)]
    for i, (case, method) in enumerate(runs):
        if (name := case.name(method)) not in file.results:
            on_step = step_counter(progress, i, len(runs), steps, name)
            error = _network_error(case, method == _WITH, chairs, views, steps, device, on_step)
            file.add(name, {"mse": error})
    curves = _curves(file, cases)
    file.write(curves=curves)
    return curves


def seen_azimuths(count: int) -> list[int]:
    """Indices of `count` azimuths evenly around; smaller sets are subsets of larger ones.

    >>> seen_azimuths(4)
    [0, 8, 16, 24]
    """
    return list(range(0, 31, 32 // count))[:count]


def plot_transfer(path: Path, curves: Curves) -> None:
    """Plot the mean curves, and each seed as a dash, to a PNG file."""
    with plot(path, (6.6, 4.4)) as axes:
        for (name, curve), style in zip(curves.items(), ("o-", "s-", "^:", "v:"), strict=True):
            axes.plot(list(curve), [values[0] for values in curve.values()], style, label=name)
            for count, values in curve.items():
                axes.plot([count] * len(values[1:]), values[1:], "_", color="gray")
        axes.set(xscale="log", yscale="log", xlabel="azimuths seen of a target")
        axes.set_ylabel("error at azimuths never seen (MSE)")
        axes.set_xticks(COUNTS, labels=map(str, COUNTS))
        axes.minorticks_off()
        axes.legend(frameon=False)


def _targets(styles: int, count: int, seed: int) -> list[int]:
    """Indices of the target styles; every seed has others."""
    order = np.random.default_rng(0).permutation(styles)
    return sorted(order[count * seed : count * (seed + 1)].tolist())


def _indices(chairs: Chairs, styles: Sequence[int], azimuths: Sequence[int]) -> list[int]:
    """The views of some styles from some azimuths."""
    chosen, wanted = {AZIMUTHS[a] for a in azimuths}, set(styles)
    return [i for i, v in enumerate(chairs.views) if v.style in wanted and v.azimuth in chosen]


def _balanced(chairs: Chairs, indices: Sequence[int]) -> NDArray[np.int64]:
    """The views, with those of rarely seen styles repeated until all are about equally frequent."""
    by_style: dict[int, list[int]] = {}
    for i in indices:
        by_style.setdefault(chairs.views[i].style, []).append(i)
    most = max(map(len, by_style.values()))
    return np.array([i for own in by_style.values() for i in own * round(most / len(own))])


def _split(case: _Case, chairs: Chairs) -> tuple[list[int], list[int]]:
    """Indices of the targets' views that are seen, and of those the error is measured on."""
    seen, tested = (
        _indices(chairs, case.targets, azimuths)
        for azimuths in (seen_azimuths(case.azimuths), _UNSEEN)
    )
    if not (seen and tested):
        raise DataError(
            f"got {chairs.root} without views of azimuth 0, or of others; render all azimuths"
        )
    return seen, tested


def _baseline_errors(case: _Case, chairs: Chairs, views: Views) -> dict[str, float]:
    seen, tested = _split(case, chairs)
    truth = premultiplied(views.images[tested])
    made = baselines(chairs, views.images, seen, tested)
    return {name: float(errors(images, truth).mean()) for name, images in made.items()}


def _network_error(
    case: _Case,
    transfer: bool,
    chairs: Chairs,
    views: Views,
    steps: int,
    device: str,
    on_step: Callable[[int], object],
) -> float:
    """The error of a network trained for one case, with or without the other styles."""
    seen, tested = _split(case, chairs)
    sources = [s for s in range(len(chairs.styles)) if transfer and s not in case.targets]
    learned = _balanced(chairs, seen + _indices(chairs, sources, range(31)))
    recipe = for_steps(COMPACT, steps, seed=case.seed)
    net = train_compact(views, learned, len(chairs.styles), recipe, device, on_step)
    generator = Generator(net, chairs.styles, device=device)
    chosen = [chairs.views[i] for i in tested]
    columns = zip(*((v.style, v.azimuth, v.elevation) for v in chosen), strict=True)
    generated = generate_views(generator, *map(list, columns))
    return float(errors(generated, premultiplied(views.images[tested])).mean())


def _curves(file: ResultsFile, cases: Sequence[_Case]) -> Curves:
    """By curve and number of azimuths: the mean over the seeds, then each seed."""
    curves: Curves = {}
    for curve in (_WITH, _WITHOUT, "nearest", "blending"):
        method, key = (curve, "mse") if curve in (_WITH, _WITHOUT) else (_BASELINES, curve)
        for count in COUNTS:
            own = [case for case in cases if case.azimuths == count]
            values = [file.results[case.name(method)][key] for case in own]
            curves.setdefault(curve, {})[count] = [float(np.mean(values)), *values]
    return curves


@click.command()
@click.option("--data", type=Path, required=True, help="Rendered views, as of `unpool render`.")
@click.option("-o", "--output", type=Path, required=True, help="Folder for the results.")
@click.option("--steps", type=click.IntRange(1), default=800, show_default=True)
@click.option("--targets", type=click.IntRange(1), default=6, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(data: Path, output: Path, steps: int, targets: int, seeds: int, device: str) -> None:
    """Train the networks that are still missing, and print and plot the curves."""
    chairs = open_chairs(data)
    with progress("training") as update:
        curves = measure_transfer(
            chairs,
            output,
            steps=steps,
            targets=targets,
            seeds=seeds,
            device=device,
            progress=update,
        )
    plot_transfer(output / "transfer.png", curves)
    rows = [[name, *(f"{v[0]:.4f}" for v in curve.values())] for name, curve in curves.items()]
    console.print_table([["azimuths seen", *map(str, COUNTS)], *rows])


if __name__ == "__main__":
    main()
