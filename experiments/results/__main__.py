"""The command `python -m experiments.results`."""

import json
import platform
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from experiments.results.measure import kept, measure, precisions
from experiments.results.page import page, plot_confidence, plot_proposals
from experiments.results.rows import PROPOSALS, TABLE, rows
from unpool.cards import Card, find_partner, read_card
from unpool.data.mixture import open_parts, parse_part
from unpool.files import atomic, write_json
from unpool.segment.ensemble import EDeconvNet
from unpool.vision.drawing import overlay
from unpool.vision.figures import contact_sheet
from unpool.vision.images import read_image, write_image

PHOTOS = ("chelsea", "astronaut", "motorcycle_left", "coffee", "camera", "rocket")


def figure(both: EDeconvNet, instances: bool) -> NDArray[np.uint8]:
    """A row for each photo that scikit-image ships, a column for each row of the table."""
    columns = 0
    tiles = []
    for name in PHOTOS:
        folder = resources.files("skimage") / "data"
        paths = [Path(str(folder / f"{name}{suffix}")) for suffix in (".png", ".jpg")]
        image = read_image(next(path for path in paths if path.exists()))
        found = {row.name: row.labels for row in rows(image, both, instances)}
        shown = [row for row in TABLE if row in found]
        tiles.append((image, name))
        tiles += [(overlay(image, found[row], both.palette, both.classes), row) for row in shown]
        columns = 1 + len(shown)
    return contact_sheet(tiles, columns=columns)


CHOSEN = "Nothing of either network was chosen by these images."


def describe(
    both: EDeconvNet, cards: dict[str, Card], data: Sequence[str], rows: dict[str, Any]
) -> dict[str, Any]:
    """What the page says about the measurement."""
    every = rows.get("all", next(iter(rows.values())))
    first = both.deconvnet
    crf = first.crf or "edeconvnet, as published"
    return {
        "protocol": every["FCN-8s"]["protocol"].replace("; FCN-8s", ""),
        "command": f'make results DATA="{" ".join(Path(part).name for part in data)}"'
        + " WHOLE=1" * ("EDeconvNet" not in rows["all" if "all" in rows else next(iter(rows))]),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"{str(first.dtype).removeprefix('torch.')}, no GPU",
        "weights": "`objects` and `objects-fcn8s`",
        "settings": f"Ensemble: {both.weight:g} : {1 - both.weight:g} {both.ensemble}, dense CRF: "
        f"{crf}, {PROPOSALS} proposals, aggregation: {first.aggregate}, class presence threshold: "
        f"{first.presence_threshold:g}, of the FCN alone {both.fcn.presence_threshold:g}",
        "presence_threshold": f"{first.presence_threshold:g}",
        "class_images": {name: card.more.get("class_images", {}) for name, card in cards.items()},
        "chosen": CHOSEN,
    }


@click.command()
@click.option("--data", multiple=True, required=True, help="FOLDER[:SPLIT]; may be repeated.")
@click.option("--whole", is_flag=True, help="Without object proposals, which is far quicker.")
@click.option("--weights", default="objects", show_default=True, help="With a partner.")
@click.option("--runs", type=Path, default=Path("runs"), show_default=True)
@click.option("-o", "--output", type=Path, default=Path("docs"), show_default=True)
def main(data: Sequence[str], whole: bool, weights: str, runs: Path, output: Path) -> None:
    """Measure, and write the page."""
    both = EDeconvNet.from_pretrained(weights, precision="fp32")  # the same on all machines
    parts = {}
    for text in data:
        part = open_parts([parse_part(text)], "val")
        parts[part.title] = part
    known = "-".join(read_card(name).sha256[:8] for name in (weights, find_partner(weights)))
    settings = [both.describe(crf="auto"), str(both.deconvnet.temperature), str(whole)]
    key = " ".join([known, *parts, *settings])
    first = next(iter(parts.values()))
    folder = runs / "results"
    images = folder / f"{known}-{sha256(key.encode()).hexdigest()[:8]}"
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "rows": lambda: measure(parts, both, images, not whole),
        "precisions": lambda: precisions(first, weights),
    }
    measured = {name: kept(folder / f"{name}.json", key, way) for name, way in ways.items()}
    results = {**measured["rows"], "precisions": measured["precisions"]}
    cards = {"DeconvNet": read_card(weights), "FCN": read_card(find_partner(weights))}
    about = describe(both, cards, data, results["rows"])
    write_json(output / "results.json", {"about": about, **results})
    every = results["rows"].get("all", next(iter(results["rows"].values())))
    plot_proposals(every, output / "results-proposals.png")
    plot_confidence(every, output / "results-confidence.png")
    write_image(output / "results-figure.jpg", figure(both, not whole))
    with atomic(output / "results.md") as temporary:
        temporary.write_text(page(results, about))
    for title, summaries in results["rows"].items():
        found = {name: summaries[name]["miou"] for name in TABLE if name in summaries}
        click.echo(f"{title}: {json.dumps(found)}")


if __name__ == "__main__":
    main()
