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


@click.group()
def visualize() -> None:
    """Look into a network, one of ours or any of PyTorch.

    --list-layers shows what its layers are called.

    \b
    Example: unpool visualize project photo.jpg --layer trunk.stages.4 -o out
             unpool visualize top photos -o out --torch-model nets:build --layer layer3
    """


visualize.add_command(decode)
visualize.add_command(occlude)
visualize.add_command(project)
visualize.add_command(top)
visualize.add_command(correspond)
visualize.add_command(evolve)
visualize.add_command(filters)
visualize.add_command(invariance)
