"""`unpool visualize evolve`: what excites units, at each checkpoint of a training run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli.visualize.options import (
    LABELED,
    PROJECTION,
    SEED,
    Job,
    command,
    from_one,
    layer_options,
    only_one,
    pop_given,
    units_options,
)
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.visualize.evolution import Checkpoint


def _checkpoints(options: dict[str, Any]) -> "list[Checkpoint]":
    """The checkpoints; the options that say how to load them are removed."""
    from unpool.visualize.evolution import checkpoints_of_run, named_checkpoints

    run, paths = options.pop("run", None), options.pop("paths")
    given = pop_given(options, "weights", "torch_model", "preprocess", "size", "device")
    only_one({"--run": run, "--checkpoint": paths})
    if paths:
        return named_checkpoints(paths, **given)
    if run is None:
        raise OptionError("got neither --run nor --checkpoint; name a run folder, or some weights")
    if idle := [f"--{name.replace('_', '-')}" for name in given if name != "device"]:
        given_flags = " and ".join(idle)
        raise OptionError(f"got {given_flags} with --run, whose recipe has that; leave it out")
    return checkpoints_of_run(run, **given)


@command(
    "evolution",
    *LABELED,
    click.option(
        "--run",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="The run folder of `unpool train zfnet-small` or zfnet, whose epochs are used.",
    ),
    click.option(
        "--checkpoint",
        "paths",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="PATH",
        help="Instead of --run, a folder of weights, or a file of tensors of the model that "
        "--torch-model or --weights names; repeat it for each checkpoint, in order.",
    ),
    *layer_options(),
    *units_options("random ones", 6),
    SEED,
    from_one("--batch", "Images at a time.", 32),
    *PROJECTION,
    checkpoints=_checkpoints,
)
def evolve(job: Job, **options: Any) -> int:
    """Show what excites some maps most, at each checkpoint of a training run.

    INPUTS are images, folders, patterns, or lists of paths (.txt). At each checkpoint the
    strongest activation of a map over all of them is projected to the pixels; a bar marks where
    it jumps to another image.

    OUTPUT/evolution.png has a block for each layer, a row for each map, and checkpoints from left
    to right; OUTPUT/evolution.json names the images. Unreadable images are reported and skipped
    (exit code 3).

    With --json, there is one object with output, checkpoints, images (their number), failed,
    seconds, and layers: layer, units, jumps (their number, over all checkpoints).

    \b
    Example: unpool visualize evolve photos --run runs/mine --layer features.relu5 -o out
    """
    from unpool.visualize.evolution import evolve as application

    images = job.labeled_images(options)
    with job.working("searching") as update:
        found = application(job.checkpoints, images, progress=update, **options)
    found.save(job.output)
    jumps = [(one.layer, one.units, int(one.jumps.sum())) for one in found.layers]
    layer_facts = [{"layer": layer, "units": units, "jumps": n} for layer, units, n in jumps]
    count = len(found.images)
    facts = {"checkpoints": found.checkpoints, "images": count, "layers": layer_facts}
    rows = [[layer, ", ".join(map(str, units)), str(n)] for layer, units, n in jumps]
    line = f"{count} images, into {job.output / 'evolution.png'}"
    return job.report(facts, found.failed, line, [["layer", "maps", "jumps"], *rows])
