"""`unpool convert`: weights of others, or stored anew."""

from pathlib import Path
from typing import Any

import click

from unpool.cli import console
from unpool.cli.options import JSON, QUIET, Folder, choice, typed


@click.command()
@click.argument("source")
@click.argument("target", type=Folder())
@choice(
    "--batch-norm",
    ["folded", "training"],
    "What the batch norm of a .caffemodel means: folded into scale and shift, or still in "
    "training.  [default: by its name]",
)
@click.option("--int8", is_flag=True, help="Store filters as int8, at a quarter of the size.")
@JSON
@QUIET
@click.pass_obj
def convert(
    command: str, /, source: str, target: Path, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Convert weights into the new folder TARGET, for --weights TARGET.

    SOURCE is a .caffemodel of DeconvNet or VGG-16, or weights of this package, to be stored anew.

    Files of Caffe do not tell what their batch norm means. The authors' inference files have it
    folded; those that the solver wrote, named *train_result*, are taken as being in training.

    \b
    Example: unpool convert DeconvNet_trainval_inference.caffemodel deconvnet
    """
    from unpool.models.convert import convert as application

    facts = application(source, target, command=command, **typed(options)).to_dict()
    if as_json:
        console.print_json(facts)
    elif not quiet:
        console.print_facts(facts)
