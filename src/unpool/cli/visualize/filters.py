"""`unpool visualize filters`: what the filters of a network look like."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli import console
from unpool.cli.options import DEVICE, FROM_ONE, JSON, QUIET, make_folder, typed
from unpool.cli.progress import progress
from unpool.cli.visualize.options import (
    MODEL,
    find_images,
    output_option,
    report,
    show_layers,
    take_model,
)

if TYPE_CHECKING:
    from unpool.visualize.filters import FilterReport


@click.command()
@click.argument("inputs", nargs=-1)
@MODEL
@click.option(
    "--layer",
    metavar="NAME",
    help="The convolution whose filters are drawn.  [default: the first]",
)
@click.option("--list-layers", is_flag=True, help="Show the layers, and do nothing else.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    help="A filter whose RMS is below this fraction of the median is dead.  [default: 0.1]",
)
@click.option("--batch", type=FROM_ONE, help="Images at a time.  [default: 8]")
@output_option("filters")
@DEVICE
@JSON
@QUIET
def filters(
    inputs: tuple[str, ...],
    layer: str | None,
    list_layers: bool,
    output: Path,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Show the filters of the first layer, and find dead and dominant ones in all.

    INPUTS, which can be left out, are images, folders, patterns, or lists of paths (.txt): then
    maps that none of them excites are counted, too.

    OUTPUT/filters.png has the filters on one scale, and each on its own; their spectrum, with zero
    frequency in its middle; their strengths; and how their energy spreads over directions.
    OUTPUT/filters.json has the numbers for all convolutions.

    What cannot be read is reported, the rest is done, and the exit code is 3.

    With --json, there is one object: output, failed, seconds, and what is in the file.

    \b
    Example: unpool visualize filters photos --weights objects -o out
    """
    start = time.perf_counter()
    loaded = take_model(options)
    if list_layers:
        return show_layers(loaded, as_json)
    from unpool.visualize.filters import inspect_filters

    unusable: dict[str, str] = {}
    images: list[Path] = []
    if inputs:
        images, unusable = find_images(inputs, None, None, output)
    make_folder(output)
    with progress("looking", quiet) as show:
        found = inspect_filters(loaded, layer, images, progress=show, **typed(options))
    found.save(output)
    show_it = None if quiet else partial(_print, found, output)
    return report(found, unusable, start, output, as_json, show_it)


def _print(found: "FilterReport", output: Path) -> None:
    rows = [["layer", "filters", "kernel", "median RMS", "dominance", "dead", "never respond"]]
    for row in found.rows:
        strength = [f"{row.median:.3g}", "-" if row.dominance is None else f"{row.dominance:.2f}"]
        silent = "-" if row.silent is None else str(len(row.silent))
        size = [str(row.filters), "x".join(map(str, row.kernel))]
        rows.append([row.layer, *size, *strength, str(len(row.dead)), silent])
    console.print_table(rows)
    seen = found.coverage
    shares = [f"{name} {console.percent(getattr(seen, name))} %" for name in ("low", "mid", "high")]
    folded = (
        f", folded over by the stride {console.percent(seen.aliased)} %" if seen.aliased else ""
    )
    click.echo(f"frequencies of {found.layer}: {', '.join(shares)}{folded}; {output}/filters.png")
