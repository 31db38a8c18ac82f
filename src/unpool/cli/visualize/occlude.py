"""`unpool visualize occlude`: what of an image must be hidden for a network to be at a loss."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool import Progress
from unpool.cli import console
from unpool.cli.images import Record, each_image
from unpool.cli.messages import with_flags
from unpool.cli.options import DEVICE, FROM_ONE, JSON, QUIET, make_folder
from unpool.cli.visualize.options import (
    MODEL,
    output_option,
    show_layers,
    take_model,
    take_rules,
)
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.vision.sources import Source
    from unpool.visualize.preprocessing import LoadedModel

_ENDINGS = ("occlusion.png", "occlusion.json")


@click.command()
@click.argument("inputs", nargs=-1)
@MODEL
@click.option(
    "--classes",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Names of the classes, one a line.  [default: those of the weights]",
)
@click.option(
    "--class",
    "target",
    metavar="NAME|NUMBER",
    help="The class that is asked for.  [default: the most probable; of a network that segments, "
    "the object with the most pixels]",
)
@click.option(
    "--layer",
    metavar="NAME",
    help="Of a classifier: whose strongest map is looked at.  [default: the last with maps of more "
    "than a pixel]",
)
@click.option("--list-layers", is_flag=True, help="Show the layers, and do nothing else.")
@click.option(
    "--occluder",
    "window",
    type=FROM_ONE,
    help="Side of the occluder in pixels.  [default: a fifth of the square]",
)
@click.option(
    "--stride",
    type=FROM_ONE,
    help="Pixels from one stop to the next.  [default: half the occluder]",
)
@click.option(
    "--rule",
    metavar="deconvnet|guided|saliency|CODE",
    help="Of the projection, as of `unpool visualize project`.  [default: deconvnet]",
)
@click.option(
    "--activations",
    multiple=True,
    metavar="[NAME=]relu|gradient|constant",
    help="Likewise: what to do with functions that have no rule.  [default: leave the projection "
    "out]",
)
@output_option("occluded")
@DEVICE
@JSON
@QUIET
def occlude(
    inputs: tuple[str, ...],
    classes: Path | None,
    list_layers: bool,
    output: Path,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Slide a gray square over images, and see what the network makes of them.

    INPUTS are images, folders, patterns, lists of paths (.txt), or - for the standard input.

    For cat.jpg this writes OUTPUT/cat.occlusion.png and OUTPUT/cat.occlusion.json. Of a classifier
    they show, for every stop, the total activation of the map that is strongest with nothing
    hidden, beside its projection, if the rule allows one; the probability of the class; and the
    most probable class. Of a network that segments, the IoU of the object's region with what is
    found of it without the square, outside of it. Networks that are chains of layers are computed
    anew only where the square changes something, to the same result.

    What cannot be read is reported, the rest is done, and the exit code is 3.

    With --json, the line of an image has source, figure, facts (both files), class, name, lowest
    (the probability or IoU where it is lowest), lowest_box (the square there) and seconds, of a
    classifier also value (the probability with nothing hidden), "exact incremental" (yes or no)
    and unprojected (why there is no projection, or nothing); or source and error.

    \b
    Example: unpool visualize occlude photo.jpg --torch-model nets:build --classes names.txt
    """
    loaded = take_model(options)
    if list_layers:
        return show_layers(loaded, as_json)
    from unpool.vision.sources import find_images, spare_inputs

    if classes is not None:
        loaded = replace(loaded, classes=_names(classes))
    run = _runner(loaded, take_rules(options), quiet or as_json)
    found = find_images(inputs, output)
    files = [output / f"{s.name}.{end}" for s in found.sources for end in _ENDINGS]
    spare_inputs(found.sources, files)
    make_folder(output)

    def make(source: "Source", progress: Progress) -> Record:
        return _occlude(loaded, run, source, output, progress)

    return each_image(found, make, _text, what="occluding", as_json=as_json, quiet=quiet)


Run = Callable[..., Any]
"""`occlude` or `occlude_region` with their options, for images (1, 3, H, W)."""


def _runner(loaded: "LoadedModel", options: dict[str, Any], quiet: bool) -> Run:
    """What to do with an image; what does not fit the model is refused at once."""
    from unpool.visualize.activations import (
        SCORE,
        ActivationRecorder,
        list_layers,
        score_layer,
        stage_ends,
    )
    from unpool.visualize.occlusion.occlude import occlude
    from unpool.visualize.occlusion.segmentation import occlude_region
    from unpool.visualize.occlusion.window import occluder_windows

    if "target" in options:
        options["target"] = loaded.find_class(options["target"])
    trial = loaded.trial_image()
    occluder_windows((trial.shape[2], trial.shape[3]), options.get("window"), options.get("stride"))
    if ActivationRecorder(score_layer(loaded.model), [SCORE])(trial)[SCORE].dim() == 4:
        for name in ("layer", "rule", "activations"):
            if name in options:
                raise OptionError(f"got --{name} for a network that segments; leave it out")
        run: Run = occlude_region
    else:
        layers = stage_ends(list_layers(loaded.model, trial))
        if "layer" not in options and layers:
            options["layer"] = layers[-1]
        run = occlude
        side = max(trial.shape[2] // 2, 1)  # few windows, to find out whether it works
        tried = occlude(loaded.model, trial, **{**options, "window": side, "stride": side})
        if tried.unprojected and not quiet:
            why = with_flags(tried.unprojected, click.get_current_context().command)
            console.print_error(f"no projection: {why}")
    return lambda images, progress: run(loaded.model, images, progress=progress, **options)


def _names(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text(encoding="utf-8-sig").splitlines())
    except UnicodeDecodeError:
        raise OptionError(f"got --classes {path}, which is no text; wanted a name a line") from None


def _occlude(
    loaded: "LoadedModel", run: Run, source: "Source", output: Path, progress: Callable[..., None]
) -> Record:
    """Write the occlusion map of an image, and describe it."""
    from unpool.visualize.occlusion.result import Occlusion

    crop = loaded.preprocessing.crop(source.read())
    found = run(loaded.prepare([crop]), progress)
    order = (loaded.preprocessing.order,) if isinstance(found, Occlusion) else ()
    files = found.save(output / f"{source.name}.occlusion", crop, loaded.classes, *order)
    facts = found.to_dict()
    kept = ("class", "value", "lowest", "lowest_box", "exact incremental", "unprojected")
    record = {"figure": str(files[0]), "facts": str(files[1])}
    record |= {name: facts[name] for name in kept if name in facts}
    return {**record, "name": loaded.class_name(found.target)}


def _text(record: Record) -> str:
    before = f"{record['value']:.3g}" if "value" in record else "IoU 1"
    lowest = "-" if record["lowest"] is None else f"{record['lowest']:.3g}"
    where = ", ".join(map(str, record["lowest_box"]))
    return (
        f"{record['source']}: {record['name']}, {before}; {lowest} with {where} hidden, "
        f"{record['figure']} ({record['seconds']:.1f} s)"
    )
