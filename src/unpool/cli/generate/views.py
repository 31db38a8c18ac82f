"""`unpool generate list`, `view` and `grid`: the styles, one image, many views."""

from pathlib import Path
from typing import Any

import click

from unpool.cli import console
from unpool.cli.generate.options import (
    BACKGROUND,
    IMAGES,
    SCALE,
    SHARED,
    STYLE,
    STYLES,
    File,
    amounts,
    load,
    output,
    parse_styles,
    print_written,
    typed_view,
    view_options,
    write,
    write_captioned,
)
from unpool.cli.options import FROM_ONE

_THUMBNAILS = 10  # in a row


@click.command("list")
@click.option(
    "-o", "--output", type=File(*IMAGES), metavar="FILE", help="Write a sheet of thumbnails too."
)
@view_options(301, 20)
@SHARED
def list_(output: Path | None, **options: Any) -> None:
    """Show the styles, and with -o a sheet of their images.

    With --json, there is a line for each style, with style and number.

    \b
    Example: unpool generate list -o styles.png
    """
    generator = load(options)
    if output is not None:
        images = generator.generate(
            list(generator.styles), **{"azimuth": 301, **typed_view(options)}
        )
        tiles = [(one.on(), f"{i} {generator.styles[i]}") for i, one in enumerate(images)]
        write_captioned(output, tiles, _THUMBNAILS, max(1, 128 // generator.size))
    for number, name in enumerate(generator.styles):
        if options["as_json"]:
            console.print_json({"style": name, "number": number})
        elif not options["quiet"]:
            click.echo(f"{number:4} {name}")
    if output is not None and not (options["as_json"] or options["quiet"]):
        click.echo(f"{output}: their images")


@click.command()
@STYLE
@view_options(0, 20)
@click.option(
    "--change",
    "changes",
    callback=amounts,
    multiple=True,
    metavar="NAME=AMOUNT",
    help="A transformation: translate-x or translate-y, in fractions of the side; angle or hue, in "
    "radians; zoom, stretch, saturation or brightness, in logarithms. Repeatable.",
)
@click.option(
    "--background",
    metavar="COLOR",
    help="A name or #rrggbb.  [default: transparent in a PNG, white in a JPEG]",
)
@SCALE
@output("view.png", *IMAGES)
@SHARED
def view(
    style: str,
    changes: tuple[tuple[str, float], ...],
    background: str | None,
    scale: int,
    output: Path,
    **options: Any,
) -> None:
    """Generate one view of a style, or of a mixture of styles.

    With --json, there is an object with output, style, azimuth, elevation and notes.

    \b
    Example: unpool generate view --style 3 --azimuth 45 --elevation 25 -o chair.png
             unpool generate view --style 0=1,1=-1,2=1 --change angle=0.2 -o chair.png
    """
    from unpool.generate.sequences import encode_changes

    generator = load(options)
    place = {"azimuth": 0.0, "elevation": 20.0, **typed_view(options)}
    change = encode_changes(changes) if changes else None
    image = generator.view(parse_styles([style], generator)[0], **place, transformation=change)
    image.save(output, background, scale=scale)
    print_written(options, output, [image], style=style, **place)


@click.command()
@STYLES
@click.option(
    "--columns", type=FROM_ONE, default=8, help="Number of azimuths around.  [default: 8]"
)
@click.option(
    "--elevation", type=float, default=20, help="Degrees above the object.  [default: 20]"
)
@BACKGROUND
@SCALE
@output("grid.png", *IMAGES)
@SHARED
def grid(
    styles: tuple[str, ...],
    columns: int,
    elevation: float,
    background: str,
    scale: int,
    output: Path,
    **options: Any,
) -> None:
    """Generate a grid: a row for each style (all by default), seen from all around.

    With --json, there is an object with output, size, styles, azimuths and notes.

    \b
    Example: unpool generate grid --style 0 --style 1 --columns 12 -o grid.png
    """
    generator = load(options)
    azimuths = [360 * i / columns for i in range(columns)]
    rows = generator.grid(parse_styles(styles, generator), azimuths, elevation)
    images = [image for row in rows for image in row]
    size = write(output, [image.on(background) for image in images], columns, scale)
    names = list(styles) or generator.styles
    print_written(options, output, images, size=size, styles=names, azimuths=azimuths)
