"""`unpool train`: train a network by a recipe."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli import console
from unpool.cli.options import BY_COLOR, CROWD, DEVICE, JSON, QUIET, Folder, choice, typed
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.training.task import Task


@click.command()
@click.argument("recipe", required=False)
@click.option(
    "--data",
    multiple=True,
    metavar="FOLDER[:SPLIT][=WEIGHT]",
    help="Labeled images, in a layout that `unpool check` knows. May be repeated for segmentation: "
    "other:pseudo=0.3 draws the images of that split three in ten times as often.",
)
@click.option(
    "-o", "--output", type=Folder(), metavar="FOLDER", help="The run folder; created if missing."
)
@click.option("--split", help="The part of the data to train on.  [default: train]")
@click.option(
    "--val",
    multiple=True,
    metavar="SPLIT|FOLDER:SPLIT",
    help="The part of the data to validate on, to keep the best weights: this split of each folder "
    "that has it. May be repeated.  [default: val]",
)
@click.option(
    "--soft",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Soft labels to distill from, with --set distill=1: NAME.npy for images that have any, "
    "logits (classes, h, w) of another network.",
)
@click.option(
    "--trunk-weights",
    type=click.Path(path_type=Path),
    metavar="FILE|FOLDER",
    help="Pretrained VGG weights for the trunk, or a folder of weights with such a trunk; random "
    "ones otherwise.",
)
@choice(
    "--trunk-inputs",
    ["caffe", "torchvision"],
    "Preprocessing of these weights: caffe for BGR from 0 to 255, torchvision for normalized "
    "RGB.  [default: caffe]",
)
@BY_COLOR
@CROWD
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
    data: tuple[str, ...],
    val: tuple[str, ...],
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
    chairs train a generator, on rendered views, which unpool render makes. coder and coder-deep
    learn the filters of a sparse coder from any folder of images. deblur-given, deblur-blind,
    crcnet, msresnet and srn train networks that deblur, on any folder of sharp images.

    With --json, each validation prints a line, and the last line is the summary of the evaluation.

    Continue an interrupted run with unpool train --resume RUN.

    \b
    Example: unpool train objects --data VOC2012 -o runs/first --set batch=8
    Example: unpool train zfnet-small --data FOLDER -o runs/second
    Example: unpool train chairs --data RENDERS -o runs/third
    Example: unpool train coder --data PHOTOS -o runs/parts
    Example: unpool train deblur-given --data PHOTOS -o runs/sharp
    Example: unpool train --resume runs/first
    """
    from unpool.recipes import find_recipe
    from unpool.recipes.overrides import parse_setting
    from unpool.training.task import resumed_task

    engine = {name: options.pop(name) for name in ("device", "tensorboard")}
    values = dict(map(parse_setting, settings))
    options["val"] = val[0] if len(val) == 1 else list(val) or None
    if resume:
        given = {"data": data or None, "output": output, **options}
        task, output = resumed_task(Path(resume), recipe, values, given), Path(resume)
    elif recipe is None or not data or output is None:
        wanted = {"RECIPE": recipe, "--data": data or None, "--output": output}
        missing = ", ".join(name for name, value in wanted.items() if value is None)
        if resume is not None:
            missing = "RUN after --resume"
        raise OptionError(
            f"got no {missing}; wanted unpool train RECIPE --data FOLDER --output FOLDER, or "
            "unpool train --resume RUN"
        )
    else:
        task = find_recipe(recipe, **values).make_task(data, **typed(options))
    engine |= {"resume": resume is not None, "command": command}
    try:
        _train(task, output, typed(engine), as_json, quiet)
    except KeyboardInterrupt:
        from unpool.training.run import has_run

        if not has_run(output):
            raise
        raise KeyboardInterrupt(
            f"interrupted; resume with: unpool train --resume {shlex.quote(str(output))}"
        ) from None


def _train(
    task: "Task[Any]", output: Path, options: dict[str, Any], as_json: bool, quiet: bool
) -> None:
    """Train, show the progress, and print the summary."""
    from unpool.distributed import is_main_process
    from unpool.training.task import reporter, train

    def write(text: str, record: Any) -> None:
        if not as_json and not quiet:
            click.echo(text)
        elif as_json and record is not None:
            console.print_json(record._asdict())

    with console.progress("training", quiet or not is_main_process()) as show:
        summary = train(task, output, report=reporter(task, show, write), **options)
    if not is_main_process():
        return
    if as_json:
        console.print_json(summary)
        return
    for image, message in summary.get("dropped", {}).items():
        console.print_error(f"dropped {image}: {message}")
    if not quiet:
        figures = {name: console.in_percent(f) for name, f in task.figures(summary).items()}
        console.print_table([[k, "-" if v is None else str(v)] for k, v in figures.items()])
        click.echo(summary["protocol"])
        weights = shlex.quote(str(output / "weights"))
        click.echo(
            f"weights in {weights}" + (f"; try {task.usage} {weights}" if task.usage else "")
        )
