"""The command line: a command reads what was typed, calls an application, and shows what it gives.

Exit codes: 0 done; 2 wrong usage or an error of the user's, told in one line on stderr; 3 some
inputs failed and the others were done; 130 interrupted. Only a bug shows a traceback.

Applications are imported inside the commands, so that `unpool --help` loads neither torch nor
OpenCV. Defaults stand in the applications: what was not typed is not passed on.
"""

import difflib
import io
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import unpool
from unpool import console
from unpool.errors import DataError, OptionError

if TYPE_CHECKING:
    from unpool.fitting import Step
    from unpool.segment import Segmenter
    from unpool.train import Validation
    from unpool.vision.sources import Source

__all__ = ["commands", "main"]

_MODES = ("whole", "instance")


def _choice(name: str, values: Sequence[str], text: str, **more: Any) -> Callable[..., Any]:
    return click.option(name, type=click.Choice(values), help=text, **more)


_FOLDER = click.Path(file_okay=False, path_type=Path)
_FROM_ONE = click.IntRange(min=1)
_WEIGHTS = click.option(
    "--weights",
    default="objects",
    metavar="NAME|FOLDER",
    help="Weights that come with the package, or a folder of weights.  [default: objects]",
)
_PRESET = _choice("--preset", ["paper", "reference"], "Proposals to squares.  [default: paper]")
_PROPOSALS = click.option("--proposals", type=_FROM_ONE, help="At most.  [default: 50]")
_DATA = click.option("--data", type=_FOLDER, required=True, help="A folder of labeled pictures.")
_DEVICE = click.option("--device", metavar="auto|cpu|cuda[:n]", help="[default: auto]")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
_QUIET = click.option("--quiet", is_flag=True, help="Show neither progress nor tables.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: what follows the name of the program; that of the process when not given.

    Returns:
        The exit code.

    >>> main(["segment", "nowhere.jpg"])
    2
    """
    args = list(sys.argv[1:] if argv is None else argv)
    command = shlex.join(["unpool", *args])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    try:
        with (
            console.terminable(),
            commands.make_context("unpool", args or ["--help"], obj=command) as context,
        ):
            return int(commands.invoke(context) or 0)
    except click.exceptions.Exit as done:  # after --help and --version
        return done.exit_code
    except KeyboardInterrupt:
        console.complain("interrupted")
        return 130
    except BrokenPipeError:  # who read the output has gone
        return 130
    except Exception as error:
        if not (message := console.reason(error)):
            raise
        console.complain(message)
        return 2
    finally:
        console.drop_unwritten()


def _typed(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were typed; the others are None, and their defaults stand elsewhere."""
    return {name: value for name, value in options.items() if value is not None}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(unpool.__version__, message="%(prog)s %(version)s")
def commands() -> None:
    """Deconvolution networks: segment pictures; train and measure what segments them."""


@commands.command()
@click.argument("inputs", nargs=-1, required=True)
@click.option("-o", "--output", type=_FOLDER, default="segmented", help="[default: segmented]")
@_WEIGHTS
@_choice("--mode", _MODES, "In one piece, or proposal by proposal.  [default: the weights']")
@_PRESET
@_PROPOSALS
@_choice("--method", ["edgeboxes", "grid"], "Of the proposals.  [default: edgeboxes]")
@click.option("--batch", type=_FROM_ONE, help="Squares at a time.  [default: 8]")
@_choice("--precision", ["auto", "bf16", "fp32"], "[default: auto]")
@click.option("--overlay/--no-overlay", default=True, help="Write overlays.  [default: overlay]")
@_DEVICE
@_JSON
@_QUIET
def segment(
    inputs: tuple[str, ...],
    output: Path,
    weights: str,
    device: str | None,
    precision: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Give a class to every pixel of pictures.

    INPUTS are pictures, folders, patterns, lists of paths (.txt), or - for the standard input.

    For a/cat.jpg in the folder photos this writes OUTPUT/a/cat.png, an index PNG with a palette,
    as large as the upright picture, and OUTPUT/a/cat.overlay.jpg. It never writes over an input.
    What cannot be used is reported, the rest is done, and the exit code is 3.

    With --json, the line of a picture has source, mask (its path), size ([width, height]), labels
    (the share of the pixels of each class) and seconds; or source and error.

    \b
    Example: unpool segment photos "more/*.jpg" -o out --json
    """
    from unpool.vision.sources import find_images, spare_inputs

    sources = find_images(inputs)
    masks = [output / f"{source.name}.png" for source in sources]
    spare_inputs(sources, [*masks, *(mask.with_suffix(".overlay.jpg") for mask in masks)])
    output.mkdir(parents=True, exist_ok=True)
    if not os.access(output, os.W_OK):
        raise OptionError(f"got {output}, which may not be written to; choose another with -o")

    from unpool.segment import Segmenter

    build = _typed({"device": device, "precision": precision})
    segmenter = Segmenter.from_pretrained(weights, **build)
    failed = 0
    with console.progress("segmenting", quiet) as show:
        for i, (source, mask) in enumerate(zip(sources, masks, strict=True)):
            options["progress"] = lambda done, total, i=i: show(i + done / total, len(sources))
            record = _segment(segmenter, source, mask, **_typed(options))
            failed += "error" in record
            show(i + 1, len(sources))
            console.print_segmented(record, as_json, quiet)
    if not (as_json or quiet):
        click.echo(f"{len(sources) - failed} of {len(sources)} segmented, into {output}")
    return 3 if failed else 0


def _segment(
    segmenter: "Segmenter", source: "Source", mask: Path, overlay: bool, **options: Any
) -> dict[str, Any]:
    """Segment one picture, write the results, and give what is to be said of it."""
    from unpool.vision.images import read_image

    record = {"source": "-" if source.path is None else str(source.path)}
    start = time.perf_counter()
    try:
        image = read_image(sys.stdin.buffer if source.path is None else source.path)
        found = segmenter(image, **options)
        found.save(mask, overlay=overlay)
    except Exception as error:
        if console.disk_is_full(error) or not (message := console.reason(error)):
            raise
        return {**record, "error": message}
    return {
        **record,
        "mask": str(mask),
        "size": [image.shape[1], image.shape[0]],
        "labels": found.shares(),
        "seconds": round(time.perf_counter() - start, 3),
    }


@commands.command()
@_WEIGHTS
@_DATA
@click.option("--split", default="val", help="Of the data; all for every picture.  [default: val]")
@_choice("--mode", [*_MODES, "both"], "How to segment.  [default: both]", default="both")
@_PRESET
@_PROPOSALS
@click.option("-o", "--output", type=_FOLDER, help="A folder for summary.json and iou.csv.")
@_DEVICE
@_JSON
@_QUIET
def evaluate(
    weights: str,
    data: Path,
    split: str,
    mode: str,
    output: Path | None,
    device: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Measure weights on labeled pictures.

    The data has VOC's layout (JPEGImages, SegmentationClass, ImageSets), or images and masks.
    Pictures that cannot be read are dropped and named; the exit code is then 3.

    With --json, an object has the figures of the weights' own mode and their protocol at its top,
    and those of each mode under modes.

    \b
    Example: unpool evaluate --data VOC2012 --split val -o figures
    """
    from unpool.data.voc import open_data
    from unpool.evaluate import evaluate as measure
    from unpool.segment import Segmenter

    start = time.perf_counter()
    labeled = open_data(data, split)
    segmenter = Segmenter.from_pretrained(weights, **_typed({"device": device}))
    modes = {}
    for name in _MODES if mode == "both" else (mode,):
        with console.progress(f"evaluating, {name}", quiet) as show:
            modes[name] = measure(segmenter, labeled, mode=name, progress=show, **_typed(options))
    summary = modes.get(segmenter.mode, modes[name]) | {
        "modes": modes,
        "weights": weights,
        "data": str(data),
        "split": split,
        "seconds": round(time.perf_counter() - start, 3),
    }
    if output is not None:
        console.write_figures(output, summary)
    if as_json:
        console.print_json(summary)
    else:
        console.print_figures(modes, quiet)
    return 3 if summary["dropped"] else 0


@commands.command()
@click.argument("recipe")
@_DATA
@click.option("-o", "--output", type=_FOLDER, required=True, help="The run folder.")
@click.option("--split", help="To learn from.  [default: train]")
@click.option("--val", help="To choose by.  [default: val]")
@click.option("--trunk-weights", type=click.Path(path_type=Path), help="VGG weights to begin with.")
@_choice("--trunk-inputs", ["caffe", "torchvision"], "What those take.  [default: caffe]")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a value of the recipe, such as phases.0.steps=100; may be repeated.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of the run folder.")
@_DEVICE
@_JSON
@_QUIET
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

    from unpool.fitting import Step
    from unpool.train import train as application

    with console.progress("training", quiet) as show:

        def report(event: "Step | Validation") -> None:
            if isinstance(event, Step):
                show(event.n, steps, f"{event.phase}, loss {event.loss:.3f}, lr {event.lr:.1e}")
            elif as_json:
                console.print_json(event._asdict())
            elif not quiet:
                miou = console.percent(event.miou)
                click.echo(f"step {event.n} of {steps}, {event.phase}: mean IoU {miou} %")

        summary = application(
            data, output, chosen, command=command, report=report, **_typed(options)
        )
    if as_json:
        console.print_json(summary)
    else:
        console.print_figures({summary["mode"]: summary}, quiet)


@commands.command()
@click.argument("data", type=_FOLDER)
@click.option("--split", "splits", multiple=True, help="May be repeated.  [default: all]")
@_JSON
@_QUIET
def check(data: Path, splits: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Look for mistakes in labeled pictures, before training on them.

    Errors make the exit code 2; warnings alone leave it 0.

    \b
    Example: unpool check VOC2012 --split train --split val
    """
    from unpool.data.check import check_data

    with console.progress("checking", quiet) as show:
        report = check_data(data, list(splits) or None, progress=show)
    if as_json:
        console.print_json(report.to_json())
    elif not quiet:
        console.print_report(report)
    if not report.ok:
        errors = sum(finding.level == "error" for finding in report.findings)
        raise DataError(f"{data} has {errors} error{'s' * (errors > 1)}; correct, and check again")


@commands.command()
@click.argument("source")
@click.argument("target", type=_FOLDER)
@_choice("--batch-norm", ["folded", "training"], "Of a .caffemodel.  [default: by its name]")
@click.option("--int8", is_flag=True, help="Store filters as int8, at a quarter of the size.")
@_JSON
@_QUIET
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
    from unpool.convert import convert as application

    facts = application(source, target, command=command, **_typed(options))._asdict()
    if as_json:
        console.print_json(facts)
    elif not quiet:
        console.print_facts(facts)


@commands.command()
@click.option("--weights", metavar="NAME|FOLDER", help="Show their card.")
@_JSON
def info(weights: str | None, as_json: bool) -> None:
    """Show versions, devices, weights and recipes, or the card of weights.

    \b
    Example: unpool info --weights objects
    """
    from unpool.models.weights import list_pretrained, read_card
    from unpool.recipes import RECIPES

    if weights is not None:
        facts = read_card(weights)
    else:
        cards = {name: read_card(name) for name in list_pretrained()}
        about = ("figures", "license")
        facts = _machine() | {
            "weights": {name: {k: card.get(k) for k in about} for name, card in cards.items()},
            "recipes": list(RECIPES),
        }
    (console.print_json if as_json else console.print_facts)(facts)


def _machine() -> dict[str, Any]:
    """The versions of what computes, and what there is to compute on."""
    import cv2
    import numpy as np
    import torch

    from unpool.models.fast import bf16_pays
    from unpool.train import environment

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return environment() | {
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "devices": devices,
        "bf16": [device for device in devices if bf16_pays(torch.device(device))],
    }
