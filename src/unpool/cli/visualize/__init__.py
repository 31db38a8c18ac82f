"""`unpool visualize`: what networks have learned, and what in an image excites them."""

import click

from unpool.cli.lazy import LazyCommands

NAMES = (
    *("correspond", "decode", "evolve", "filters", "invariance", "occlude", "parts", "project"),
    "top",
)


@click.group(commands=LazyCommands("unpool.cli.visualize", {name: name for name in NAMES}))
def visualize() -> None:
    """Visualize what a network has learned: weights of this package, or any PyTorch model.

    \b
    Example: unpool visualize project photo.jpg --layer trunk.stages.4 -o out
             unpool visualize top photos -o out --torch-model nets:build --layer layer3
    """
