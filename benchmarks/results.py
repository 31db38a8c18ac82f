"""Train what is missing, measure every row of the table on one split, and write the page.

    make results DATA=...              # the weights that come with the package
    make results DATA=... TRUNK=...    # trained anew from these VGG weights

writes docs/results.md, docs/results.json, docs/results-proposals.png and docs/results-figure.jpg.
A training that was interrupted is resumed. Every row comes from the same crops and the same code:
a picture's crops are segmented once, and all rows are made of their scores.
"""

import json
import platform
from collections import defaultdict
from importlib import resources
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from unpool.aggregate import Aggregate
from unpool.data import DataSet, open_data, read_sample
from unpool.ensemble import combine
from unpool.evaluate import Measured, compare, summarize
from unpool.files import atomic
from unpool.recipes import RECIPES
from unpool.segment import Segmenter, squares
from unpool.segmentation import conclude
from unpool.train import train
from unpool.vision.drawing import contact_sheet, overlay
from unpool.vision.images import read_image, write_image

COUNTS = (1, 2, 5, 10, 20, 30, 50, 75, 100)
TABLE = (
    "FCN-8s",
    "DeconvNet, whole picture",
    "DeconvNet, instance-wise",
    "DeconvNet, instance-wise + CRF",
    "EDeconvNet",
    "EDeconvNet + CRF",
)
PHOTOS = ("chelsea", "astronaut", "motorcycle_left", "coffee", "camera")

Scores = NDArray[np.float32]


def rows(
    image: NDArray[np.uint8], deconvnet: Segmenter, fcn: Segmenter, crf: str, ensemble: str
) -> dict[str, NDArray[np.uint8]]:
    """The labels of one picture by every row: those of the table, and those of the ablations."""

    def labels(scores: Scores, crf: str | None = None) -> NDArray[np.uint8]:
        return conclude(image, scores, deconvnet.classes, crf=crf).labels

    whole, _ = deconvnet.score(image, mode="whole")
    partner, _ = fcn.score(image, mode="whole")
    found = {"FCN-8s": labels(partner), "DeconvNet, whole picture": labels(whole)}
    merged = {how: Aggregate(len(whole), image.shape[:2], how) for how in ("max", "mean")}
    boxes = squares(image, count=max(COUNTS))
    best: Scores = whole
    for number, (crop, scores) in enumerate(deconvnet.crops(image, boxes), 1):
        for how, one in merged.items():
            one.add(crop, scores)
            if number in COUNTS or number == len(boxes):
                for count in COUNTS:
                    if count == number or (number == len(boxes) and count > number):
                        found[f"{how} of {count}"] = labels(one.scores)
                        if count == 50 and how == deconvnet.aggregate:
                            best = one.scores
    both = combine(best, partner, ensemble)
    found["DeconvNet, instance-wise"] = labels(best)
    found["DeconvNet, instance-wise + CRF"] = labels(best, crf)
    found["EDeconvNet"] = labels(both)
    found["EDeconvNet + CRF"] = labels(both, crf)
    other = {"mean": "product", "product": "mean"}[ensemble]
    found[f"EDeconvNet, {other}"] = labels(combine(best, partner, other))
    found["DeconvNet, whole picture + CRF"] = labels(whole, crf)
    found["EDeconvNet, whole picture"] = labels(combine(whole, partner, ensemble))
    return found


def measure(
    data_root: Path, split: str, deconvnet: Segmenter, fcn: Segmenter, crf: str, ensemble: str
) -> dict[str, dict[str, Any]]:
    """The summary of every row."""
    data = open_data(data_root, split)
    measured: dict[str, list[Measured]] = defaultdict(list)
    with click.progressbar(data.samples, label="measuring") as samples:
        for sample in samples:
            image, truth = read_sample(sample, len(data.classes))
            for name, labels in rows(image, deconvnet, fcn, crf, ensemble).items():
                measured[name].append(compare(sample.name, labels, truth, len(data.classes)))
    summaries = {name: summarize(found, data, name) for name, found in measured.items()}
    common = frequent(data)
    for summary in summaries.values():
        summary["miou_frequent"] = float(np.mean([summary["iou"][name] or 0 for name in common]))
    return summaries


def frequent(data: DataSet, least: int = 3) -> list[str]:
    """The classes that occur in a few pictures at least; the others are one picture's luck."""
    count = np.zeros(256, int)
    for sample in data.samples:
        count[np.unique(read_sample(sample, len(data.classes))[1])] += 1
    return [name for name, found in zip(data.classes, count, strict=False) if found >= least]


def figure(deconvnet: Segmenter, fcn: Segmenter, crf: str, ensemble: str) -> NDArray[np.uint8]:
    """A row for each photo that scikit-image ships, a column for each row of the table."""
    tiles = []
    for name in PHOTOS:
        image = read_image(Path(str(resources.files("skimage") / f"data/{name}.png")))
        found = rows(image, deconvnet, fcn, crf, ensemble)
        tiles.append((image, name))
        for row in TABLE:
            tiles.append((overlay(image, found[row], deconvnet.palette, deconvnet.classes), row))
    return contact_sheet(tiles, columns=1 + len(TABLE))


