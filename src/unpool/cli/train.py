"""`unpool train`: train a network by a recipe."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli import console
from unpool.cli.options import DEVICE, JSON, QUIET, Folder, choice, typed
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.recipes import Recipe
    from unpool.training.task import Report, Task


@click.command()
@click.argument("recipe", required=False)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Labeled images, in a layout that `unpool check` knows.",
)
@click.option(
    "-o",
    "--output",
    type=Folder(),
    metavar="FOLDER",
    help="The run folder; created if it is missing.",
)
@click.option("--split", help="The part of the data to train on.  [default: train]")
@click.option(
    "--val", help="The part of the data to validate on, to keep the best weights.  [default: val]"
)
@click.option(
    "--trunk-weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Pretrained VGG weights for the trunk, which has random ones otherwise.",
)
@choice(
    "--trunk-inputs",
    ["caffe", "torchvision"],
    "Preprocessing of these weights: caffe for BGR from 0 to 255, torchvision for normalized "
    "RGB.  [default: caffe]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Override a value of the recipe, such as phases.0.steps=100; may be repeated.",
)
@click.option("--tensorboard", is_flag=True, help="Write records for TensorBoard as well.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[RUN]",
    help="Continue from the last checkpoint of a run folder; nothing else is needed.",
)
@DEVICE
@JSON
@QUIET
@click.pass_obj
def train(
    command: str,
    /,
    recipe: str | None,
    data: Path | None,
    output: Path | None,
    settings: tuple[str, ...],
    resume: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train a network by a RECIPE; `unpool info` lists the recipes.

    The run folder gets the weights, for --weights OUTPUT/weights, and checkpoints.

    Most recipes train segmentation. zfnet and zfnet-small train a classifier, on a folder with a
    subfolder for each class (train/cat, val/cat ..., or cat, dog ...). Those whose names begin with
    chairs train a generator, on rendered views, which unpool render makes.

    With --json, each validation prints a line, and the last line is the summary of the evaluation.

    Continue an interrupted run with unpool train --resume RUN.

    \b
    Example: unpool train objects --data VOC2012 -o runs/first --set batch=8
    Example: unpool train zfnet-small --data FOLDER -o runs/second
    Example: unpool train chairs --data RENDERS -o runs/third
    Example: unpool train --resume runs/first
    """
    from unpool.recipes import find_recipe, override

    engine = {name: options.pop(name) for name in ("device", "tensorboard")}
    options = typed(options)
    if resume:
        given = typed({"data": data, "output": output, **options})
        chosen, stored = _recall(Path(resume), recipe, settings, given)
        data, output, options = Path(stored.pop("data")), Path(resume), {**stored, **options}
    elif recipe is None or data is None or output is None:
        values = {"RECIPE": recipe, "--data": data, "--output": output}
        missing = ", ".join(name for name, value in values.items() if value is None)
        if resume is not None:
            missing = "RUN after --resume"
        raise OptionError(
            f"got no {missing}; wanted unpool train RECIPE --data FOLDER --output FOLDER, or "
            "unpool train --resume RUN"
        )
    else:
        chosen = override(find_recipe(recipe), list(settings))
    task = chosen.make_task(data, **options)
    engine |= {"resume": resume is not None, "command": command}
    try:
        _train(task, output, typed(engine), as_json, quiet)
    except KeyboardInterrupt:
        from unpool.training.run import has_checkpoint

        if not has_checkpoint(output):
            raise
        raise KeyboardInterrupt(
            f"interrupted; resume with: unpool train --resume {shlex.quote(str(output))}"
        ) from None


def _recall(
    run: Path, recipe: str | None, settings: tuple[str, ...], given: dict[str, Any]
) -> "tuple[Recipe, dict[str, Any]]":
    """The recipe and the arguments of a run, which those given beside `--resume` must equal."""
    from unpool.recipes import find_recipe, override
    from unpool.recipes.overrides import differences
    from unpool.training.run import read_arguments

    stored, arguments = read_arguments(run)
    wanted = override(find_recipe(recipe) if recipe else stored, list(settings))
    plain = {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in given.items()}
    started = {**arguments, "output": str(run.resolve())}
    different = [
        *differences(stored.to_json(), wanted.to_json()),
        *((name, started[name], plain[name]) for name in plain.keys() & started.keys()),
    ]
    for name, before, now in different:
        if before != now:
            raise OptionError(
                f"got {name}={now} to resume {run}, which was started with {name}={before}; leave "
                "it out, or start a new run"
            )
    return stored, typed(arguments)


def _train(
    task: "Task[Any]", output: Path, options: dict[str, Any], as_json: bool, quiet: bool
) -> None:
    """Train, show the progress, and print the summary."""
    from unpool.distributed import is_main_process
    from unpool.training.task import train

    with (
        console.progress("training", quiet or not is_main_process()) as show,
        console.plain_warnings(),
    ):
        summary = train(task, output, report=_reporter(task, show, as_json, quiet), **options)
    if not is_main_process():
        return
    if as_json:
        console.print_json(summary)
        return
    for image, message in summary.get("dropped", {}).items():
        console.print_error(f"dropped {image}: {message}")
    if not quiet:
        figures = task.figures(summary)
        console.print_table([[name, _text(figure)] for name, figure in figures.items()])
        click.echo(summary["protocol"])
        weights = shlex.quote(str(output / "weights"))
        click.echo(
            f"weights in {weights}" + (f"; try {task.usage} {weights}" if task.usage else "")
        )


def _text(figure: Any) -> str:
    """A figure of a summary: fractions in percent, intervals, other values as they are."""
    match figure:
        case float() | None:
            return console.percent(figure) + " %" * (figure is not None)
        case [low, high]:
            return f"{console.percent(low)} to {console.percent(high)} %"
        case _:
            return str(figure)


def _reporter(task: "Task[Any]", show: console.Update, as_json: bool, quiet: bool) -> "Report":
    """A callback that prints validations, and shows everything else as progress."""
    from unpool.training.loop import Step
    from unpool.training.task import Plan, Preparation

    def report(event: Any) -> None:
        match event:
            case Step():
                text = f"{event.phase}, loss {event.loss:.3g}, lr {event.lr:.1e}"
                show(event.n, task.steps, text)
            case Preparation():
                show(*event)
            case Plan():
                if not (quiet or as_json):
                    click.echo(event.text)
            case _ if as_json:
                console.print_json(event._asdict())
            case _ if not quiet:
                click.echo(task.describe(event))

    return report
