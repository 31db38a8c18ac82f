"""`unpool generate compare`: generated views beside held-out views and simple baselines."""

from pathlib import Path
from typing import Any

import click

from unpool.cli import console
from unpool.cli.generate.options import IMAGES, SCALE, SHARED, output
from unpool.cli.progress import progress
from unpool.errors import OptionError


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Rendered views, as `unpool render` writes them.",
)
@SCALE
@output("compare.png", *IMAGES)
@SHARED
def compare(data: Path, scale: int, output: Path, **options: Any) -> None:
    """Compare generated views with held-out views, and with baselines that need no network.

    The views are those at the azimuths that were held out from training. The baselines are the two
    neighboring views, blended pixel by pixel, and the nearest view. The rows of the sheet are, from
    the top, the truth, the network, blending and the nearest view.

    With --json, there is an object with output, views (their number), mse (over all pixels, colors
    inside the mask), mse_inside (inside the true mask) and network_better (the fraction of views
    on which the network has the lower error).

    \b
    Example: unpool generate compare --data RENDERS -o compare.png
    """
    from unpool.cards import read_card
    from unpool.generate import Generator, compare_views
    from unpool.generate.batches import split_views
    from unpool.generate.result import enlarge
    from unpool.rendering.dataset import AZIMUTHS, open_chairs, read_views
    from unpool.vision.images import write_image

    weights = options["weights"]
    generator = Generator.from_pretrained(weights, device=options["device"] or "auto")
    recipe = read_card(weights).get("recipe")
    held = recipe.get("held_out") if isinstance(recipe, dict) else None
    known = range(len(AZIMUTHS))
    if not (isinstance(held, list) and held and all(type(n) is int and n in known for n in held)):
        raise OptionError(
            f"the card of {weights} names no azimuths that were held out; use other weights"
        )
    chairs = open_chairs(data)
    hidden = split_views(chairs, tuple(held))[1].tolist()
    with progress("reading", options["quiet"]) as show:
        images = read_views(chairs, generator.size, progress=show)
    found = compare_views(generator, chairs, images, hidden)
    write_image(output, enlarge(found.sheet(), scale))
    facts = found.to_dict()
    if options["as_json"]:
        console.print_json({"output": str(output), **facts})
    elif not options["quiet"]:
        ways, views = list(found.images), facts.pop("views")
        rows = [[name, *(_figure(own.get(way)) for way in ways)] for name, own in facts.items()]
        console.print_table([[f"{views} views", *ways], *rows])
        click.echo(f"{output}: truth, {', '.join(ways)}")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
