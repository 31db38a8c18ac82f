"""Plot the curves of a training run: the loss and the validations over the steps."""

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from unpool.vision.figures import plot

CURVES = "plots/curves.png"


def curves_missing(figure: str = CURVES) -> str:
    """The reason why a figure cannot be plotted; empty if matplotlib is there."""
    if find_spec("matplotlib") is not None:
        return ""
    return f"{figure} is left out, because matplotlib is missing: pip install matplotlib"


def plot_curves(folder: Path, panels: Sequence[Mapping[str, str]]) -> None:
    """Plot `metrics.jsonl` of a run folder to `plots/curves.png`. Needs matplotlib.

    Args:
        folder: of the run.
        panels: for each panel beside that of the loss, names in `metrics.jsonl` and their titles.
            Metrics of the same scale go into one panel.
    """
    panels = [{"loss": "loss"}, *panels]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    size = 4.5 * len(panels), 3.5
    with plot(folder / CURVES, size, columns=len(panels), squeeze=False) as grid:
        for axes, names in zip(grid[0], panels, strict=True):
            for name, title in names.items():
                points = [(r["n"], r[name]) for r in records if name in r]
                if points:
                    marker = "" if name == "loss" else "."
                    axes.plot(*zip(*points, strict=True), linewidth=1, marker=marker, label=title)
            axes.set(xlabel="step", title=", ".join(names.values()))
            axes.grid(alpha=0.3)
            if len(axes.get_lines()) > 1:
                axes.legend()
