"""`unpool visualize invariance`: what shifts, scales and rotations do to features."""

from typing import Any

import click

from unpool.cli.options import Option, numbers
from unpool.cli.visualize.options import Job, command, layer_options
from unpool.errors import OptionError


def _range(name: str, what: str, default: str) -> Option:
    return click.option(
        f"--{name}",
        callback=numbers("0,90,5"),
        metavar="FROM,TO,STEP",
        help=f"{what}  [default: {default}, if no other range is given]",
    )


@command(
    "invariance",
    *layer_options("see above"),
    _range("translation", "Pixels downward.", "-60,60,5 in 224 pixels"),
    _range("scale", "Ratios.", "1,1.8,0.05"),
    _range("rotation", "Degrees counterclockwise.", "0,360,15"),
    click.option(
        "--class",
        "label",
        metavar="NAME|NUMBER",
        help="The class whose probability is shown.  [default: the most probable of each image]",
    ),
)
def invariance(
    job: Job, layers: tuple[str, ...], label: str | None = None, **ranges: tuple[float, ...]
) -> int:
    """Translate, scale and rotate images, and measure how far their features move.

    INPUTS are images, folders, patterns, or lists of paths (.txt); figures are for a handful.
    Repeat --layer to name the first layer and the top one; the defaults are the last layer before
    maps first shrink, and the last one below the class scores.

    OUTPUT/invariance.png has a row for each transformation: the images, the distance from the
    original in both layers, and the probability of the class, for models that have classes. For a
    model that segments, it is the mean over the image. OUTPUT/invariance.json has the numbers.
    Unreadable images are reported and skipped (exit code 3).

    With --json, there is one object with output, failed, seconds, and the content of the file.

    \b
    Example: unpool visualize invariance cat.jpg dog.jpg --rotation 0,90,5 -o out
    """
    from unpool.visualize.invariance import TRANSFORMS, measure_invariance

    chosen: dict[str, Any] = {}
    if values := {kind: _steps(kind, ranges[kind]) for kind in TRANSFORMS if kind in ranges}:
        chosen["values"] = values
    if label is not None:
        chosen["label"] = job.loaded.find_class(label)
    images = job.images()
    with job.working("transforming") as update:
        found = measure_invariance(job.loaded, images, layers, progress=update, **chosen)
    found.save(job.output)
    line = f"{len(found.images)} images, into {job.output / 'invariance.png'}"
    return job.report(found.to_dict(), found.failed, line)


def _steps(kind: str, given: tuple[float, ...]) -> list[float]:
    if len(given) != 3 or given[2] <= 0 or not given[0] <= given[1] < given[0] + 1e4 * given[2]:
        raise OptionError(
            f"got --{kind} {','.join(f'{v:g}' for v in given)}; wanted FROM,TO,STEP with a step "
            "above 0 and at most 10,000 of them, such as 0,90,5"
        )
    low, high, step = given
    # rounded, so that the last value is reached, and 1.1 is not 1.1000000000000001
    return [round(low + step * i, 9) for i in range(int((high - low) / step + 1e-9) + 1)]
