"""`unpool generate mask`, `unit`, `zoom` and `filters`: what a network has inside."""

from pathlib import Path
from typing import Any

import click

from unpool.cli import console
from unpool.cli.generate.options import (
    ANIMATIONS,
    BACKGROUND,
    FPS,
    IMAGES,
    SCALE,
    SHARED,
    STYLE,
    STYLES,
    TIMES,
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
from unpool.cli.options import choice, several_units, typed
from unpool.cli.progress import progress

_PATTERNS = ("center-2", "center-4", "center-6", "center-8", "border", "checkerboard", "other")
_LIST = click.option("--list-layers", is_flag=True, help="Show the layers, and do nothing else.")


def _place(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    parts = (value or "").split(",")
    if value is None or (len(parts) == 2 and all(part.strip().isdecimal() for part in parts)):
        return None if value is None else (int(parts[0]), int(parts[1]))
    raise click.BadParameter(f"got {value!r}; wanted ROW,COLUMN, such as 3,3.", ctx, param)


def _list(names: list[str], as_json: bool) -> None:
    for name in names:
        if as_json:
            console.print_json({"layer": name})
        else:
            click.echo(name)


@click.command()
@STYLE
@choice(
    "--cells",
    _PATTERNS,
    "Which cells are kept; other is the other checkerboard. Can be given several times.  "
    "[default: all of these]",
    multiple=True,
)
@seen(301, 20)
@BACKGROUND
@SCALE
@output("mask.png", *IMAGES)
@SHARED
def mask(
    style: str,
    cells: tuple[str, ...],
    background: str,
    scale: int,
    output: Path,
    **options: Any,
) -> None:
    """Draw an object from some cells of its first maps, of 8 x 8.

    With --json, there is an object with output, size, style, cells and notes.

    \b
    Example: unpool generate mask --style 3 -o mask.png
    """
    from unpool.generate import mask_cells, pattern

    generator, names = load(options), cells or _PATTERNS
    place = typed({name: options[name] for name in ("azimuth", "elevation")})
    drawn = mask_cells(
        generator, parsed([style], generator)[0], [pattern(name) for name in names], **place
    )
    tiles = [(d.on(background), name) for d, name in zip(drawn, names, strict=True)]
    size = write_captioned(output, tiles, len(tiles), scale)
    tell(options, output, drawn, size=size, style=style, cells=list(names))


@click.command()
@click.option(
    "--layer", default="shared.fc4", metavar="NAME", help="Of which.  [default: shared.fc4]"
)
@_LIST
@several_units("Its number, from 0; can be given several times.  [default: the first 32]")
@click.option("--value", type=float, help="To which it is set.  [default: the authors']")
@click.option(
    "--place",
    callback=_place,
    metavar="ROW,COLUMN",
    help="Of a unit of maps.  [default: before the middle]",
)
@seen(310, 30)
@SCALE
@output("unit.png", *IMAGES)
@SHARED
def unit(
    layer: str,
    list_layers: bool,
    units: tuple[int, ...],
    scale: int,
    output: Path,
    **options: Any,
) -> None:
    """Draw what single units make, all others of their layer being zero.

    Of layers of maps, what a unit adds to the image of the zero vector; zero is mid-gray.

    With --json, there is an object with output, size, layer and units.

    \b
    Example: unpool generate unit --layer shared.fc4 --unit 28 --unit 29 -o unit.png
    """
    from unpool.generate import activate, count_units
    from unpool.generate import list_layers as layers

    generator = load(options)
    if list_layers:
        return _list(layers(generator.model), options["as_json"])
    chosen = list(units) or list(range(min(32, count_units(generator, layer))))
    given = typed({n: options[n] for n in ("value", "place", "azimuth", "elevation")})
    found = activate(generator, layer, chosen, **given)
    tiles = [(p, str(n)) for p, n in zip(found.images(), chosen, strict=True)]
    size = write_captioned(output, tiles, 8, scale)
    tell(options, output, [], size=size, layer=layer, units=chosen)


@click.command()
@STYLES
@click.option(
    "--unit", "number", type=click.IntRange(min=0), help="Of FC-4.  [default: it is looked for]"
)
@seen(310, 30)
@BACKGROUND
@SCALE
@FPS
@output("zoom.png", *IMAGES, *ANIMATIONS)
@SHARED
def zoom(
    styles: tuple[str, ...],
    number: int | None,
    background: str,
    scale: int,
    fps: float,
    output: Path,
    **options: Any,
) -> None:
    """Find the unit whose effect is nearest a zoom, and draw objects while it rises.

    It is looked for with the styles that are drawn, the first three when none is named.

    With --json, there is an object with output, size, unit and, where it was looked for, factor
    (of the zoom) and explained (the fraction of the change that it explains).

    \b
    Example: unpool generate zoom --style 3 -o zoom.png
    """
    from unpool.generate import find_zoom_unit, push

    generator = load(options)
    chosen = parsed(styles or generator.styles[:3], generator)
    place = typed({name: options[name] for name in ("azimuth", "elevation")})
    facts: dict[str, Any] = {"unit": number}
    if number is None:
        with progress("looking at units", options["quiet"]) as show:
            found = find_zoom_unit(generator, chosen, progress=show, **place)
        facts = {**found._asdict(), "explained": round(found.explained, 3)}
        facts["factor"] = round(found.factor, 3)
    rows = [push(generator, style, facts["unit"], **place) for style in chosen]
    drawn = [d for row in rows for d in row]
    size = write(output, [d.on(background) for d in drawn], len(rows[0]), scale, fps)
    tell(options, output, drawn, size=size, **facts)


@click.command()
@click.option("--layer", metavar="NAME", help="Of which.  [default: the last that gives colors]")
@_LIST
@click.option("--count", type=click.IntRange(1, 512), help="Of maps, each way.  [default: 16]")
@click.option("--scale", type=TIMES, default=4, help="Enlarge so many times.  [default: 4]")
@output("filters.png", *IMAGES)
@SHARED
def filters(
    layer: str | None,
    list_layers: bool,
    count: int | None,
    scale: int,
    output: Path,
    **options: Any,
) -> None:
    """Draw learned filters; zero is mid-gray.

    With --json, there is an object with output, size and layer.

    \b
    Example: unpool generate filters -o filters.png
    """
    from unpool.generate import filter_sheet, list_filters

    generator = load(options)
    names = list_filters(generator)
    if list_layers:
        return _list(names, options["as_json"])
    chosen = layer or [name for name in names if name.startswith("rgb")][-1]
    sheet = filter_sheet(generator, chosen, **typed({"most": count}))
    squares = sheet.repeat(scale, axis=0).repeat(scale, axis=1)
    size = write(output, [squares], 1, 1)
    tell(options, output, [], size=size, layer=chosen)
