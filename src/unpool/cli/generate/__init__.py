"""`unpool generate`: images of objects from their style, view and transformation."""

import click

from unpool.cli.lazy import LazyCommands

__all__ = ["generate"]

MODULES = {
    "views": ("list", "view", "grid", "compare"),
    "sequences": ("interpolate", "morph", "transform", "correspond"),
    "units": ("mask", "unit", "zoom", "filters"),
}


@click.group(
    commands=LazyCommands(
        "unpool.cli.generate", {name: home for home, names in MODULES.items() for name in names}
    )
)
def generate() -> None:
    """Generate images of objects: chairs, with the default weights.

    The suffix of the output selects an image or an animation (.gif, .webp, .mp4).

    \b
    Example: unpool generate list -o styles.png
             unpool generate view --style 0 --azimuth 30 -o chair.png
             unpool generate morph --from 0 --to 1 -o morph.gif
    """
