"""`unpool visualize evolve`: what excites units, at each checkpoint of a training run."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli import console
from unpool.cli.options import DEVICE, FROM_ONE, JSON, QUIET, make_folder, several_units, typed
from unpool.cli.progress import progress
from unpool.cli.visualize.options import (
    LABELED,
    LAYERS,
    MODEL,
    RULE,
    find_images,
    output_option,
    show_layers,
    take_rules,
)
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.visualize.checkpoints import Checkpoint

_OF_MODELS = ("weights", "torch_model", "preprocess", "size")


@click.command()
@click.argument("inputs", nargs=-1)
@LABELED
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The run folder of `unpool train zfnet-small` or zfnet, whose epochs are taken.",
)
@click.option(
    "--checkpoint",
    "paths",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PATH",
    help="Instead of --run, a folder of weights, or a file of tensors of the model that "
    "--torch-model or --weights names; give each in turn.",
)
@MODEL
@LAYERS
@several_units("A map to look at; can be given several times.  [default: some at random]")
@click.option("--shown", type=FROM_ONE, help="How many maps a layer are shown.  [default: 6]")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="NUMBER",
    help="Seed of the random choice of maps.  [default: 0]",
)
@click.option("--batch", type=FROM_ONE, help="Images at a time.  [default: 32]")
@RULE
@output_option("evolution")
@DEVICE
@JSON
@QUIET
def evolve(
    inputs: tuple[str, ...],
    data: Path | None,
    split: str | None,
    run: Path | None,
    paths: tuple[Path, ...],
    layers: tuple[str, ...],
    list_layers: bool,
    output: Path,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Show what excites some maps most, at each checkpoint of a training run.

    INPUTS are images, folders, patterns, or lists of paths (.txt). At each checkpoint the
    strongest activation of a map over all of them is projected down; a bar marks where it jumps
    to another image.

    OUTPUT/evolution.png has a block a layer, a map a row, and checkpoints from left to right;
    OUTPUT/evolution.json names the images.

    What cannot be read is reported, the rest is done, and the exit code is 3.

    With --json, there is one object: output, checkpoints, images (how many were seen), failed,
    seconds, and layers: layer, units, jumps (how many, over all checkpoints).

    \b
    Example: unpool visualize evolve photos --run runs/mine --layer features.relu5 -o out
    """
    start = time.perf_counter()
    checkpoints = _take_checkpoints(run, paths, options)
    if list_layers:
        return show_layers(checkpoints[0].load(), as_json)
    from unpool.visualize.evolution import evolve as application

    images, unusable = find_images(inputs, data, split, output)
    shown = {name: options.pop(name) for name in ("units", "shown", "batch", "color")}
    if shown["units"] and shown["shown"]:
        raise OptionError("got --unit and --shown; leave one of them out")
    shown["seed"] = options.pop("seed")
    rules = take_rules(options)
    make_folder(output)
    with progress("looking", quiet) as show:
        found = application(checkpoints, images, layers, progress=show, **typed(shown), **rules)
    found.save(output)
    failed = unusable | found.failed
    summaries = [
        {"layer": growth.layer, "units": growth.units, "jumps": int(growth.jumps.sum())}
        for growth in found.layers
    ]
    if as_json:
        seen: dict[str, Any] = {"output": str(output), "checkpoints": found.checkpoints}
        seen |= {"images": len(found.images), "failed": failed}
        seconds = round(time.perf_counter() - start, 3)
        console.print_json({**seen, "seconds": seconds, "layers": summaries})
    else:
        for reason in failed.values():
            console.print_error(reason)
        if not quiet:
            rows = [
                [str(t["layer"]), ", ".join(map(str, g.units)), str(t["jumps"])]
                for t, g in zip(summaries, found.layers, strict=True)
            ]
            console.print_table([["layer", "maps", "jumps"], *rows])
            click.echo(f"{len(found.images)} images, into {output / 'evolution.png'}")
    return 3 if failed else 0


def _take_checkpoints(
    run: Path | None, paths: tuple[Path, ...], options: dict[str, Any]
) -> "list[Checkpoint]":
    """The checkpoints; what says how to load them is taken out of the options."""
    from unpool.visualize.checkpoints import checkpoints_of_run, named_checkpoints

    given = typed({name: options.pop(name) for name in _OF_MODELS})
    device = typed({"device": options.pop("device")})
    if (run is None) == (not paths):
        raise OptionError(
            "got neither --run nor --checkpoint; name the folder of a run, or each of some weights"
            if run is None
            else "got --run and --checkpoint; leave one of them out"
        )
    if run is None:
        return named_checkpoints(paths, **given, **device)
    if given:
        idle = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise OptionError(f"got {idle} with --run, whose recipe says that; leave it out")
    return checkpoints_of_run(run, **device)
