"""`unpool visualize parts`: images taken apart by a sparse coder."""

from typing import TYPE_CHECKING

import click

from unpool.cli.console import percent
from unpool.cli.visualize.options import Job, command, from_one
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.coding.parts import PartsReport

_WEIGHTS = click.option(
    "--weights",
    metavar="FOLDER",
    help="Weights that `unpool train coder` has learned: a run folder, or its weights.",
)


@command(
    "parts",
    from_one("--count", "Number of parts shown per map.", 9),
    click.option(
        "--long-side",
        type=click.IntRange(16, 4096),
        help="Reduce larger images to it, in pixels.  [default: that of the card, or else 480]",
    ),
    model=(_WEIGHTS,),
    checkpoints=lambda _: [],
)
def parts(
    job: Job,
    weights: str | None = None,
    long_side: int | None = None,
    count: int = 9,
    device: str = "auto",
) -> int:
    """Take images apart into the parts that a sparse coder has learned, layer by layer.

    INPUTS are images, folders, patterns, or lists of paths (.txt).

    OUTPUT/filters.png has the filters of the first layer and, for each map of the layers above, its
    strongest part. OUTPUT/layer1.png, layer2.png ... have the strongest parts of each map, beside
    the patches they come from; OUTPUT/rebuilt/NAME.png has an image rebuilt by each layer, and from
    its 5, 25 and 125 strongest parts. OUTPUT/parts.json has the numbers. Unreadable images are
    reported and skipped (exit code 3).

    With --json, there is one object with output, images (their number), failed, seconds, and
    layers: the means of snr, in dB, and nonzeros, the fraction of the values of the maps.

    \b
    Example: unpool visualize parts cat.jpg dog.jpg --weights runs/parts -o out
    after:   unpool train coder --data photos -o runs/parts
    """
    from unpool.coding.parts import load_coder, take_apart

    if weights is None:
        raise OptionError(
            "got no --weights; wanted the folder of a sparse coder: train one with "
            "unpool train coder --data FOLDER -o runs/parts"
        )
    images = job.images()
    coder, card = load_coder(weights, device)
    side = long_side or card.long_side or 480
    with job.working("taking apart") as update:
        found = take_apart(coder, images, job.output, long_side=side, count=count, progress=update)
    layers = [found.mean(layer)._asdict() for layer in range(1, len(found.tops) + 1)]
    facts = {"images": len(found.rebuilt), "layers": layers}
    line = f"{len(found.rebuilt)} images, into {job.output / 'filters.png'}"
    return job.report(facts, found.failed, line, _table(found))


def _table(found: "PartsReport") -> list[list[str]]:
    rows = [["layer", "maps", "SNR, dB", "nonzeros", "never active"]]
    for layer, units in enumerate(found.tops, start=1):
        snr, nonzeros = found.mean(layer)
        unused = sum(not parts for parts in units)
        rows.append(
            [f"{layer}", f"{len(units)}", f"{snr:.1f}", f"{percent(nonzeros)} %", f"{unused}"]
        )
    return rows
