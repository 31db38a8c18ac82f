"""`unpool generate list`, `view`, `grid` and `compare`: the styles, and views of them."""

from dataclasses import replace
from pathlib import Path

import click

from unpool.cli.console import print_json, print_table, progress
from unpool.cli.generate.options import BACKGROUND, CHANGES, STYLE, STYLES, Job, command
from unpool.cli.options import FROM_ONE
from unpool.errors import OptionError

_THUMBNAILS = 10  # in a row


@command(None, view=(301, 20), scale=None, name="list")
def list_(job: Job, **view: float) -> None:
    """List the styles, and with -o write a sheet of their images.

    With --json, there is a line for each style, with style and number.

    \b
    Example: unpool generate list -o styles.png
    """
    generator = job.generator
    if job.output is not None:
        images = generator.generate(generator.styles, **{"azimuth": 301, **view})
        captions = [f"{number} {name}" for number, name in enumerate(generator.styles)]
        replace(job, scale=max(1, 128 // generator.size)).save(images, _THUMBNAILS, captions)
    for number, name in enumerate(generator.styles):
        if job.as_json:
            print_json({"style": name, "number": number})
        elif not job.quiet:
            click.echo(f"{number:4} {name}")
    if job.output is not None and not (job.as_json or job.quiet):
        click.echo(f"{job.output}: their images")


@command(
    "view.png",
    STYLE,
    CHANGES,
    click.option(
        "--background",
        metavar="COLOR",
        help="A name or #rrggbb.  [default: transparent in a PNG, white in a JPEG]",
    ),
    view=(0, 20),
)
def view(job: Job, style: str, changes: list[tuple[str, float]], **angles: float) -> None:
    """Generate one view of a style, or of a mixture of styles.

    With --json, there is an object with output, style, azimuth, elevation and notes.

    \b
    Example: unpool generate view --style 3 --azimuth 45 --elevation 25 -o chair.png
             unpool generate view --style 0=1,1=-1,2=1 --change angle=0.2 -o chair.png
    """
    from unpool.generate.sequences import encode_changes

    place = {"azimuth": 0.0, "elevation": 20.0, **angles}
    image = job.generator.view(job.style(style), **place, transformation=encode_changes(changes))
    image.save(job.output, job.background, scale=job.scale)
    job.report({"style": style, **place}, [image.note])


@command(
    "grid.png",
    STYLES,
    click.option("--columns", type=FROM_ONE, default=8, help="Number of azimuths.  [default: 8]"),
    click.option(
        "--elevation", type=float, default=20, help="Degrees above the object.  [default: 20]"
    ),
    BACKGROUND,
)
def grid(job: Job, styles: tuple[str, ...], columns: int, elevation: float) -> None:
    """Generate a grid: a row for each style (all by default), seen from all around.

    With --json, there is an object with output, size, styles, azimuths and notes.

    \b
    Example: unpool generate grid --style 0 --style 1 --columns 12 -o grid.png
    """
    names = list(styles or job.generator.styles)
    azimuths = [360 * i / columns for i in range(columns)]
    rows = job.generator.grid([job.style(name) for name in names], azimuths, elevation)
    images = [image for row in rows for image in row]
    job.write(images, columns, {"styles": names, "azimuths": azimuths})


@command(
    "compare.png",
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        required=True,
        metavar="FOLDER",
        help="Rendered views, as `unpool render` writes them.",
    ),
)
def compare(job: Job, data: Path) -> None:
    """Compare generated views with held-out views, and with baselines that need no network.

    The views are those at the azimuths that were held out from training. The baselines are the two
    neighboring views, blended pixel by pixel, and the nearest view. The rows of the sheet are, from
    the top, the truth, the network, blending and the nearest view.

    With --json, there is an object with output, views (their number), mse (over all pixels, colors
    inside the mask), mse_inside (inside the true mask) and network_better (the fraction of views
    on which the network has the lower error).

    \b
    Example: unpool generate compare --data RENDERS -o compare.png
    """
    from unpool.cards import read_card
    from unpool.generate import compare_views
    from unpool.generate.batches import split_views
    from unpool.generate.result import enlarge
    from unpool.rendering.dataset import AZIMUTHS, open_chairs, read_views
    from unpool.vision.images import write_image

    held = read_card(job.weights).held_out
    if not held or not set(held) <= set(range(len(AZIMUTHS))):
        card = f"the card of {job.weights}"
        raise OptionError(f"{card} names no azimuths that were held out; use other weights")
    chairs = open_chairs(data)
    hidden = split_views(chairs, tuple(held))[1].tolist()
    with progress("reading", job.quiet) as update:
        images = read_views(chairs, job.generator.size, progress=update)
    found = compare_views(job.generator, chairs, images, hidden)
    write_image(job.output, enlarge(found.sheet(), job.scale))
    facts = found.to_dict()
    if job.as_json:
        print_json({"output": str(job.output), **facts})
    elif not job.quiet:
        methods, views = list(found.images), facts.pop("views")
        rows = [
            [name, *(f"{own[method]:.4f}" if method in own else "" for method in methods)]
            for name, own in facts.items()
        ]
        print_table([[f"{views} views", *methods], *rows])
        click.echo(f"{job.output}: truth, {', '.join(methods)}")
