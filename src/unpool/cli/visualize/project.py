"""`unpool visualize project`: what in an image excites the units of a layer."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli.console import percent
from unpool.cli.options import REDO, position, several_units
from unpool.cli.visualize.options import PROJECTION, Job, command, layer_options
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.sources import Source
    from unpool.visualize.projections import ProjectionWriter, ScoreWriter


@command(
    "projected",
    *layer_options(),
    several_units("A map to project, from 0; repeatable.  [default: the strongest]"),
    click.option(
        "--place",
        callback=position("max", "all"),
        metavar="max|all|ROW,COLUMN",
        help="Which activations of the map: the largest, all, or a single one.  [default: max]",
    ),
    click.option(
        "--class",
        "classes",
        multiple=True,
        metavar="NAME|NUMBER",
        help="A class whose score is projected, from all places where it is predicted; implies "
        "--layer score, and fails for images without it; repeatable.  [default: with --layer "
        "score, all classes but background that cover 1 % of the square]",
    ),
    *PROJECTION,
    REDO,
)
def project(job: Job, **options: Any) -> int:
    """Project activations down to the pixels that excite them.

    INPUTS are images, folders, patterns, lists of paths (.txt), or - for the standard input.

    For cat.jpg this writes OUTPUT/cat.input.png, the square that the network sees;
    OUTPUT/cat.LAYER.png for each layer, or OUTPUT/cat.LAYER.UNIT.png where units are named; and
    OUTPUT/cat.json, which describes them. All have the size of the square. Zero is mid-gray.

    For a network that segments, --layer score is the score of a class where it is predicted:
    OUTPUT/cat.score.CLASS.png. Unreadable images are reported and skipped (exit code 3).

    With --json, the line of an image has source, model, options (those given), input, seconds and
    projections: layer, unit, place, value (the activation there), box (the receptive field, in the
    square) and file, and for a score also class and fraction (of the square where it is predicted);
    or source and error.

    \b
    Example: unpool visualize project photo.jpg --layer trunk.stages.4 --unit 7 -o out
             unpool visualize project photo.jpg --layer score --class dog -o out
    """
    writer = _writer(job, **options)

    def make(source: "Source", stem: Path, _: "Progress") -> dict[str, Any]:
        return writer.write(source.read(), stem)

    return job.each_image("projecting", make, _text, writer.files)


def _writer(
    job: Job,
    layers: tuple[str, ...],
    units: tuple[int, ...],
    classes: tuple[str, ...],
    **options: Any,
) -> "ProjectionWriter | ScoreWriter":
    """The writer for units of layers, or for scores of classes."""
    from unpool.visualize.activations import SCORE, list_layers
    from unpool.visualize.projections import ProjectionWriter, ScoreWriter

    loaded = job.loaded
    if not classes and (
        SCORE not in layers
        or SCORE in [layer.name for layer in list_layers(loaded.model, loaded.trial_image())]
    ):  # a module of this name is a layer as any other
        return ProjectionWriter(loaded, layers, units, **options)
    if set(layers) - {SCORE} or units or "place" in options:
        raise OptionError(
            f"got --layer {SCORE} or --class with another layer, --unit or --place; a score is of "
            "all places where its class is predicted: leave them out"
        )
    return ScoreWriter(loaded, [loaded.find_class(name) for name in classes], **options)


def _text(record: dict[str, Any]) -> str:
    lines = []
    for shown in record["projections"]:
        where = "all of it" if shown["place"] is None else "at {}, {}".format(*shown["place"])
        unit = f"unit {shown['unit']}"
        if "class" in shown:
            covered = percent(shown["fraction"]) if shown["fraction"] >= 0.0005 else "less than 0.1"
            unit, where = shown["class"], f"predicted on {covered} % of the square"
        what = f"{shown['layer']} {unit}, {where}: {shown['value']:.4g}"
        lines.append(f"{record['source']}: {what}, {shown['file']}")
    return "\n".join(lines)
