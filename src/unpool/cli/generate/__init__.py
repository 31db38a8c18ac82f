"""`unpool generate`: images of objects from their style, view and transformation."""

import click

from unpool.cli.generate.sequences import correspond, interpolate, morph, transform
from unpool.cli.generate.units import filters, mask, unit, zoom
from unpool.cli.generate.views import compare, grid, list_, view

__all__ = ["generate"]


@click.group(
    commands=[
        *(list_, view, grid, compare),
        *(interpolate, morph, transform, correspond),
        *(mask, unit, zoom, filters),
    ]
)
def generate() -> None:
    """Generate images of objects: chairs, with the default weights.

    The suffix of the output selects an image or an animation (.gif, .mp4).

    \b
    Example: unpool generate list -o styles.png
             unpool generate view --style 0 --azimuth 30 -o chair.png
             unpool generate morph --from 0 --to 1 -o morph.gif
    """
