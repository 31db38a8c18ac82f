"""`unpool convert`: convert Caffe weights, or store weights in another form."""

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
    "Form of the batch norm of a .caffemodel: folded into scale and shift, or as in training.  "
    "[default: by its name]",
)
@click.option("--int8", is_flag=True, help="Store filters as int8, a quarter of the size.")
@JSON
@QUIET
@click.pass_obj
def convert(
    command: str, /, source: str, target: Path, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Convert weights into the new folder TARGET, for use as --weights TARGET.

    SOURCE is a .caffemodel of DeconvNet, FCN, SegNet, DeepLab, CRF-RNN, DecoupledNet or VGG-16,
    crfasrnn_weights.pth, or weights of this package to store again.

    Caffe files do not record the form of their batch norm. In the authors' inference files it is
    folded; files named *train_result* or *_iter_*, written by the solver, are read as in training.

    \b
    Example: unpool convert DeconvNet_trainval_inference.caffemodel deconvnet
    """
    from unpool.models.convert import convert as application

    facts = application(source, target, command=command, **typed(options))._asdict()
    if as_json:
        console.print_json(facts)
    elif not quiet:
        console.print_facts(facts)
