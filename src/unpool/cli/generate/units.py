"""`unpool generate mask`, `unit`, `zoom` and `filters`: the inside of the network."""

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
    load,
    output,
    parse_styles,
    print_written,
    scale_option,
    typed_view,
    view_options,
    write,
    write_captioned,
)
from unpool.cli.options import several_units, typed
from unpool.cli.progress import progress

_LIST = click.option("--list-layers", is_flag=True, help="List the layers and exit.")


def _position(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    parts = (value or "").split(",")
    if value is None or (len(parts) == 2 and all(part.strip().isdecimal() for part in parts)):
        return None if value is None else (int(parts[0]), int(parts[1]))
    raise click.BadParameter(f"got {value!r}; wanted ROW,COLUMN, such as 3,3.", ctx, param)


def _print_layers(names: list[str], as_json: bool) -> None:
    for name in names:
        if as_json:
            console.print_json({"layer": name})
        else:
            click.echo(name)


@click.command()
@STYLE
@click.option(
    "--cells",
    multiple=True,
    metavar="NAME",
    help="Cells to keep: center-2, center-4, center-6, center-8, border, checkerboard, or other, "
    "the complement of the checkerboard; repeatable.  [default: all of these]",
)
@view_options(301, 20)
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
    """Generate an object from some cells of its first maps, of 8 x 8.

    With --json, there is an object with output, size, style, cells and notes.

    \b
    Example: unpool generate mask --style 3 -o mask.png
    """
    from unpool.generate import PATTERNS, mask_cells, pattern

    generator, names = load(options), cells or PATTERNS
    kept = [pattern(name) for name in names]
    images = mask_cells(generator, parse_styles([style], generator)[0], kept, **typed_view(options))
    tiles = [(image.on(background), name) for image, name in zip(images, names, strict=True)]
    size = write_captioned(output, tiles, len(tiles), scale)
    print_written(options, output, images, size=size, style=style, cells=list(names))


@click.command()
@click.option(
    "--layer",
    default="shared.fc4",
    metavar="NAME",
    help="A layer, see --list-layers.  [default: shared.fc4]",
)
@_LIST
@several_units("Index of a unit or map, from 0; repeatable.  [default: the first 32]")
@click.option("--value", type=float, help="Activation of the unit.  [default: the authors']")
@click.option(
    "--position",
    callback=_position,
    metavar="ROW,COLUMN",
    help="Position in a map.  [default: just before the middle]",
)
@view_options(310, 30)
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
    """Generate an image from each unit alone, with all others of its layer at zero.

    For layers of maps, the image shows the change of the colors against the zero vector; zero is
    mid-gray.

    With --json, there is an object with output, size, layer and units.

    \b
    Example: unpool generate unit --layer shared.fc4 --unit 28 --unit 29 -o unit.png
    """
    from unpool.generate import activate_units, count_units
    from unpool.generate import list_layers as layers

    generator = load(options)
    if list_layers:
        return _print_layers(layers(generator.model), options["as_json"])
    chosen = list(units) or list(range(min(32, count_units(generator, layer))))
    given = typed({name: options[name] for name in ("value", "position", "azimuth", "elevation")})
    images = activate_units(generator, layer, chosen, **given).images()
    tiles = [(image, str(n)) for image, n in zip(images, chosen, strict=True)]
    size = write_captioned(output, tiles, 8, scale)
    print_written(options, output, [], size=size, layer=layer, units=chosen)


@click.command()
@STYLES
@click.option(
    "--unit",
    "number",
    type=click.IntRange(min=0),
    help="Index of a unit of FC-4.  [default: the one that resembles a zoom most]",
)
@view_options(310, 30)
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
    """Find the unit whose effect resembles a zoom, and generate objects while it grows.

    The search uses the styles that are shown, by default the first three.

    With --json, there is an object with output, size, unit and, after a search, factor (of the
    zoom) and explained (the fraction of the unit's effect that the zoom explains).

    \b
    Example: unpool generate zoom --style 3 -o zoom.png
    """
    from unpool.generate import find_zoom_unit, push_unit

    generator, place = load(options), typed_view(options)
    chosen = parse_styles(styles or generator.styles[:3], generator)
    facts: dict[str, Any] = {"unit": number}
    if number is None:
        with progress("searching units", options["quiet"]) as update:
            found = find_zoom_unit(generator, chosen, progress=update, **place)
        facts = {**found._asdict(), "explained": round(found.explained, 3)}
        facts["factor"] = round(found.factor, 3)
    rows = [push_unit(generator, style, facts["unit"], **place) for style in chosen]
    images = [image for row in rows for image in row]
    size = write(output, [image.on(background) for image in images], len(rows[0]), scale, fps)
    print_written(options, output, images, size=size, **facts)


@click.command()
@click.option(
    "--layer",
    metavar="NAME",
    help="A layer, see --list-layers.  [default: the last with color outputs]",
)
@_LIST
@click.option(
    "--count",
    type=click.IntRange(1, 512),
    help="Number of inputs and outputs shown.  [default: 16]",
)
@scale_option(4)
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
    """Show the learned filters of a layer; zero is mid-gray.

    With --json, there is an object with output, size and layer.

    \b
    Example: unpool generate filters -o filters.png
    """
    from unpool.generate import filter_sheet, list_filters

    generator = load(options)
    names = list_filters(generator)
    if list_layers:
        return _print_layers(names, options["as_json"])
    chosen = layer or [name for name in names if name.startswith("rgb")][-1]
    sheet = filter_sheet(generator, chosen, **typed({"most": count}))
    squares = sheet.repeat(scale, axis=0).repeat(scale, axis=1)
    size = write(output, [squares], 1, 1)
    print_written(options, output, [], size=size, layer=chosen)
