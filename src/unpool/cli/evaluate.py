"""`unpool evaluate`: accuracy of a segmentation network on labeled images."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from unpool.cards import MODES
from unpool.cli import console, options
from unpool.files import atomic, write_json
from unpool.recipes.presets import INSTANCES


@click.command()
@options.WEIGHTS
@options.DATA
@click.option(
    "--split",
    default="val",
    help="The part of the data: val, train, or another that it has; all for every image.  "
    "[default: val]",
)
@options.BY_COLOR
@options.CROWD
@options.choice(
    "--mode",
    [*MODES, "both"],
    "How to segment: whole images, instance-wise, both in turn, or large images by tiles.  "
    "[default: both; instance with --preset edeconvnet; whole for an FCN; tiles if the weights are "
    "for tiles]",
)
@options.SEGMENTATION
@click.option(
    "--min-images",
    type=options.FROM_ONE,
    metavar="N",
    help="Take the means over the classes in the truth of at least N images, as rarer ones depend "
    "on one or two; without it, over all in truth or prediction.",
)
@click.option(
    "-o",
    "--output",
    type=options.Folder(),
    metavar="FOLDER",
    help="Folder for summary.json and iou.csv.",
)
@options.JSON
@options.QUIET
def evaluate(
    weights: str,
    data: tuple[str, ...],
    split: str,
    by_color: bool | None,
    crowd: Any,
    mode: str | None,
    min_images: int | None,
    output: Path | None,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> int:
    """Measure a segmentation network on labeled images.

    Images that cannot be used (missing, unreadable, of another size than their mask, with a
    color-coded mask) are dropped and reported; the exit code is then 3, or 2 if none is left.

    With --json, the object has the figures of the default mode and their protocol at the top
    level, and those of each mode under modes.

    Several processes split the images: torchrun --nproc-per-node 2 -m unpool evaluate ...

    \b
    Example: unpool evaluate --data VOC2012 --split val -o figures
    """
    from unpool import distributed
    from unpool.data.mixture import open_parts, parse_part
    from unpool.segment.ensemble import load
    from unpool.segment.evaluate import evaluate as measure

    start = time.perf_counter()
    missing: dict[str, str] = {}
    parts = [parse_part(part) for part in data]
    labeled = open_parts(parts, split, missing=missing, by_color=by_color, crowd=crowd)
    given["device"] = distributed.local(given["device"] or "auto")
    segmenter = load(weights, given["preset"], **options.network_options(given))
    both = ("whole", "instance")
    chosen = segmenter.measured_modes if mode is None else both if mode == "both" else (mode,)
    given = options.typed(given)
    whole = {name: value for name, value in given.items() if name not in INSTANCES}
    settings = {name: whole if name == "whole" and len(chosen) > 1 else given for name in chosen}
    for name in chosen:
        segmenter.describe(name, **settings[name])  # refuses options that do not fit
    with distributed.join(segmenter.device):
        first = distributed.is_main_process()
        if output is not None and first:
            options.make_folder(output)
        modes = {}
        for name in chosen:
            with console.progress(f"evaluating, {name}", quiet or not first) as show:
                own: dict[str, Any] = {"mode": name, "missing": missing, "progress": show}
                own["min_images"] = min_images or 0
                modes[name] = measure(segmenter, labeled, **own, **settings[name])
    if not first:
        return 0  # torchrun ends all processes when one fails
    summary = modes.get(segmenter.mode, modes[chosen[-1]]) | {
        "modes": modes,
        "weights": weights,
        "data": data[0] if len(data) == 1 else list(data),
        "split": split,
        "seconds": round(time.perf_counter() - start, 3),
    }
    if output is not None:
        write_figures(output, summary)
    if as_json:
        console.print_json(summary)
    else:
        print_figures(modes, quiet)
    return 3 if summary["dropped"] else 0


def print_figures(modes: Mapping[str, Mapping[str, Any]], quiet: bool) -> None:
    """Print the dropped images, percentages in a column per mode, and the protocols."""
    from unpool.segment.evaluate import figures

    first, *_ = modes.values()
    for image, message in first["dropped"].items():
        console.print_error(f"dropped {image}: {message}")
    if not quiet:
        columns = [figures(summary) for summary in modes.values()]
        rows = [[title, *(console.percent(c[title]) for c in columns)] for title in columns[0]]
        console.print_table([["%", *modes], *rows])
        for summary in modes.values():
            click.echo(summary["protocol"])


def write_figures(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write `summary.json`, and `iou.csv` with a row per class and a column per mode."""
    write_json(folder / "summary.json", summary)
    columns = [mode["iou"] for mode in summary["modes"].values()]
    with atomic(folder / "iou.csv") as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["class", *summary["modes"]])
        table.writerows([name, *(column[name] for column in columns)] for name in columns[0])
