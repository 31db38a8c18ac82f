"""`unpool generate list`, `view` and `grid`: what there is, one image, many views."""

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
    parsed,
    tell,
    write,
    write_captioned,
)
from unpool.cli.generate.options import (
    view as seen,
)
from unpool.cli.options import FROM_ONE, typed

_THUMBNAILS = 10  # a row


@click.command("list")
@click.option("-o", "--output", type=File(*IMAGES), metavar="FILE", help="Write thumbnails, too.")
@seen(301, 20)
@SHARED
def list_(output: Path | None, **options: Any) -> None:
    """Show the styles, and their images on a sheet with -o.

    With --json, the line of a style has style and number.

    \b
    Example: unpool generate list -o styles.png
    """
    generator = load(options)
    if output is not None:
        view = {"azimuth": 301, **typed({n: options[n] for n in ("azimuth", "elevation")})}
        drawn = generator.generate(list(generator.styles), **view)
        tiles = [(d.on(), f"{i} {generator.styles[i]}") for i, d in enumerate(drawn)]
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
@seen(0, 20)
@click.option(
    "--change",
    "changes",
    callback=amounts,
    multiple=True,
    metavar="NAME=AMOUNT",
    help="A transformation: translate-x or translate-y, in fractions of the side; angle or hue, in "
    "radians; zoom, stretch, saturation or brightness, in logarithms. Can be given several times.",
)
@click.option(
    "--background",
    metavar="COLOR",
    help="A name or #rrggbb.  [default: a PNG is transparent, a JPEG white]",
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
    """Draw a style, or a mixture of several, from any side.

    With --json, there is an object with output, style, azimuth, elevation and notes.

    \b
    Example: unpool generate view --style 3 --azimuth 45 --elevation 25 -o chair.png
             unpool generate view --style 0=1,1=-1,2=1 --change angle=0.2 -o chair.png
    """
    from unpool.generate.sequences import combine

    generator = load(options)
    place = {"azimuth": 0.0, "elevation": 20.0}
    place |= typed({name: options[name] for name in place})
    change = combine(changes) if changes else None
    drawn = generator.view(parsed([style], generator)[0], **place, transformation=change)
    drawn.save(output, background, scale=scale)
    tell(options, output, [drawn], style=style, **place)


@click.command()
@STYLES
@click.option("--columns", type=FROM_ONE, default=8, help="Azimuths, all around.  [default: 8]")
@click.option("--elevation", type=float, default=20, help="Degrees above.  [default: 20]")
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
    """Draw styles, a row each, from all around; all styles when none is named.

    With --json, there is an object with output, size, styles, azimuths and notes.

    \b
    Example: unpool generate grid --style 0 --style 1 --columns 12 -o grid.png
    """
    generator = load(options)
    azimuths = [360 * i / columns for i in range(columns)]
    rows = generator.grid(parsed(styles, generator), azimuths, elevation)
    drawn = [one for row in rows for one in row]
    size = write(output, [one.on(background) for one in drawn], columns, scale)
    names = list(styles) or generator.styles
    tell(options, output, drawn, size=size, styles=names, azimuths=azimuths)
