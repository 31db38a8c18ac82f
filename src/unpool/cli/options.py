"""The options that commands share, and what is said of values that do not fit."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from unpool.cards import AGGREGATIONS
from unpool.errors import OptionError
from unpool.presets import CRF_PRESETS, EDECONVNET, ENSEMBLES, METHODS, PRECISIONS, PRESETS

Option = Callable[[Any], Any]
"""A decorator that gives an option to a command."""

_OF_INSTANCES = ("preset", "proposals", "method", "aggregate", "batch")


class Folder(click.Path):
    """A folder for results, which need not be there yet."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, unless something else than a folder is there."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path.exists() and not path.is_dir():
            self.fail(f"{path} is not a folder; give the name of a folder, old or new.", param, ctx)
        return path


def choice(name: str, values: Iterable[str], text: str, **more: Any) -> Callable[..., Any]:
    """An option that takes one of a few words."""
    return click.option(name, type=click.Choice([*values]), help=text, **more)


def several_units(text: str) -> Callable[..., Any]:
    """An option that takes numbers of units or maps."""
    numbers = click.IntRange(min=0)
    return click.option("--unit", "units", type=numbers, multiple=True, help=text)


FROM_ONE = click.IntRange(min=1)
WEIGHTS = click.option(
    "--weights",
    default="objects",
    metavar="NAME|FOLDER|FILE",
    help="Weights that come with the package, a folder of weights, or a network that `unpool "
    "export` wrote.  [default: objects]",
)
PRESET = choice(
    "--preset",
    [*PRESETS, EDECONVNET],
    "In mode instance, which proposals count: paper takes squares of any size, reference those of "
    "112 pixels or more, and their maximum, as the released script does. edeconvnet is paper, "
    "ensembled with the FCN that the card of the weights names as their partner.  [default: paper]",
)
ENSEMBLE = choice(
    "--ensemble",
    ENSEMBLES,
    "With --preset edeconvnet, of what: the mean of the two probabilities, as in the paper, or the "
    "product of the scores above zero, as in the released script.  [default: mean]",
)
CRF = choice(
    "--crf",
    CRF_PRESETS,
    "Refine the result along the edges of the image by a dense CRF, with the parameters that "
    "were published with these; edeconvnet is that of DeconvNet's paper.  [default: none]",
)
PRESENCE = click.option(
    "--presence-threshold",
    type=click.FloatRange(0, 1),
    metavar="PROBABILITY",
    help="Leave out classes that are nowhere sure: those that have this probability on less than "
    "1 % of the image. 0 keeps all; class 0 always stays.  [default: that of the weights, or of "
    "saved scores, or else 0]",
)
PROPOSALS = click.option(
    "--proposals",
    type=FROM_ONE,
    help="In mode instance, how many squares are segmented at most.  [default: 50]",
)
METHOD = choice(
    "--method",
    METHODS,
    "In mode instance, where proposals come from: edgeboxes looks for closed outlines, grid takes "
    "boxes of fixed sizes all over the image.  [default: edgeboxes]",
)
AGGREGATE = choice(
    "--aggregate",
    AGGREGATIONS,
    "In mode instance, how the scores of overlapping squares are put together: their maximum, as "
    "in the paper, or their mean.  [default: the preset's, or else the weights', or else max]",
)
BATCH = click.option(
    "--batch",
    type=FROM_ONE,
    help="In mode instance, how many squares are segmented at a time; more take more memory.  "
    "[default: what is quickest]",
)
DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Labeled images, in images/ and masks/ or in the layout of VOC, SBD, COCO or CamVid.",
)
OVERLAY = click.option(
    "--overlay/--no-overlay",
    default=True,
    help="Whether to write the images with their classes painted on.  [default: overlay]",
)
DEVICE = click.option(
    "--device",
    metavar="auto|cpu|cuda[:n]",
    help="Where to compute; auto takes a GPU if there is one.  [default: auto]",
)
PRECISION = choice(
    "--precision",
    PRECISIONS,
    "Of the arithmetic: fp32 is exact, bf16 fast where the hardware has it; auto takes bf16 there "
    "and fp32 elsewhere.  [default: auto]",
)
EXACT = click.option(
    "--exact",
    is_flag=True,
    default=None,
    help="Use the network as it was trained, in fp32, and not its fast form.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
QUIET = click.option("--quiet", is_flag=True, help="Show neither progress nor tables.")


def numbers(example: str, *counts: int) -> Callable[..., Any]:
    """A callback that parses finite numbers with commas between them.

    Args:
        example: shown where a value does not fit.
        counts: how many numbers are accepted; any number of them when not given.
    """

    def parse(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value is None or isinstance(value, tuple):  # a tuple if the option is repeatable
            return value if value is None else tuple(parse(ctx, param, one) for one in value)
        try:
            found = tuple(float(part) for part in value.split(","))
        except ValueError:
            found = ()
        fits = len(found) in counts if counts else found
        if not fits or not all(map(math.isfinite, found)):
            message = f"got {value!r}; wanted numbers with commas, such as {example}."
            raise click.BadParameter(message, ctx, param)
        return found

    return parse


def position(*words: str) -> Callable[..., Any]:
    """A callback that parses ROW,COLUMN; some words are accepted in its place."""

    def parse(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        if value is None or value in words:
            return value
        parts = value.split(",")
        if len(parts) == 2 and all(part.strip().isdecimal() for part in parts):
            return int(parts[0]), int(parts[1])
        wanted = f"{', '.join(words)}, or ROW,COLUMN" if words else "ROW,COLUMN"
        raise click.BadParameter(f"got {value!r}; wanted {wanted}, such as 3,5.", ctx, param)

    return parse


def typed(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were typed; the others are None, and their defaults stand elsewhere."""
    return {name: value for name, value in options.items() if value is not None}


def require_instances(options: Mapping[str, Any], mode: str) -> None:
    """Refuse options of instance-wise segmentation where an image is segmented in one piece.

    Args:
        options: by name; those that were not typed are None.
        mode: the mode that will be used, whether it was typed or is that of the weights.

    Raises:
        OptionError: a typed option would do nothing.

    >>> require_instances({"proposals": 5, "batch": None}, "instance")
    """
    idle = [f"--{name}" for name in _OF_INSTANCES if options.get(name) is not None]
    if options.get("preset") == "edeconvnet":  # which is more than a way to take proposals
        idle.remove("--preset")
    if mode == "whole" and idle:
        own = "" if options.get("mode") else ", which is that of the weights"
        raise OptionError(
            f"got {' and '.join(idle)} in mode whole{own}, where there are no proposals; add "
            "--mode instance, or leave that option out"
        )


def make_folder(folder: Path) -> None:
    """Make a folder for results, if it is missing.

    Raises:
        OptionError: it cannot be made, or nothing may be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(
            f"got {folder}, which cannot be made ({error.strerror}); choose another with -o"
        ) from None
    if not os.access(folder, os.W_OK):
        raise OptionError(f"got {folder}, which may not be written to; choose another with -o")
