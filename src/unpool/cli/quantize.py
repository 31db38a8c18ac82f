"""`unpool quantize`: prepare weights for --precision int8."""

from pathlib import Path
from typing import Any

import click

from unpool.cli import console
from unpool.cli.options import FROM_ONE, JSON, QUIET, Folder, typed


@click.command()
@click.argument("weights", metavar="NAME|FOLDER")
@click.option(
    "--data",
    metavar="FOLDER",
    required=True,
    help="Images such as the network will see, without labels; the folder is searched recursively.",
)
@click.option(
    "-o",
    "--output",
    type=Folder(),
    required=True,
    help="Where a copy of the weights is written, for use as --weights; or the folder of the "
    "weights themselves.",
)
@click.option("--images", type=FROM_ONE, help="Images that are measured.  [default: 32]")
@click.option(
    "--agreement",
    type=click.FloatRange(0, 1),
    help="Fraction of pixels that must keep the label of fp32; layers that lose most stay in "
    "floating point until they do.  [default: 0.95]",
)
@JSON
@QUIET
def quantize(
    weights: str, data: str, output: Path, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Measure the maps of a network on images, for segmenting with --precision int8.

    A DeconvNet, FCN or SegNet. The scales are written beside the weights, to int8.json. It takes a
    minute or two.

    With --json, the object has weights (the folder), images, labels_equal (the fraction of pixels
    with the label of fp32), int8 (the number of layers), and floating_point (the other layers).

    \b
    Example: unpool quantize runs/x --data photos -o x-int8
             unpool segment photo.jpg --weights x-int8 --precision int8
    """
    from unpool.segment.quantize import quantize as application

    with console.progress("calibrating", quiet) as show:
        facts = application(weights, data, output, progress=show, **typed(options))._asdict()
    if as_json:
        console.print_json(facts)
    elif not quiet:
        console.print_facts(facts)
