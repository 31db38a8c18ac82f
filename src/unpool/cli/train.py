"""`unpool train`: a network that segments, classifies or draws, by a recipe."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli import console
from unpool.cli.options import DEVICE, JSON, QUIET, Folder, choice, typed
from unpool.cli.progress import progress
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.classify.train import Accuracy, Plan
    from unpool.generate.train import Likeness
    from unpool.recipes import ClassificationRecipe, GenerationRecipe, Recipe, SegmentationRecipe
    from unpool.segment.train import Validation
    from unpool.training.loop import Step
    from unpool.training.task import Preparation

_LISTED = 40  # classes that are printed, at most


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
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[RUN]",
    help="Go on from the last checkpoint of a run folder; nothing else is needed.",
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
    """Train a network by a RECIPE; `unpool info` names the recipes.

    The run folder gets the weights, for --weights OUTPUT/weights, and what an interrupted run
    needs to go on.

    Most recipes train to segment; zfnet and zfnet-small train to classify, and take a folder with a
    folder for each class (train/cat, val/cat ..., or cat, dog ...). Those that begin with chairs
    train to draw, and take a folder of rendered views, as unpool render makes it.

    With --json, each validation gives a line, and the last line is the summary of the evaluation.

    An interrupted run goes on with unpool train --resume RUN.

    \b
    Example: unpool train objects --data VOC2012 -o runs/first --set batch=8
    Example: unpool train zfnet-small --data FOLDER -o runs/second
    Example: unpool train chairs --data RENDERS -o runs/third
    Example: unpool train --resume runs/first
    """
    from unpool.recipes import find_recipe, override

    if resume:
        given = {"data": data, "output": output, **typed(options)}
        chosen, data, output, options = _recall(Path(resume), recipe, settings, given)
    elif recipe is None or data is None or output is None:
        lacking = [("RECIPE", recipe), ("--data", data), ("--output", output)]
        missing = ", ".join(name for name, value in lacking if value is None)
        raise OptionError(
            f"got no {missing}; wanted unpool train RECIPE --data FOLDER --output FOLDER, or "
            "unpool train --resume RUN"
        )
    else:
        chosen = override(find_recipe(recipe), list(settings))
    options["resume"] = resume is not None
    shown = {"as_json": as_json, "quiet": quiet}
    passed = {**typed(options), "command": command}
    try:
        _train(chosen, data, output, passed, shown)
    except KeyboardInterrupt:
        from unpool.training.run import begun

        if not begun(output):
            raise
        raise KeyboardInterrupt(
            f"interrupted; resume with: unpool train --resume {shlex.quote(str(output))}"
        ) from None


def _train(
    chosen: "Recipe", data: Path, output: Path, passed: dict[str, Any], shown: dict[str, bool]
) -> None:
    from unpool.recipes import ClassificationRecipe, GenerationRecipe, SegmentationRecipe

    if isinstance(chosen, ClassificationRecipe):
        _refuse(
            chosen, passed, "trunk_weights", "trunk_inputs", why="whose network has no VGG trunk"
        )
        _classify(data, output, chosen, passed, **shown)
    elif isinstance(chosen, GenerationRecipe):
        why = "which learns from rendered views"
        _refuse(chosen, passed, "trunk_weights", "trunk_inputs", "split", "val", why=why)
        _draw(data, output, chosen, passed, **shown)
    else:
        assert isinstance(chosen, SegmentationRecipe)
        _segment(data, output, chosen, passed, **shown)


def _recall(
    run: Path, recipe: str | None, settings: tuple[str, ...], given: dict[str, Any]
) -> "tuple[Recipe, Path, Path, dict[str, Any]]":
    """The recipe, data, run folder and options of a run; refuses others given beside `--resume`."""
    from dataclasses import fields

    from unpool.recipes import KINDS, find_recipe, override
    from unpool.training.run import read_arguments

    values, arguments = read_arguments(run)
    stored: Recipe = KINDS[arguments.pop("kind")].from_json(values)
    wanted = override(find_recipe(recipe) if recipe else stored, list(settings))
    for field in fields(stored):
        ours, theirs = getattr(stored, field.name), getattr(wanted, field.name, None)
        if ours != theirs:
            raise OptionError(
                f"got {field.name}={theirs} to resume {run}, which was begun with "
                f"{field.name}={ours}; leave it out, or begin a new run"
            )
    begun_with: dict[str, Any] = {**arguments, "output": str(run.resolve())}
    for name, value in given.items():
        shown = str(value.resolve()) if isinstance(value, Path) else value
        if value is not None and name in begun_with and shown != begun_with[name]:
            raise OptionError(
                f"got {name}={shown} to resume {run}, which was begun with "
                f"{name}={begun_with[name]}; leave it out, or begin a new run"
            )
    data = Path(arguments.pop("data"))
    more: dict[str, Any] = {n: given[n] for n in ("device", "tensorboard") if n in given}
    return stored, data, run, {**typed(arguments), **more}


def _refuse(
    recipe: "ClassificationRecipe | GenerationRecipe",
    options: dict[str, Any],
    *names: str,
    why: str,
) -> None:
    """Refuse options that a recipe of this kind has no use for."""
    if idle := sorted(set(names) & options.keys()):
        raise OptionError(
            f"got --{idle[0].replace('_', '-')} for the recipe {recipe.name}, {why}; leave it out"
        )


def _segment(
    data: Path,
    output: Path,
    recipe: "SegmentationRecipe",
    options: dict[str, Any],
    as_json: bool,
    quiet: bool,
) -> None:
    from unpool import distributed
    from unpool.segment.train import train as application
    from unpool.training.loop import Step
    from unpool.training.task import Preparation

    speaks, steps = distributed.is_main_process(), sum(phase.steps for phase in recipe.phases)
    with progress("training", quiet or not speaks) as show, console.plain_warnings():

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

        summary = application(data, output, recipe, report=report, **options)
    if as_json and speaks:
        console.print_json(summary)
    elif speaks:
        console.print_figures({summary["mode"]: summary}, quiet)
        if not quiet:
            weights = shlex.quote(str(output / "weights"))
            click.echo(f"weights in {weights}; try unpool segment PHOTOS --weights {weights}")


def _classify(
    data: Path,
    output: Path,
    recipe: "ClassificationRecipe",
    options: dict[str, Any],
    as_json: bool,
    quiet: bool,
) -> None:
    from unpool import distributed
    from unpool.classify.train import Plan, train_classifier
    from unpool.training.loop import Step

    speaks, steps = distributed.is_main_process(), 0
    with progress("training", quiet or not speaks) as show, console.plain_warnings():

        def report(event: "Plan | Step | Accuracy") -> None:
            nonlocal steps
            if isinstance(event, Plan):
                steps = event.steps
                if not quiet and not as_json:
                    click.echo(
                        f"{event.images} images of {event.classes} classes: {event.epochs} "
                        f"epochs, {steps} steps"
                    )
            elif isinstance(event, Step):
                show(event.n, steps, f"{event.phase}, loss {event.loss:.3f}, lr {event.lr:.1e}")
            elif as_json:
                console.print_json(event._asdict())
            elif not quiet:
                top1, top5 = console.percent(event.top1), console.percent(event.top5)
                click.echo(
                    f"epoch {event.epoch} of {recipe.epochs}: top-1 {top1} %, top-5 {top5} %"
                )

        summary = train_classifier(data, output, recipe, report=report, **options)
    if as_json and speaks:
        console.print_json(summary)
    elif speaks and not quiet:
        _print_accuracy(summary)
        click.echo(f"weights in {shlex.quote(str(output / 'weights'))}")


def _draw(
    data: Path,
    output: Path,
    recipe: "GenerationRecipe",
    options: dict[str, Any],
    as_json: bool,
    quiet: bool,
) -> None:
    from unpool import distributed
    from unpool.generate.train import train_generator
    from unpool.training.loop import Step
    from unpool.training.task import Preparation

    speaks = distributed.is_main_process()
    with progress("training", quiet or not speaks) as show, console.plain_warnings():

        def report(event: "Step | Likeness | Preparation") -> None:
            if isinstance(event, Step):
                show(event.n, recipe.steps, f"loss {event.loss:.3g}, lr {event.lr:.1e}")
            elif isinstance(event, Preparation):
                show(event.done, event.total, "reading views")
            elif as_json:
                console.print_json(event._asdict())
            elif not quiet:
                click.echo(f"step {event.n} of {recipe.steps}: {_likeness(event._asdict())}")

        summary = train_generator(data, output, recipe, report=report, **options)
    if as_json and speaks:
        console.print_json(summary)
    elif speaks and not quiet:
        click.echo(f"{_likeness(summary)}, on {summary['views']} {summary['protocol']}")
        click.echo(f"weights in {shlex.quote(str(output / 'weights'))}")


def _likeness(figures: dict[str, Any]) -> str:
    return f"MSE {figures['mse']:.2e} inside the mask, IoU of the mask {figures['iou']:.3f}"


def _print_accuracy(summary: dict[str, Any]) -> None:
    """Print the share found of each class, if there are not too many, and top-1 and top-5."""
    low, high = map(console.percent, summary["top1_interval"])
    recall = summary["recall"] if len(summary["recall"]) <= _LISTED else {}
    rows = [
        ["%", "found"],
        *([name, console.percent(share)] for name, share in recall.items()),
        ["top-1", console.percent(summary["top1"])],
        ["95 % interval", f"{low} to {high}"],
        ["top-5", console.percent(summary["top5"])],
    ]
    console.print_table(rows)
    click.echo(summary["protocol"])
