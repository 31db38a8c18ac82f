"""The command `python -m experiments.compare`."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from experiments.compare.networks import (
    ENSEMBLE,
    NETWORKS,
    PARTS,
    describe,
    load,
    measure,
    seconds,
    train,
)
from experiments.compare.page import figure, page
from experiments.results_file import ResultsFile
from unpool.data import read_sample
from unpool.data.mixture import open_parts, parse_part
from unpool.errors import suggest
from unpool.files import atomic, sha256, write_json
from unpool.vision.images import write_image

IMAGES = 4  #: of the figure


@click.command()
@click.option("--data", multiple=True, required=True, help="FOLDER[:SPLIT]; may be repeated.")
@click.option("--trunk-weights", type=Path, help="VGG-16, from which all start.")
@click.option("--only", multiple=True, help="Networks, by name; all by default.")
@click.option("--steps", default=1.0, show_default=True, help="Factor of the steps of training.")
@click.option("--rounds", default=5, show_default=True, help="Of timing.")
@click.option("--runs", type=Path, default=Path("runs"), show_default=True)
@click.option("-o", "--output", type=Path, default=Path("docs"), show_default=True)
def main(
    data: Sequence[str],
    trunk_weights: Path | None,
    only: Sequence[str],
    steps: float,
    rounds: int,
    runs: Path,
    output: Path,
) -> None:
    """Train, measure, and write the page."""
    for name in only:
        if name not in NETWORKS:
            raise click.UsageError(f"got --only {name!r}; {suggest(name, NETWORKS)}")
    names = [name for name in NETWORKS if not only or name in only]
    folder = runs / "compare"
    weights = {name: train(name, data, folder, trunk_weights, steps) for name in names}
    segmenters = load(weights)
    hashes = {name: sha256(path / "model.safetensors")[:8] for name, path in weights.items()}
    parts = " ".join(Path(part).name for part in data)
    stored = ResultsFile(folder / "figures.json", {"data": parts, "steps": steps})
    rows: dict[str, dict[str, Any]] = {}
    for name, segmenter in segmenters.items():
        own = " ".join(hashes[part] for part in (PARTS if name == ENSEMBLE else (name,)))
        crf = NETWORKS["DeconvNet" if name == ENSEMBLE else name].crf
        for title, refined in ((name, None), (f"{name} + CRF", crf)):
            if refined is None and title != name:
                continue
            key = f"{title} {own}"
            if key not in stored.results:
                stored.add(key, measure(segmenter, data, refined))
            rows[title] = dict(stored.results[key])
        if name in weights:
            rows[name] |= describe(name, weights[name])
    for name, value in seconds(segmenters, rounds).items():
        rows[name]["seconds"] = value
    about = {
        "command": f"python -m experiments.compare --data {parts}"
        + (f" --trunk-weights {trunk_weights.name}" if trunk_weights else "")
        + (f" --steps {steps:g}" if steps != 1 else ""),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, no GPU",
        "protocol": next(iter(rows.values()))["protocol"],
    }
    write_json(output / "compare.json", {"about": about, "rows": rows})
    labeled = open_parts([parse_part(part) for part in data], "val")
    every = labeled.samples[:: max(len(labeled.samples) // IMAGES, 1)][:IMAGES]
    images = [read_sample(sample, len(labeled.classes))[0] for sample in every]
    write_image(
        output / "compare.jpg", figure(segmenters, images, [sample.name for sample in every])
    )
    with atomic(output / "compare.md") as temporary:
        temporary.write_text(page(rows, about))
    for title, row in rows.items():
        click.echo(f"{title}: {100 * row['miou']:.1f} %")


if __name__ == "__main__":
    main()
