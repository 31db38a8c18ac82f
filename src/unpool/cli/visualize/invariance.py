"""`unpool visualize invariance`: what shifts, scales and rotations do to features."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from unpool.cli.options import DEVICE, JSON, QUIET, make_folder, typed
from unpool.cli.progress import progress
from unpool.cli.visualize.options import (
    LAYERS,
    MODEL,
    Command,
    find_images,
    numbers,
    output_option,
    report,
    show_layers,
    take_model,
)
from unpool.errors import OptionError


def _range(name: str, what: str, default: str) -> Callable[[Command], Command]:
    return click.option(
        f"--{name}",
        callback=numbers,
        metavar="FROM,TO,STEP",
        help=f"{what}  [default: {default}, if no other range is given]",
    )


@click.command()
@click.argument("inputs", nargs=-1)
@MODEL
@LAYERS
@_range("translation", "Pixels downwards.", "-60,60,5 in 224 pixels")
@_range("scale", "Ratios.", "1,1.8,0.05")
@_range("rotation", "Degrees counterclockwise.", "0,360,15")
@click.option(
    "--class",
    "label",
    metavar="NAME|NUMBER",
    help="The class whose probability is shown.  [default: of each image the most probable]",
)
@output_option("invariance")
@DEVICE
@JSON
@QUIET
def invariance(
    inputs: tuple[str, ...],
    layers: tuple[str, ...],
    list_layers: bool,
    output: Path,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Shift, enlarge and turn images, and see how far their features move.

    INPUTS are images, folders, patterns, or lists of paths (.txt); a handful reads best. --layer
    twice names the first layer and the top one; when not given, they are the last before maps
    shrink for the first time, and the last below the class scores.

    OUTPUT/invariance.png has a row for each transformation: the images, the distance from the
    original in both layers, and the probability of the class, for models that give one. Of a model
    that segments it is the mean over the image. OUTPUT/invariance.json has the numbers.

    What cannot be read is reported, the rest is done, and the exit code is 3.

    With --json, there is one object: output, failed, seconds, and what is in the file.

    \b
    Example: unpool visualize invariance cat.jpg dog.jpg --rotation 0,90,5 -o out
    """
    start = time.perf_counter()
    loaded = take_model(options)
    if list_layers:
        return show_layers(loaded, as_json)
    from unpool.visualize.invariance import TRANSFORMS, measure_invariance

    values = {kind: _spread(kind, options[kind]) for kind in TRANSFORMS if options[kind]}
    label = None if options["label"] is None else loaded.find_class(options["label"])
    chosen = typed({"label": label, "values": values or None})
    images, unusable = find_images(inputs, None, None, output)
    make_folder(output)
    with progress("transforming", quiet) as show:
        found = measure_invariance(loaded, images, layers, progress=show, **chosen)
    found.save(output)

    def show_it() -> None:
        click.echo(f"{len(found.images)} images, into {output / 'invariance.png'}")

    return report(found, unusable, start, output, as_json, None if quiet else show_it)


def _spread(kind: str, given: tuple[float, ...]) -> list[float]:
    """The values from one to another, in steps."""
    if len(given) != 3 or given[2] <= 0 or not given[0] <= given[1] < given[0] + 1e4 * given[2]:
        raise OptionError(
            f"got --{kind} {','.join(f'{v:g}' for v in given)}; wanted FROM,TO,STEP with a step "
            "above 0 and at most 10,000 of them, such as 0,90,5"
        )
    low, high, step = given
    return [round(low + step * i, 9) for i in range(int((high - low) / step + 1e-9) + 1)]