def plot(summaries: dict[str, dict[str, Any]], path: Path) -> None:
    """Mean IoU against the number of proposals, with its interval, for both aggregations."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6, 3.5), layout="constrained")
    axes = drawn.subplots()
    for how in ("max", "mean"):
        found = [summaries[f"{how} of {count}"] for count in COUNTS]
        low, high = zip(*(s["miou_interval"] for s in found), strict=True)
        axes.plot(COUNTS, [s["miou"] for s in found], marker=".", label=how)
        axes.fill_between(COUNTS, low, high, alpha=0.12)
    axes.axhline(summaries["DeconvNet, whole picture"]["miou"], ls=":", c="k", label="whole")
    axes.set(xlabel="proposals", ylabel="mean IoU", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    with atomic(path) as temporary:
        drawn.savefig(temporary, format="png", dpi=100)


def line(name: str, summary: dict[str, Any]) -> str:
    """A row of a table on the page."""
    low, high = (f"{100 * v:.1f}" for v in summary["miou_interval"])
    names = ("miou_frequent", "pixel_accuracy", "mean_accuracy", "boundary_f1")
    rest = (summary[name] for name in names)
    cells = " | ".join(f"{100 * v:.1f}" for v in rest)
    return f"| {name} | {100 * summary['miou']:.1f} | {low} to {high} | {cells} |"


def page(summaries: dict[str, dict[str, Any]], about: dict[str, str]) -> str:
    """The page, in Markdown."""
    head = (
        "| | mean IoU | 95 % interval | of classes in 3 pictures or more | pixel accuracy "
        "| mean accuracy | boundary F1 |"
    )
    rule = "|---|---|---|---|---|---|---|"
    others = [name for name in summaries if name not in TABLE and " of " not in name]
    counts = [
        f"| {c} | "
        + " | ".join(_cell(summaries[f"{how} of {c}"]) for how in ("max", "mean"))
        + " |"
        for c in COUNTS
    ]
    parts = [
        "# Results",
        f"Made by `{about['command']}`; figures in percent. {about['protocol']}",
        f"Machine: {about['machine']}. Weights: {about['weights']}. Ensemble: {about['ensemble']}, "
        f"dense CRF: `{about['crf']}`, 50 proposals, aggregation: {about['aggregate']}.",
        "\n".join([head, rule, *(line(name, summaries[name]) for name in TABLE)]),
        "![the rows on photos of scikit-image](results-figure.jpg)",
        "## Parts and alternatives",
        "\n".join([head, rule, *(line(name, summaries[name]) for name in others)]),
        "## Number of proposals, and how their scores are put together",
        "\n".join(["| proposals | max | mean |", "|---|---|---|", *counts]),
        "![mean IoU against the number of proposals](results-proposals.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _cell(summary: dict[str, Any]) -> str:
    return f"{100 * summary['miou']:.1f}"


def trained(name: str, runs: Path, data: Path, trunk: Path | None) -> Path:
    """The weights of a recipe's run; it is begun, or gone on with, if they are not there."""
    folder = runs / name
    if not (folder / "weights/card.json").exists():
        click.echo(f"training {name}")
        command = f"unpool train {name} --data {data.name} -o {folder}"
        train(data, folder, RECIPES[name], trunk_weights=trunk, resume=True, command=command)
    return folder / "weights"


@click.command()
@click.option("--data", type=Path, required=True, help="A folder of labeled pictures.")
@click.option("--split", default="val", show_default=True)
@click.option("--trunk-weights", type=Path, help="VGG weights, for what is still to be trained.")
@click.option("--runs", type=Path, default=Path("runs"), show_default=True)
@click.option("--shipped", is_flag=True, help="Measure the weights that come with the package.")
@click.option("--crf", default="edeconvnet", show_default=True)
@click.option("--ensemble", default="mean", show_default=True)
@click.option("-o", "--output", type=Path, default=Path("docs"), show_default=True)
def main(
    data: Path,
    split: str,
    trunk_weights: Path | None,
    runs: Path,
    shipped: bool,
    crf: str,
    ensemble: str,
    output: Path,
) -> None:
    """Train, measure, and write the page."""
    names = (
        ["objects", "objects-fcn8s"]
        if shipped
        else [str(trained(name, runs, data, trunk_weights)) for name in ("objects", "fcn8s")]
    )
    deconvnet, fcn = (Segmenter.from_pretrained(name) for name in names)
    summaries = measure(data, split, deconvnet, fcn, crf, ensemble)
    about = {
        "protocol": summaries["FCN-8s"]["protocol"].replace("; FCN-8s", ""),
        "command": f"make results DATA={data.name}" + ("" if shipped else " TRUNK=..."),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"{str(deconvnet.dtype).removeprefix('torch.')}, no GPU",
        "weights": " and ".join(f"`{name}`" for name in names),
        "ensemble": ensemble,
        "crf": crf,
        "aggregate": deconvnet.aggregate,
    }
    with atomic(output / "results.json") as temporary:
        temporary.write_text(json.dumps({"about": about, "rows": summaries}, indent=1) + "\n")
    plot(summaries, output / "results-proposals.png")
    write_image(output / "results-figure.jpg", figure(deconvnet, fcn, crf, ensemble))
    with atomic(output / "results.md") as temporary:
        temporary.write_text(page(summaries, about))
    for name in TABLE:
        click.echo(f"{name}: {_cell(summaries[name])}")
    click.echo(json.dumps({name: summaries[name]["miou"] for name in TABLE}))


if __name__ == "__main__":
    main()
