"""`unpool visualize`: what networks have learned, and what in an image excites them."""

import click

from unpool.cli.visualize.correspond import correspond
from unpool.cli.visualize.decode import decode
from unpool.cli.visualize.evolve import evolve
from unpool.cli.visualize.filters import filters
from unpool.cli.visualize.invariance import invariance
from unpool.cli.visualize.occlude import occlude
from unpool.cli.visualize.project import project
from unpool.cli.visualize.top import top


@click.group(commands=[correspond, decode, evolve, filters, invariance, occlude, project, top])
def visualize() -> None:
    """Visualize what a network has learned: weights of this package, or any PyTorch model.

    \b
    Example: unpool visualize project photo.jpg --layer trunk.stages.4 -o out
             unpool visualize top photos -o out --torch-model nets:build --layer layer3
    """
