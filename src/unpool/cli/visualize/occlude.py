"""`unpool visualize occlude`: which parts of an image a prediction depends on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli.console import print_error
from unpool.cli.images import Record, with_suffixes
from unpool.cli.messages import with_flags
from unpool.cli.options import REDO
from unpool.cli.visualize.options import (
    LIST_LAYERS,
    RULE,
    Job,
    activations_option,
    command,
    from_one,
)
from unpool.errors import OptionError
from unpool.files import read_text

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.sources import Source
    from unpool.visualize.preprocessing import LoadedModel


@command(
    "occluded",
    click.option(
        "--classes",
        "names",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Names of the classes, one per line.  [default: those of the weights]",
    ),
    click.option(
        "--class",
        "target",
        metavar="NAME|NUMBER",
        help="The class to explain.  [default: the most probable; for a network that segments, the "
        "object with the most pixels]",
    ),
    click.option(
        "--layer",
        metavar="NAME",
        help="For a classifier: the layer whose strongest map is shown.  [default: the last with "
        "maps of more than a pixel]",
    ),
    LIST_LAYERS,
    from_one("--occluder", "Side of the occluder in pixels.", "a fifth of the square", "window"),
    from_one("--stride", "Pixels between positions of the occluder.", "half the occluder"),
    RULE,
    activations_option(
        "For the projection: treatment of functions that have no rule.  [default: leave the "
        "projection out]"
    ),
    REDO,
)
def occlude(job: Job, names: Path | None = None, **options: Any) -> int:
    """Slide a gray square over images, and measure how the prediction changes.

    INPUTS are images, folders, patterns, lists of paths (.txt), or - for the standard input.

    For cat.jpg this writes OUTPUT/cat.occlusion.png and OUTPUT/cat.occlusion.json. For a classifier
    they show, for every position, the total activation of the map that is strongest with nothing
    hidden, beside its projection, if the rule allows one; the probability of the class; and the
    most probable class. For a network that segments, they show the IoU of the object's region with
    its prediction while occluded, outside the square. In networks that are chains of layers, only
    what the square changes is recomputed, with the same result. Unreadable images are reported and
    skipped (exit code 3).

    With --json, the line of an image has source, figure, facts (both files), class, name, lowest
    (the lowest probability or IoU), lowest_box (the square there) and seconds, for a classifier
    also value (the probability with nothing hidden), "exact incremental" (yes or no) and
    unprojected (why there is no projection, or nothing); or source and error.

    \b
    Example: unpool visualize occlude photo.jpg --torch-model nets:build --classes names.txt
    """
    from unpool.visualize.occlusion.result import Occlusion

    loaded = job.loaded
    if names is not None:
        loaded = replace(loaded, classes=tuple(read_text(names, OptionError).splitlines()))
    run = _runner(loaded, options, job.quiet or job.as_json)

    def make(source: "Source", stem: Path, progress: "Progress") -> Record:
        crop = loaded.preprocessing.crop(source.read())
        found = run(loaded.prepare([crop]), progress)
        order = (loaded.preprocessing.order,) if isinstance(found, Occlusion) else ()
        files = found.save(Path(f"{stem}.occlusion"), crop, loaded.classes, *order)
        facts = found.to_dict()
        kept = ("class", "value", "lowest", "lowest_box", "exact incremental", "unprojected")
        record = {"figure": str(files[0]), "facts": str(files[1])}
        record |= {name: facts[name] for name in kept if name in facts}
        return {**record, "name": loaded.class_name(found.target)}

    files = with_suffixes(".occlusion.png", ".occlusion.json")
    return job.each_image("occluding", make, _text, files)


def _runner(loaded: "LoadedModel", options: dict[str, Any], quiet: bool) -> Callable[..., Any]:
    """`occlude` or `occlude_region`, for images (1, 3, H, W); refuses at once what cannot work."""
    from unpool.visualize import activations
    from unpool.visualize.occlusion.occlude import occlude
    from unpool.visualize.occlusion.segmentation import occlude_region
    from unpool.visualize.occlusion.window import occluder_windows

    run: Callable[..., Any] = occlude
    if "target" in options:
        options["target"] = loaded.find_class(options["target"])
    trial = loaded.trial_image()
    occluder_windows((trial.shape[2], trial.shape[3]), options.get("window"), options.get("stride"))
    score = activations.SCORE
    recorder = activations.ActivationRecorder(activations.score_layer(loaded.model), [score])
    if recorder(trial)[score].dim() == 4:
        for name in ("layer", "rule", "activations"):
            if name in options:
                raise OptionError(f"got --{name} for a network that segments; leave it out")
        run = occlude_region
    else:
        layers = activations.stage_ends(activations.list_layers(loaded.model, trial))
        if "layer" not in options and layers:
            options["layer"] = layers[-1]
        side = max(trial.shape[2] // 2, 1)  # a trial with few windows
        tried = occlude(loaded.model, trial, **{**options, "window": side, "stride": side})
        if tried.unprojected and not quiet:
            why = with_flags(tried.unprojected, click.get_current_context().command)
            print_error(f"no projection: {why}")
    return lambda images, progress: run(loaded.model, images, progress=progress, **options)


def _text(record: Record) -> str:
    before = f"{record['value']:.3g}" if "value" in record else "IoU 1"
    lowest = "-" if record["lowest"] is None else f"{record['lowest']:.3g}"
    where = ", ".join(map(str, record["lowest_box"]))
    return (
        f"{record['source']}: {record['name']}, {before}; {lowest} with {where} hidden, "
        f"{record['figure']} ({record['seconds']:.1f} s)"
    )
