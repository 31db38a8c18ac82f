"""Finetuning for new classes: mean IoU on val by minutes of training and by number of images.

    python -m experiments.finetune --data camvid -o docs --runs runs

For 10, 30, 100 and all images of train, evenly spaced, and for 2, 5, 10 and 30 minutes of
training, it trains `finetune` and `finetune-fcn8s` and evaluates them on val, whole images. The
training run holds out a fifth of the images given to keep the best weights, so val chooses nothing.

Minutes are those of two quiet cores with bf16 instructions: a run has as many steps as were
measured there (`STEPS_A_MINUTE`), so on a slower or busier machine it takes longer and gives the
same figure. `finetune.json` has each result, `finetune.md` the table; interrupted runs are resumed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

import unpool
from experiments.results_file import ResultsFile
from experiments.train_once import train_once
from unpool.data import open_data, read_sample
from unpool.data.datasets import DataSet
from unpool.files import atomic
from unpool.recipes import find_recipe
from unpool.vision.images import write_mask

STEPS_A_MINUTE = {"finetune": 40, "finetune-fcn8s": 100}
MINUTES = 2, 5, 10, 30
IMAGES = 10, 30, 100, 0  #: 0 for all


def spaced(items: Sequence[Any], count: int) -> list[Any]:
    """`count` items, evenly spaced.

    >>> spaced(range(10), 3)
    [0, 3, 6]
    """
    return [items[i * len(items) // count] for i in range(count)]


def write_subset(data: DataSet, count: int, folder: Path) -> Path:
    """Write a folder of images and masks, as users have it, with some images of a data set."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for sample in spaced(data.samples, count):
        link = folder / "images" / sample.image.name
        if not link.exists():
            link.symlink_to(sample.image.resolve())
        _, labels = read_sample(sample, len(data.classes))
        write_mask(folder / "masks" / f"{link.stem}.png", labels)
    (folder / "classes.txt").write_text("\n".join(data.classes) + "\n")
    return folder


def measure(data: Path, recipe: str, count: int, minutes: int, runs: Path) -> dict[str, Any]:
    """Train for some minutes on some images, and evaluate on val."""
    train = open_data(data, "train")
    count = count or len(train.samples)
    subset = write_subset(train, count, runs / f"data-{count}")
    run = runs / f"{recipe}-{count}-{minutes}"
    steps = minutes * STEPS_A_MINUTE[recipe]
    train_once(subset, run, find_recipe(recipe, steps=steps))
    found = unpool.evaluate(run, data, split="val", mode="whole")
    kept = ("miou", "miou_interval", "pixel_accuracy", "iou", "protocol")
    return {"images": count, "steps": steps, **{key: found[key] for key in kept}}


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A table in Markdown: a row for each recipe and number of images, a column for each time.

    >>> cell = {"images": 30, "miou": 0.499, "miou_interval": [0.492, 0.505]}
    >>> print(table({"finetune 30 2": cell}))
    | recipe | images | 2 min | 5 min | 10 min | 30 min |
    |---|---|---|---|---|---|
    | `finetune` | 30 | 49.9 (49.2 to 50.5) |  |  |  |
    """
    head = ["recipe", "images", *(f"{minutes} min" for minutes in MINUTES)]
    lines = [head, ["---"] * len(head)]
    for recipe in STEPS_A_MINUTE:
        for count in IMAGES:
            cells = [found.get(f"{recipe} {count} {minutes}") for minutes in MINUTES]
            if known := [cell for cell in cells if cell]:
                lines.append([f"`{recipe}`", str(known[0]["images"]), *map(_percent, cells)])
    return "\n".join(f"|{'|'.join(line)}|" if line[0] == "---" else f"| {' | '.join(line)} |"
                     for line in lines)  # fmt: skip


def _percent(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    low, high = (100 * end for end in cell["miou_interval"])
    return f"{100 * cell['miou']:.1f} ({low:.1f} to {high:.1f})"


@click.command()
@click.option("--data", type=Path, required=True, help="Folder with the splits train and val.")
@click.option("--recipe", "recipes", multiple=True, type=click.Choice([*STEPS_A_MINUTE]))
@click.option("--images", multiple=True, type=int, help="Of train; 0 for all.")
@click.option("--minutes", multiple=True, type=int, help="Of training.")
@click.option("--runs", type=Path, default=Path("runs/finetune"), show_default=True)
@click.option("-o", "--output", type=Path, default=Path("docs"), show_default=True)
def main(
    data: Path,
    recipes: Sequence[str],
    images: Sequence[int],
    minutes: Sequence[int],
    runs: Path,
    output: Path,
) -> None:
    """Train and measure what is not yet known, the shortest runs first, and write the table."""
    protocol = {"data": data.name, "steps a minute": STEPS_A_MINUTE}
    stored = ResultsFile(output / "finetune.json", protocol)
    for time in minutes or MINUTES:
        for count in images or IMAGES:
            for recipe in recipes or STEPS_A_MINUTE:
                key = f"{recipe} {count} {time}"
                if key not in stored.results:
                    stored.add(key, measure(data, recipe, count, time, runs))
                click.echo(f"{key}: {_percent(stored.results[key])}")
    with atomic(output / "finetune.md") as temporary:
        temporary.write_text(table(stored.results) + "\n")


if __name__ == "__main__":
    main()
