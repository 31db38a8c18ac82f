"""`unpool train`: a network for labeled pictures, by a recipe."""

import difflib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool import console
from unpool.cli.options import DATA, DEVICE, JSON, QUIET, Folder, choice, typed
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.fitting import Step
    from unpool.runs import Preparation, Validation

__all__ = ["train"]


@click.command()
@click.argument("recipe")
@DATA
@click.option(
    "-o",
    "--output",
    type=Folder(),
    required=True,
    metavar="FOLDER",
    help="The run folder; made if it is missing.",
)
@click.option("--split", help="The part of the data to learn from.  [default: train]")
@click.option(
    "--val", help="The part of the data by which the best weights are chosen.  [default: val]"
)
@click.option(
    "--trunk-weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights of a VGG network for the trunk to begin with, rather than random ones.",
)
@choice(
    "--trunk-inputs",
    ["caffe", "torchvision"],
    "What these weights were trained on: caffe for BGR from 0 to 255, torchvision for normalized "
    "RGB.  [default: caffe]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a value of the recipe, such as phases.0.steps=100; may be repeated.",
)
@click.option("--tensorboard", is_flag=True, help="Write records for TensorBoard, too.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of the run folder.")
@DEVICE
@JSON
@QUIET
@click.pass_obj
def train(
    command: str,
    /,
    recipe: str,
    data: Path,
    output: Path,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train a network by a RECIPE; `unpool info` names the recipes.

    The run folder gets the weights, for --weights OUTPUT/weights, and what an interrupted run
    needs to go on.

    With --json, each validation gives a line, and the last line is the summary of the evaluation.

    \b
    Example: unpool train objects --data VOC2012 -o runs/first --set batch=8
    """
    from unpool.recipes import RECIPES, override

    if recipe not in RECIPES:
        near = difflib.get_close_matches(recipe, RECIPES, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise OptionError(f"got recipe {recipe!r}; {hint}the recipes are {', '.join(RECIPES)}")
    chosen = override(RECIPES[recipe], list(settings))
    steps = sum(phase.steps for phase in chosen.phases)

    from unpool import parallel
    from unpool.fitting import Step
    from unpool.runs import Preparation
    from unpool.train import train as application

    speaks = parallel.speaks()
    with console.progress("training", quiet or not speaks) as show, console.plain_warnings():

        def report(event: "Step | Validation | Preparation") -> None:
            if isinstance(event, Step):
                show(event.n, steps, f"{event.phase}, loss {event.loss:.3f}, lr {event.lr:.1e}")
            elif isinstance(event, Preparation):
                show(event.done, event.total, "looking for proposals")
            elif as_json:
                console.print_json(event._asdict())
            elif not quiet:
                miou = console.percent(event.miou)
                click.echo(f"step {event.n} of {steps}, {event.phase}: mean IoU {miou} %")

        summary = application(
            data, output, chosen, command=command, report=report, **typed(options)
        )
    if as_json and speaks:
        console.print_json(summary)
    elif speaks:
        console.print_figures({summary["mode"]: summary}, quiet)
        if not quiet:
            weights = shlex.quote(str(output / "weights"))
            click.echo(f"weights in {weights}; try unpool segment PHOTOS --weights {weights}")
