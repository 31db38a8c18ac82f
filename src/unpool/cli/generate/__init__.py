"""`unpool generate`: images of objects from their style, view and transformation."""

import click

from unpool.cli.generate import compare, sequences, units, views

__all__ = ["generate"]


@click.group()
def generate() -> None:
    """Generate images of objects: chairs, with the default weights.

    The suffix of the output selects an image or an animation (.gif, .mp4).

    \b
    Example: unpool generate list -o styles.png
             unpool generate view --style 0 --azimuth 30 -o chair.png
             unpool generate morph --from 0 --to 1 -o morph.gif
    """


for command in (
    views.list_,
    views.view,
    views.grid,
    sequences.interpolate,
    sequences.morph,
    sequences.transform,
    sequences.correspond,
    units.mask,
    units.unit,
    units.zoom,
    units.filters,
    compare.compare,
):
    generate.add_command(command)
