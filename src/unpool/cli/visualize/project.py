"""`unpool visualize project`: what in an image has excited the units of a layer."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool import Progress
from unpool.cli import console
from unpool.cli.images import Record, each_image
from unpool.cli.options import DEVICE, JSON, QUIET, make_folder, several_units, typed
from unpool.cli.visualize.options import (
    LAYERS,
    MODEL,
    RULE,
    output_option,
    place,
    show_layers,
    take_model,
    take_rules,
)
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.vision.sources import Source
    from unpool.visualize.preprocessing import LoadedModel
    from unpool.visualize.projections import ProjectionWriter, ScoreWriter


@click.command()
@click.argument("inputs", nargs=-1)
@MODEL
@LAYERS
@several_units("A map to look at, from 0; can be given several times.  [default: the strongest]")
@click.option(
    "--place",
    callback=place,
    metavar="max|all|ROW,COLUMN",
    help="Which activation of the map: the largest, all, or that one.  [default: max]",
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME|NUMBER",
    help="With --layer score: a class whose score is projected, from all places where it is "
    "predicted; can be given several times.  [default: all that are predicted but background]",
)
@RULE
@output_option("projected")
@DEVICE
@JSON
@QUIET
def project(
    inputs: tuple[str, ...],
    list_layers: bool,
    output: Path,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Project activations down to the pixels that excited them.

    INPUTS are images, folders, patterns, lists of paths (.txt), or - for the standard input.

    For cat.jpg this writes OUTPUT/cat.input.png, the square that the network sees, as large;
    OUTPUT/cat.LAYER.png for each layer, or OUTPUT/cat.LAYER.UNIT.png where units are named; and
    OUTPUT/cat.json, which describes them. Zero is mid-gray.

    Of a network that segments, --layer score is the score of a class where that is predicted:
    OUTPUT/cat.score.CLASS.png.

    What cannot be read is reported, the rest is done, and the exit code is 3.

    With --json, the line of an image has source, model, options (those given), input, seconds and
    projections: layer, unit, place, value (the activation there), box (what the unit sees, in the
    square) and file, of a score also class and share (of the square); or source and error.

    \b
    Example: unpool visualize project photo.jpg --layer trunk.stages.4 --unit 7 -o out
             unpool visualize project photo.jpg --layer score --class dog -o out
    """
    loaded = take_model(options)
    if list_layers:
        return show_layers(loaded, as_json)
    from unpool.vision.sources import find_images, spare_inputs

    found = find_images(inputs, output)
    writer = _writer(loaded, options)
    files = [file for s in found.sources for file in writer.files(output / str(s.name))]
    spare_inputs(found.sources, files)
    make_folder(output)

    def make(source: "Source", _: Progress) -> Record:
        return writer.write(source.read(), output / str(source.name))

    return each_image(found, make, _text, what="projecting", as_json=as_json, quiet=quiet)


def _writer(loaded: "LoadedModel", options: dict[str, Any]) -> "ProjectionWriter | ScoreWriter":
    """What the options ask for: units of layers, or scores of classes."""
    from unpool.visualize.activations import SCORE, list_layers
    from unpool.visualize.projections import ProjectionWriter, ScoreWriter

    layers, units = options.pop("layers"), options.pop("units")
    classes, shown = options.pop("classes"), typed({"color": options.pop("color")})
    own = SCORE in layers and SCORE in [
        n for n, *_ in list_layers(loaded.model, loaded.trial_image())
    ]
    if not classes and (SCORE not in layers or own):
        return ProjectionWriter(loaded, layers, units, **shown, **take_rules(options))
    if set(layers) - {SCORE} or units or options.pop("place"):
        raise OptionError(
            f"got --layer {SCORE} or --class with another layer, --unit or --place; a score is "
            "taken from all places where its class is predicted: leave them out"
        )
    numbers = [loaded.find_class(name) for name in classes]
    return ScoreWriter(loaded, numbers, **shown, **take_rules(options))


def _text(record: Record) -> str:
    """A line for each projection."""
    lines = []
    for shown in record["projections"]:
        where = "all of it" if shown["place"] is None else "at {}, {}".format(*shown["place"])
        unit = f"unit {shown['unit']}"
        if "class" in shown:
            unit, where = shown["class"], f"{console.percent(shown['share'])} % of it"
        what = f"{shown['layer']} {unit}, {where}: {shown['value']:.4g}"
        lines.append(f"{record['source']}: {what}, {shown['file']}")
    return "\n".join(lines)
