"""The options that the commands of `unpool visualize` share, and what is made of them."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from unpool.cli import console
from unpool.cli.options import Folder, choice, typed
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.visualize.preprocessing import LoadedModel

Command = Callable[..., Any]


class Analysis(Protocol):
    """What an analysis gives."""

    @property
    def failed(self) -> dict[str, str]:
        """Images that could not be read, and why."""

    def to_dict(self) -> dict[str, Any]:
        """All of it, as plain values."""


_OF_MODELS = ("weights", "torch_model", "preprocess", "size", "device")


def numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """Numbers with commas between them, as a tuple."""
    try:
        return None if value is None else tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"got {value!r}; wanted numbers with commas, such as 0.5,0.5,0.5.", ctx, param
        ) from None


def place(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """A word as it is, or (row, column)."""
    parts = (value or "").split(",")
    if value in (None, "max", "all"):
        return value
    if len(parts) == 2 and all(part.strip().isdecimal() for part in parts):
        return int(parts[0]), int(parts[1])
    message = f"got {value!r}; wanted max, all, or ROW,COLUMN, such as 3,5."
    raise click.BadParameter(message, ctx, param)


def _all(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


MODEL = _all(
    click.option(
        "--weights",
        metavar="NAME|FOLDER",
        help="Weights that come with the package, or a folder of weights.  [default: objects]",
    ),
    click.option(
        "--torch-model",
        metavar="PACKAGE.MODULE:FACTORY",
        help="Any model instead: what that function gives, called without arguments; a module in "
        "the current folder will do. Its code is run.",
    ),
    click.option(
        "--size",
        type=click.IntRange(1, 4096),
        help="Side in pixels of the middle square that the network sees.  [default: as the card "
        "says, or else 224]",
    ),
    choice(
        "--preprocess",
        ["imagenet", "caffe", "none"],
        "How --torch-model wants its images: imagenet for RGB normalized by ImageNet's mean and "
        "standard deviation, caffe for BGR minus the mean, none for RGB from 0 to 1.  [default: as "
        "the factory says, or else imagenet]",
    ),
)
LABELED = _all(
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Instead of INPUTS, labeled images in a layout that `unpool evaluate` knows.",
    ),
    click.option(
        "--split", metavar="NAME", help="Of --data: the part that is looked at.  [default: all]"
    ),
)
LAYERS = _all(
    click.option(
        "--layer",
        "layers",
        multiple=True,
        metavar="NAME",
        help="A layer to look at; can be given several times.  [default: the last of each stage]",
    ),
    click.option("--list-layers", is_flag=True, help="Show the layers, and do nothing else."),
)
RULE = _all(
    click.option(
        "--rule",
        metavar="deconvnet|guided|saliency|CODE",
        help="How signals go down through a ReLU and pooling; a code is one of Mahendran and "
        "Vedaldi's, such as TTF.  [default: deconvnet]",
    ),
    choice(
        "--overlap",
        ["sum", "overwrite", "center"],
        "Where pooling windows share their maximum: add up what comes down, or keep the last; "
        "center uses no switches.  [default: as the rule says]",
    ),
    click.option(
        "--from",
        "start",
        type=click.Choice(["activation", "one"]),
        help="What is sent down: the activation, or 1.  [default: activation]",
    ),
    click.option(
        "--activations",
        multiple=True,
        metavar="[NAME=]relu|gradient|constant",
        help="What to do with functions that have no rule, such as silu: treat them as a ReLU, "
        "take their derivative, or let nothing through; for all, or for one by name.",
    ),
    click.option("--color/--gray", default=None, help="How they are shown.  [default: color]"),
)


def output_option(default: str) -> Callable[[Command], Command]:
    """The folder of the results."""
    return click.option(
        "-o",
        "--output",
        type=Folder(),
        default=default,
        metavar="FOLDER",
        help=f"Where the results go; made if it is missing.  [default: {default}]",
    )


def find_images(
    inputs: Sequence[str], data: Path | None, split: str | None, output: Path
) -> tuple[list[Path], dict[str, str]]:
    """The files to look at, and what cannot be used."""
    from unpool.data import open_data
    from unpool.vision.sources import find_images

    if data is not None:
        if inputs:
            raise OptionError("got images and --data; leave one of them out")
        missing: dict[str, str] = {}
        return [s.image for s in open_data(data, split or "all", missing).samples], missing
    if split is not None:
        raise OptionError("got --split without --data; add that, or leave it out")
    sources, unusable = find_images(inputs, output)
    if any(source.path is None for source in sources):
        raise OptionError("got - for an image, and each is read twice; name files or folders")
    return [source.path for source in sources if source.path], dict(unusable)


def take_model(options: dict[str, Any]) -> "LoadedModel":
    """The model; what it is made of is taken out of the options."""
    given = typed({name: options.pop(name) for name in _OF_MODELS})
    if "weights" in given and "torch_model" in given:
        raise OptionError("got --weights and --torch-model; leave one of them out")
    from unpool.visualize.preprocessing import load_model

    return load_model(**given)


def take_rules(options: dict[str, Any]) -> dict[str, Any]:
    """The options of `unpool.visualize.projection`, by name."""
    meant = options.pop("activations")
    named = dict(item.split("=", 1) for item in meant if "=" in item)
    if meant and not named:
        options["activations"] = meant[-1]
    elif len(named) != len(meant):
        raise OptionError(
            f"got --activations {' '.join(meant)}; name a function in each, such as silu=relu, or "
            "give one for all"
        )
    elif named:
        options["activations"] = named
    return typed(options)


def show_layers(loaded: "LoadedModel", as_json: bool) -> int:
    """Print the layers of a model: what --list-layers does."""
    from unpool.visualize.activations import list_layers

    found = list_layers(loaded.model, loaded.trial_image())
    if as_json:
        for layer in found:
            console.print_json({**layer._asdict(), "shape": list(layer.shape)})
    else:
        rows = [[layer.name, layer.kind, " x ".join(map(str, layer.shape))] for layer in found]
        console.print_table([["layer", "kind", "shape"], *rows])
    return 0


def report(
    found: "Analysis",
    unusable: dict[str, str],
    start: float,
    output: Path,
    as_json: bool,
    show: Callable[[], object] | None,
) -> int:
    """Print what an analysis has found; gives the exit code.

    Args:
        found: the analysis.
        unusable: inputs that were no images, and why; reported like the unreadable ones.
        start: of `time.perf_counter`, when it began.
        output: where it was written.
        as_json: print one object, and nothing else.
        show: prints it for people; None if they want to hear nothing.
    """
    failed = unusable | found.failed
    if as_json:
        seconds = round(time.perf_counter() - start, 3)
        facts = {**found.to_dict(), "failed": failed}
        console.print_json({"output": str(output), "seconds": seconds, **facts})
        return 3 if failed else 0
    for reason in failed.values():
        console.print_error(reason)
    if show is not None:
        show()
    return 3 if failed else 0
