"""`unpool visualize filters`: what the filters of a network look like."""

from typing import TYPE_CHECKING, Any

import click

from unpool.cli.console import percent
from unpool.cli.visualize.options import LIST_LAYERS, Job, command, from_one

if TYPE_CHECKING:
    from unpool.visualize.filters import FilterReport


@command(
    "filters",
    click.option(
        "--layer",
        metavar="NAME",
        help="The convolution whose filters are shown.  [default: the first]",
    ),
    LIST_LAYERS,
    click.option(
        "--dead-below",
        type=click.FloatRange(0, 1),
        help="A filter whose RMS is below this fraction of the median is dead.  [default: 0.1]",
    ),
    from_one("--batch", "Images at a time.", 8),
)
def filters(job: Job, layer: str | None = None, **options: Any) -> int:
    """Show the filters of the first layer, and find dead and dominant ones in all layers.

    INPUTS are optional: images, folders, patterns, or lists of paths (.txt). With them, maps that
    no image excites are counted, too.

    OUTPUT/filters.png has the filters on one scale, and each on its own; their spectrum, with zero
    frequency at the center; their strengths; and the spread of their energy over orientations.
    OUTPUT/filters.json has the numbers for all convolutions. Unreadable images are reported and
    skipped (exit code 3).

    With --json, there is one object with output, failed, seconds, and the content of the file.

    \b
    Example: unpool visualize filters photos --weights objects -o out
    """
    from unpool.visualize.filters import inspect_filters

    images = job.images() if job.inputs else []
    with job.working("inspecting") as update:
        found = inspect_filters(job.loaded, layer, images, progress=update, **options)
    found.save(job.output)
    seen = found.coverage
    bands = [f"{name} {percent(getattr(seen, name))} %" for name in ("low", "mid", "high")]
    if seen.aliased:
        bands.append(f"aliased by the stride {percent(seen.aliased)} %")
    line = f"frequencies of {found.layer}: {', '.join(bands)}; {job.output / 'filters.png'}"
    return job.report(found.to_dict(), found.failed, line, _table(found))


def _table(found: "FilterReport") -> list[list[str]]:
    rows = [["layer", "filters", "kernel", "median RMS", "dominance", "dead", "never respond"]]
    for row in found.rows:
        strength = [f"{row.median:.3g}", "-" if row.dominance is None else f"{row.dominance:.2f}"]
        silent = "-" if row.silent is None else str(len(row.silent))
        size = [str(row.filters), "x".join(map(str, row.kernel))]
        rows.append([row.layer, *size, *strength, str(len(row.dead)), silent])
    return rows
