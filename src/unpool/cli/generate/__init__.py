"""`unpool generate`: objects from their style, view and transformation."""

import click

from unpool.cli.generate.compare import compare
from unpool.cli.generate.units import filters, mask, unit, zoom
from unpool.cli.generate.sequences import correspond, interpolate, morph, transform
from unpool.cli.generate.views import grid, list_, view

__all__ = ["generate"]


@click.group()
def generate() -> None:
    """Draw objects: chairs, with the default weights.

    What is written depends on the ending of the file: an image, or an animation (.gif, .mp4).

    \b
    Example: unpool generate list -o styles.png
             unpool generate view --style 0 --azimuth 30 -o chair.png
             unpool generate morph --from 0 --to 1 -o morph.gif
    """


for command in (
    list_,
    view,
    grid,
    interpolate,
    morph,
    transform,
    correspond,
    mask,
    unit,
    zoom,
    filters,
    compare,
):
    generate.add_command(command)
