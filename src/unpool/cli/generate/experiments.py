"""`unpool generate compare`, `transfer` and `capacity`: networks that draw, put to the test."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli import console
from unpool.cli.generate.options import IMAGES, SCALE, SHARED, output
from unpool.cli.options import DEVICE, FROM_ONE, JSON, QUIET, Folder, make_folder
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.rendering.dataset import Chairs

DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Rendered views, as `unpool render` makes them.",
)
FOLDER = click.option(
    "-o",
    "--output",
    type=Folder(),
    required=True,
    metavar="FOLDER",
    help="Where results go; begun again with the same, this goes on where it was stopped.",
)
STEPS = click.option(
    "--steps", type=FROM_ONE, default=800, help="Of each training.  [default: 800]"
)


@click.command()
@DATA
@SCALE
@output("compare.png", *IMAGES)
@SHARED
def compare(data: Path, scale: int, output: Path, **options: Any) -> None:
    """Compare views that a network has not seen with the truth, and with what needs no network.

    These are the views at the azimuths that its training held out. Beside it stand the two
    neighboring views, blended pixel by pixel, and the nearest view. The sheet has, from above, the
    truth, the network, blending and the nearest view.

    With --json, there is an object with output, views (their number), mse (over all pixels, colors
    inside the mask), mse_inside (inside the true mask) and network_better (the fraction of views
    on which it is).

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
            f"the card of {weights} names no azimuths that were held out; take others"
        )
    chairs = open_chairs(data)
    hidden = split_views(chairs, tuple(held))[1].tolist()
    with console.progress("reading", options["quiet"]) as show:
        images = read_views(chairs, generator.size, progress=show)
    found = compare_views(generator, chairs, images, hidden)
    write_image(output, enlarge(found.sheet(), scale))
    figures = {
        "mse": found.mse(),
        "mse_inside": found.mse(inside=True),
        "network_better": found.better(),
    }
    if options["as_json"]:
        console.print_json({"output": str(output), "views": len(hidden), **figures})
    elif not options["quiet"]:
        ways = list(found.images)
        rows = [[name, *(_figure(own.get(way)) for way in ways)] for name, own in figures.items()]
        console.print_table([[f"{len(hidden)} views", *ways], *rows])
        click.echo(f"{output}: truth, {', '.join(ways)}")


@click.command()
@DATA
@FOLDER
@STEPS
@click.option(
    "--targets", type=FROM_ONE, default=6, help="Styles seen from few sides.  [default: 6]"
)
@click.option(
    "--seeds", type=FROM_ONE, default=2, help="Repetitions, of other styles.  [default: 2]"
)
@DEVICE
@JSON
@QUIET
def transfer(
    data: Path, output: Path, device: str | None, as_json: bool, quiet: bool, **options: int
) -> None:
    """Measure what it helps to know other objects, if one is seen from few sides.

    Compact networks learn target styles from 1, 2, 4, 8 and 16 azimuths, with all views of the
    other styles and without; what counts is the error at 15 azimuths that are never seen. There
    are 10 trainings for each seed, half an hour on two cores.

    OUTPUT gets transfer.json and, with matplotlib, transfer.png.

    With --json, there is an object with output and curves: by azimuths seen the mean squared
    error, first the mean over the seeds.

    \b
    Example: unpool generate transfer --data RENDERS -o out
    """
    from unpool.generate.transfer import draw_transfer, measure_transfer

    chairs = _opened(data, output)
    with console.progress("training", quiet) as show:
        curves = measure_transfer(chairs, output, device=device or "auto", progress=show, **options)
    if _can_draw(figure := output / "transfer.png", quiet):
        draw_transfer(figure, curves)
    if as_json:
        console.print_json({"output": str(output), "curves": curves})
    elif not quiet:
        counts = next(iter(curves.values()))
        rows = [[name, *(_figure(v[0]) for v in own.values())] for name, own in curves.items()]
        console.print_table([["azimuths seen", *map(str, counts)], *rows])


@click.command()
@DATA
@FOLDER
@STEPS
@click.option("--styles", type=FROM_ONE, default=20, help="The first so many.  [default: 20]")
@DEVICE
@JSON
@QUIET
def capacity(
    data: Path, output: Path, device: str | None, as_json: bool, quiet: bool, **options: int
) -> None:
    """Measure how depth, streams and width of a network show in its error.

    Five compact networks learn the same views, all but every fifth azimuth, and are measured on
    those: some ten minutes on two cores.

    OUTPUT gets capacity.json and, with matplotlib, capacity.png.

    With --json, there is an object with output and variants.

    \b
    Example: unpool generate capacity --data RENDERS -o out
    """
    from unpool.generate.capacity import draw_capacity, measure_capacity

    chairs = _opened(data, output)
    with console.progress("training", quiet) as show:
        found = measure_capacity(chairs, output, device=device or "auto", progress=show, **options)
    if _can_draw(figure := output / "capacity.png", quiet):
        draw_capacity(figure, found)
    if as_json:
        console.print_json({"output": str(output), "variants": found})
    elif not quiet:
        rows = [
            [name, f"{own['parameters'] / 1e6:.2f} M", _figure(own["mse"]), _figure(own["iou"])]
            for name, own in found.items()
        ]
        console.print_table([["", "parameters", "MSE", "IoU"], *rows])


def _opened(data: Path, output: Path) -> "Chairs":
    from unpool.rendering.dataset import open_chairs

    chairs = open_chairs(data)
    make_folder(output)
    return chairs


def _can_draw(figure: Path, quiet: bool) -> bool:
    from unpool.training.run import curves_missing

    missing = curves_missing(figure.name)
    if missing and not quiet:
        console.complain(missing)
    return not missing


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
