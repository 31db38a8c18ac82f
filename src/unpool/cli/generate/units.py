"""`unpool generate mask`, `unit`, `zoom` and `filters`: the inside of the network."""

from dataclasses import replace
from typing import Any

import click

from unpool.cli.console import progress
from unpool.cli.generate.options import BACKGROUND, STYLE, STYLES, Job, command, layer_options
from unpool.cli.options import position, several_units


@command(
    "mask.png",
    STYLE,
    click.option(
        "--cells",
        multiple=True,
        metavar="NAME",
        help="Cells to keep: center-2, center-4, center-6, center-8, border, checkerboard, or "
        "other, its complement; repeatable.  [default: all of these]",
    ),
    BACKGROUND,
    view=(301, 20),
)
def mask(job: Job, style: str, cells: tuple[str, ...], **view: float) -> None:
    """Generate an object from some cells of its first maps, of 8 x 8.

    With --json, there is an object with output, size, style, cells and notes.

    \b
    Example: unpool generate mask --style 3 -o mask.png
    """
    from unpool.generate import PATTERNS, mask_cells, pattern

    names = list(cells or PATTERNS)
    images = mask_cells(job.generator, job.style(style), [*map(pattern, names)], **view)
    job.write(images, len(names), {"style": style, "cells": names}, names)


@command(
    "unit.png",
    *layer_options("shared.fc4", default="shared.fc4"),
    several_units("Index of a unit or map, from 0; repeatable.  [default: the first 32]"),
    click.option("--value", type=float, help="Activation of the unit.  [default: the authors']"),
    click.option(
        "--position",
        callback=position(),
        metavar="ROW,COLUMN",
        help="Position in a map.  [default: just before the middle]",
    ),
    view=(310, 30),
)
def unit(job: Job, layer: str, list_layers: bool, units: tuple[int, ...], **options: Any) -> None:
    """Generate an image from each unit alone, with all others of its layer at zero.

    For layers of maps, the image shows the change of the colors against the zero vector; zero is
    mid-gray.

    With --json, there is an object with output, size, layer, units and notes.

    \b
    Example: unpool generate unit --layer shared.fc4 --unit 28 --unit 29 -o unit.png
    """
    from unpool.generate import units as network

    if list_layers:
        return job.print_layers(network.list_layers(job.generator.model))
    chosen = list(units) or list(range(min(32, network.count_units(job.generator, layer))))
    images = list(network.activate_units(job.generator, layer, chosen, **options).images())
    size = job.save(images, 8, [str(n) for n in chosen])
    job.report({"size": size, "layer": layer, "units": chosen})


@command(
    "zoom.png",
    STYLES,
    click.option(
        "--unit",
        "number",
        type=click.IntRange(min=0),
        help="Index of a unit of FC-4.  [default: the one that resembles a zoom most]",
    ),
    BACKGROUND,
    view=(310, 30),
    animations=True,
)
def zoom(job: Job, styles: tuple[str, ...], number: int | None = None, **view: Any) -> None:
    """Find the unit whose effect resembles a zoom, and generate objects while it grows.

    The search uses the styles that are shown, by default the first three.

    With --json, there is an object with output, size, unit, notes and, after a search, factor (of
    the zoom) and explained (the fraction of the unit's effect that the zoom explains).

    \b
    Example: unpool generate zoom --style 3 -o zoom.png
    """
    from unpool.generate import find_zoom_unit, push_unit

    chosen = [job.style(text) for text in styles or job.generator.styles[:3]]
    facts: dict[str, Any] = {"unit": number}
    if number is None:
        with progress("searching units", job.quiet) as update:
            found = find_zoom_unit(job.generator, chosen, progress=update, **view)
        number = found.unit
        facts = {name: round(value, 3) for name, value in found._asdict().items()}
    rows = [push_unit(job.generator, style, number, **view) for style in chosen]
    job.write([image for row in rows for image in row], len(rows[0]), facts)


@command(
    "filters.png",
    *layer_options("the last with color outputs"),
    click.option(
        "--count",
        "most",
        type=click.IntRange(1, 512),
        help="Number of inputs and outputs shown.  [default: 16]",
    ),
    scale=4,
)
def filters(job: Job, list_layers: bool, layer: str | None = None, **most: int) -> None:
    """Show the learned filters of a layer; zero is mid-gray.

    With --json, there is an object with output, size, layer and notes.

    \b
    Example: unpool generate filters -o filters.png
    """
    from unpool.generate import filter_sheet, list_filters

    names = list_filters(job.generator)
    if list_layers:
        return job.print_layers(names)
    chosen = layer or [name for name in names if name.startswith("rgb")][-1]
    sheet = filter_sheet(job.generator, chosen, **most)
    squares = sheet.repeat(job.scale, axis=0).repeat(job.scale, axis=1)  # not bicubic
    job.report({"size": replace(job, scale=1).save([squares], 1), "layer": chosen})
