"""Few masks and many class labels, against the same masks alone: a table of mean IoU on val.

    python -m experiments.decoupled --data VOC --trunk-weights VGG16 -o out

For 5 and 25 masks of each class, drawn by three seeds, it trains a DecoupledNet with these masks
and the classes of all other images of train (`decouplednet-small`), and a DeconvNet with these
masks alone (`ALONE`): the same frozen trunk from VGG-16, image size and width of the code, as many
steps of as many crops. A DeconvNet is DecoupledNet's segmentation network without the bridge, with
a score for each class. Since it has to tell the classes apart, too, it gets what helps with few
images: it grows from coarse to fine, and objects of other images are pasted into its crops.

Each run is a folder of `out`; an interrupted one is resumed, a finished one is read. `out/table.md`
has the mean IoU of each run and the differences, `out/table.json` the same as values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import click

from experiments.hold_out import link_data
from experiments.train_once import train_once
from unpool.data.weak import open_weak
from unpool.files import write_json
from unpool.recipes import SegmentationRecipe, override
from unpool.recipes.decoupled import DECOUPLEDNET_SMALL
from unpool.recipes.segment import Phase

OURS = DECOUPLEDNET_SMALL
ALONE = SegmentationRecipe(
    "deconvnet-alone",
    (
        Phase("10x10", 1, 150, 1e-3, sources=("views", "pasted")),
        Phase("20x20", 2, 200, 5e-4, 3e-4, sources=("views", "pasted")),
        Phase("40x40", 3, 50, 5e-4, 2e-4),
        Phase("80x80", 4, 40, 2e-4, 1e-4),
        Phase("160x160", 5, 60, 3e-4, 1.5e-4, sources=("views", "proposals")),
    ),
    network="DeconvNet",
    code=OURS.seg_code,
    size=OURS.size,
    batch=OURS.batch,
    crop_long_side=(OURS.size, 2 * OURS.size),
    dropout=OURS.dropout,
    balance=0.3,
    long_side=OURS.size,
    validate_every=100,
    save_every=20,
    statistics_passes=OURS.statistics_passes,
)
"""500 steps on a frozen trunk; the network takes squares, as DecoupledNet does."""


def table(found: Mapping[int, Mapping[str, Sequence[float]]]) -> str:
    """A table in Markdown of the mean IoU of each seed, by masks of each class and network.

    >>> print(table({5: {"DecoupledNet": [0.25, 0.27], "alone": [0.18, 0.2]}}))
    | masks a class | network | mean IoU by seed, % | mean ± deviation |
    |--:|---|---|---|
    | 5 | DecoupledNet | 25.0, 27.0 | 26.0 ± 1.4 |
    | 5 | alone | 18.0, 20.0 | 19.0 ± 1.4 |
    | 5 | difference | 7.0, 7.0 | 7.0 ± 0.0 |
    """
    lines = [
        "| masks a class | network | mean IoU by seed, % | mean ± deviation |",
        "|--:|---|---|---|",
    ]
    for masks, rows in found.items():
        ours, alone = rows.values()
        apart = [a - b for a, b in zip(ours, alone, strict=False)]
        for name, values in {**rows, "difference": apart}.items():
            if values:
                each = ", ".join(f"{100 * value:.1f}" for value in values)
                spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
                lines.append(f"| {masks} | {name} | {each} | {100 * fmean(values):.1f}{spread} |")
    return "\n".join(lines)


@click.command()
@click.option("--data", type=Path, required=True, help="Images in VOC's layout.")
@click.option("--trunk-weights", type=Path, required=True, help="VGG-16.")
@click.option("-o", "--output", type=Path, required=True)
@click.option("--strong", type=int, multiple=True, default=(5, 25), show_default=True)
@click.option("--seeds", type=int, default=3, show_default=True)
@click.option("--set", "settings", multiple=True, help="Of both recipes, NAME=VALUE.")
def main(
    data: Path,
    trunk_weights: Path,
    output: Path,
    strong: tuple[int, ...],
    seeds: int,
    settings: tuple[str, ...],
) -> None:
    """Train all networks, and write the table after each."""
    ours, alone = (override(recipe, [*settings]) for recipe in (OURS, ALONE))
    found: dict[int, dict[str, list[float]]] = {}
    for masks in strong:
        rows = found[masks] = {"DecoupledNet": [], "the masks alone": []}
        for seed in range(seeds):
            name = f"strong-{masks}-{seed}"
            chosen = open_weak(data, "train", None, masks, seed).strong.samples
            folder = output / "data" / name
            if not folder.exists():
                link_data(data, folder, {name: [sample.name for sample in chosen]})
            runs = (
                (f"decoupled-{masks}-{seed}", data, "train", replace(ours, strong=masks)),
                (f"alone-{masks}-{seed}", folder, name, alone),
            )
            for values, (title, images, split, recipe) in zip(rows.values(), runs, strict=True):
                options = {"split": split, "trunk_weights": trunk_weights}
                summary = train_once(images, output / title, replace(recipe, seed=seed), **options)
                values.append(float(summary["miou"]))
            (output / "table.md").write_text(table(found) + "\n")
            write_json(output / "table.json", found)
    click.echo(table(found))


if __name__ == "__main__":
    main()
