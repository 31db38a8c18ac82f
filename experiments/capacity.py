"""Network capacity: how depth, streams and width affect the generator's error.

Each variant learns the same views, for as many steps and in the same order. Reported is the error
at held-out azimuths. Networks and runs are small, so the variants can be compared with each other,
not with the paper (Dosovitskiy et al. 2017, section on the network architecture).

usage: python -m experiments.capacity --data RENDERS -o FOLDER [--steps N] [--styles N]
writes capacity.json and capacity.png; ten minutes on two cores, and an interrupted run continues
"""

from pathlib import Path
from typing import Any

import click

from experiments.compact import COMPACT, for_steps, step_counter, train_compact
from experiments.results_file import ResultsFile
from unpool import Progress
from unpool.cli import console
from unpool.cli.console import progress
from unpool.generate.batches import load_views, split_views
from unpool.generate.evaluate import measure
from unpool.recipes.generate import CHAIRS
from unpool.rendering.dataset import Chairs, open_chairs
from unpool.vision.figures import plot

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
    """Train each of `VARIANTS`, and measure it on held-out azimuths, every fifth.

    Each result is written to `capacity.json` as soon as it is known; called again, this continues
    where it was interrupted.

    Args:
        chairs: rendered styles.
        folder: where `capacity.json` is written.
        steps: of each training run.
        styles: the first this many are learned.
        device: "auto", "cpu", "cuda" or "cuda:n".
        progress: called with steps done, steps in total, and the current variant.

    Returns:
        For each variant its number of parameters, and the measures of
        `unpool.generate.evaluate.measure`: `mse`, `iou` and `iou_mean`.

    Raises:
        DataError: no views at the azimuths to hold out, or none at others.
        OptionError: `capacity.json` has results of another protocol.
    """
    few = tuple(view for view in chairs.views if view.style < styles)
    chairs = chairs._replace(styles=chairs.styles[:styles], views=few)
    learned, held_out = split_views(chairs, CHAIRS.held_out)
    protocol = {"steps": steps, "styles": len(chairs.styles), "size": COMPACT.size}
    file = ResultsFile(folder / "capacity.json", protocol)
    views = load_views(chairs, COMPACT.size)
    for i, (name, changes) in enumerate(VARIANTS.items()):
        if name not in file.results:
            recipe = for_steps(COMPACT, steps, **changes)
            on_step = step_counter(progress, i, len(VARIANTS), steps, name)
            net = train_compact(views, learned, len(chairs.styles), recipe, device, on_step)
            parameters = sum(p.numel() for p in net.parameters())
            measures = measure(net, views.take(held_out))._asdict()
            file.add(name, {"parameters": parameters, **measures})
    return file.results


def plot_capacity(path: Path, results: dict[str, dict[str, float]]) -> None:
    """Plot the errors against the number of parameters to a PNG file."""
    measures = {"mse": "MSE inside the mask", "iou": "IoU of the mask"}
    with plot(path, (9.9, 3.85), columns=2) as row:
        for axes, (key, title) in zip(row, measures.items(), strict=True):
            for kind, marker in (("two streams", "o-"), ("one stream", "s-")):
                own = sorted((r["parameters"], r[key]) for n, r in results.items() if kind in n)
                axes.plot(*zip(*own, strict=True), marker, label=kind)
            axes.set(xscale="log", xlabel="parameters", title=title)
            axes.grid(alpha=0.3)
        row[-1].legend(frameon=False)


@click.command()
@click.option("--data", type=Path, required=True, help="Rendered views, as of `unpool render`.")
@click.option("-o", "--output", type=Path, required=True, help="Folder for the results.")
@click.option("--steps", type=click.IntRange(1), default=800, show_default=True)
@click.option("--styles", type=click.IntRange(1), default=20, show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(data: Path, output: Path, steps: int, styles: int, device: str) -> None:
    """Train the variants that are still missing, and print and plot their errors."""
    chairs = open_chairs(data)
    with progress("training") as update:
        results = measure_capacity(
            chairs, output, steps=steps, styles=styles, device=device, progress=update
        )
    plot_capacity(output / "capacity.png", results)
    rows = [
        [name, f"{r['parameters'] / 1e6:.2f} M", f"{r['mse']:.4f}", f"{r['iou']:.4f}"]
        for name, r in results.items()
    ]
    console.print_table([["", "parameters", "MSE", "IoU"], *rows])


if __name__ == "__main__":
    main()
