"""`unpool visualize top`: the images that excite each map most."""

from pathlib import Path
from typing import Any

import click

from unpool.cli.options import FROM_ONE, several_units
from unpool.cli.visualize.options import LABELED, PROJECTION, Job, command, layer_options, only_one


@command(
    "top",
    *LABELED,
    *layer_options(),
    several_units("A map to show; repeatable.  [default: evenly spaced ones]"),
    click.option("--shown", type=FROM_ONE, help="Number of maps shown per layer.  [default: 16]"),
    click.option("--count", type=FROM_ONE, help="Number of images per map.  [default: 9]"),
    click.option("--batch", type=FROM_ONE, help="Images at a time.  [default: 8]"),
    *PROJECTION,
)
def top(
    job: Job,
    layers: tuple[str, ...],
    data: Path | None = None,
    split: str | None = None,
    **options: Any,
) -> int:
    """Find the images that excite each map most, and the pixels in them that do.

    INPUTS are images, folders, patterns, or lists of paths (.txt). One pass over them finds the
    strongest activations of all maps of the layers; some maps are then shown as in the paper,
    projections beside the patches they come from.

    OUTPUT/index.html is a page to browse, OUTPUT/top.json has all results, and
    OUTPUT/LAYER/UNIT.png are the figures; outdated figures are removed.

    Unreadable images are reported and skipped (exit code 3).

    With --json, there is one object with output, images (their number), failed, seconds, and
    layers: layer, units (their number), dead (the number of those that no image excites).

    \b
    Example: unpool visualize top photos --layer trunk.stages.4 -o out
    """
    from unpool.visualize.gallery import make_gallery

    images = job.images(data, split)
    only_one({"--unit": options["units"], "--shown": options.get("shown")})
    with job.working("searching") as update:
        found = make_gallery(job.loaded, images, job.output, layers, progress=update, **options)
    layer_facts = [
        {"layer": layer, "units": len(strongest.values), "dead": strongest.dead}
        for layer, strongest in found.tops.items()
    ]
    return job.report(
        {"images": len(found.images), "layers": layer_facts},
        found.failed,
        f"{len(found.images)} images, into {job.output / 'index.html'}",
        [["layer", "units", "never active"], *(list(map(str, f.values())) for f in layer_facts)],
    )
