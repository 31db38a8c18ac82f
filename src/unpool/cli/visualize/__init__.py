"""`unpool visualize`: what networks have learned, and what in a picture excites them."""

import click

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


visualize.add_command(project)
visualize.add_command(top)
