"""Views that a network has not seen, beside what can be made of their neighbors without one.

The error is the mean squared error of RGB times the mask, 0 to 1: `mse` over all pixels,
`mse_inside` over those whose true mask is a half or more. `network_better` is the share of the
views in which the first is lower than that of the other way. The network has
never seen the azimuths that its recipe holds out; blending and the nearest view have all others of
the same style and elevation. Between two seen views lie 23 degrees.

usage: python benchmarks/views.py --data FOLDER [--weights chairs] [-o docs]
writes generate-views.json and generate-views.jpg
"""

import json
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from unpool.cards import read_card
from unpool.data.chairs import AZIMUTHS, open_chairs, read_views
from unpool.files import atomic
from unpool.generate import Comparison, Generator, compare_views
from unpool.generate.baselines import errors
from unpool.vision.images import write_image
from unpool.visualize.pictures import mosaic

SHOWN = 8


def figure(found: Comparison, shown: int) -> NDArray[np.uint8]:
    """Some views, a column each: the truth, and below it each way."""
    chosen = np.linspace(0, len(found.views) - 1, shown).astype(int)
    rows = [pictures[chosen] for pictures in (found.truth, *found.pictures.values())]
    tiles = np.concatenate(rows)
    on_white = tiles[..., :3] + 1 - tiles[..., 3:]
    return mosaic(np.rint(on_white.clip(0, 1) * 255).astype(np.uint8), shown)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--weights", default="chairs")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("docs"))
def main(data: Path, weights: str, output: Path) -> None:
    """Measure, write, and print one JSON object."""
    card = read_card(weights)
    held = card.get("recipe", {}).get("held_out") or ()
    generator, chairs = Generator.from_pretrained(weights), open_chairs(data)
    azimuths = {AZIMUTHS[number] for number in held}
    hidden = [i for i, view in enumerate(chairs.views) if view.azimuth in azimuths]
    found = compare_views(generator, chairs, read_views(chairs, generator.size), hidden)
    each = {way: errors(pictures, found.truth) for way, pictures in found.pictures.items()}
    better = {w: float((each["network"] < e).mean()) for w, e in each.items() if w != "network"}
    told = {"weights": weights, "views": len(hidden), "mse": found.mse()}
    told |= {"mse_inside": found.mse(inside=True), "network_better": better}
    with atomic(output / "generate-views.json") as temporary:
        temporary.write_text(json.dumps(told, indent=1) + "\n")
    write_image(output / "generate-views.jpg", figure(found, min(SHOWN, len(hidden))))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
