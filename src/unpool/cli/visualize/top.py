"""`unpool visualize top`: the images that excite each map most."""

from typing import Any

from unpool.cli.visualize.options import (
    LABELED,
    PROJECTION,
    Job,
    command,
    from_one,
    layer_options,
    units_options,
)


@command(
    "top",
    *LABELED,
    *layer_options(),
    *units_options("evenly spaced ones", 16),
    from_one("--count", "Number of images per map.", 9),
    from_one("--batch", "Images at a time.", 8),
    *PROJECTION,
)
def top(job: Job, **options: Any) -> int:
    """Find the images that excite each map most, and the pixels in them that do.

    INPUTS are images, folders, patterns, or lists of paths (.txt). One pass over them finds the
    strongest activations of all maps of the layers; some maps are then shown as in the paper,
    projections beside the patches they come from.

    OUTPUT/index.html is a page to browse, OUTPUT/top.json has all results, and
    OUTPUT/LAYER/UNIT.png are the figures; outdated figures are removed. Unreadable images are
    reported and skipped (exit code 3).

    With --json, there is one object with output, images (their number), failed, seconds, and
    layers: layer, units (their number), dead (the number of those that no image excites).

    \b
    Example: unpool visualize top photos --layer trunk.stages.4 -o out
    """
    from unpool.visualize.gallery import make_gallery

    images = job.labeled_images(options)
    with job.working("searching") as update:
        found = make_gallery(job.loaded, images, job.output, progress=update, **options)
    count = len(found.images)
    rows = [(layer, len(one.values), one.dead) for layer, one in found.tops.items()]
    facts = [{"layer": layer, "units": units, "dead": dead} for layer, units, dead in rows]
    table = [["layer", "units", "never active"], *([*map(str, row)] for row in rows)]
    line = f"{count} images, into {job.output / 'index.html'}"
    return job.report({"images": count, "layers": facts}, found.failed, line, table)
