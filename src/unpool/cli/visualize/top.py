"""`unpool visualize top`: the images that excite each map most."""

import time
from pathlib import Path
from typing import Any

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
    take_model,
    take_rules,
)
from unpool.errors import OptionError


@click.command()
@click.argument("inputs", nargs=-1)
@LABELED
@MODEL
@LAYERS
@several_units("A map to show; can be given several times.  [default: evenly chosen ones]")
@click.option("--shown", type=FROM_ONE, help="How many maps a layer are shown.  [default: 16]")
@click.option("--count", type=FROM_ONE, help="Images kept of each map.  [default: 9]")
@click.option("--batch", type=FROM_ONE, help="Images at a time.  [default: 8]")
@RULE
@output_option("top")
@DEVICE
@JSON
@QUIET
def top(
    inputs: tuple[str, ...],
    data: Path | None,
    split: str | None,
    layers: tuple[str, ...],
    list_layers: bool,
    output: Path,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Find the images that excite each map most, and show what in them does.

    INPUTS are images, folders, patterns, or lists of paths (.txt). One pass over them finds the
    strongest of all maps of all layers named; then some maps are shown as in the paper,
    projections beside the patches they come from.

    OUTPUT/index.html is a page to browse, OUTPUT/top.json has all that was found, and
    OUTPUT/LAYER/UNIT.png are the figures; those of an earlier run that are shown no more go.

    What cannot be read is reported, the rest is done, and the exit code is 3.

    With --json, there is one object: output, images (how many were seen), failed, seconds, and
    layers: layer, units (how many it has), dead (how many of them no image excites).

    \b
    Example: unpool visualize top photos --layer trunk.stages.4 -o out
    """
    start = time.perf_counter()
    loaded = take_model(options)
    if list_layers:
        return show_layers(loaded, as_json)
    from unpool.visualize.gallery import make_gallery

    paths, unusable = find_images(inputs, data, split, output)
    shown = {name: options.pop(name) for name in ("units", "shown", "count", "batch", "color")}
    if shown["units"] and shown["shown"]:
        raise OptionError("got --unit and --shown; leave one of them out")
    make_folder(output)
    with progress("looking", quiet) as show:
        found = make_gallery(
            loaded, paths, output, layers, progress=show, **typed(shown), **take_rules(options)
        )
    failed = unusable | found.failed
    summaries = [
        {"layer": layer, "units": len(strongest.values), "dead": strongest.dead}
        for layer, strongest in found.tops.items()
    ]
    if as_json:
        seconds = round(time.perf_counter() - start, 3)
        seen = {"output": str(output), "images": len(found.images), "failed": failed}
        console.print_json({**seen, "seconds": seconds, "layers": summaries})
    else:
        for reason in failed.values():
            console.print_error(reason)
        if not quiet:
            rows = [[str(value) for value in line.values()] for line in summaries]
            console.print_table([["layer", "units", "never active"], *rows])
            click.echo(f"{len(found.images)} images, into {output / 'index.html'}")
    return 3 if failed else 0
