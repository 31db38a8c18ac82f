"""The options that commands share, and checks of their values."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from unpool.cards import AGGREGATIONS
from unpool.errors import OptionError
from unpool.recipes.presets import (
    AUTO,
    CRF_PRESETS,
    EDECONVNET,
    ENSEMBLES,
    LOADING,
    METHODS,
    PRECISIONS,
    PRESETS,
)

Option = Callable[[Any], Any]
"""A decorator that adds an option to a command."""


class Folder(click.Path):
    """The type of an option for a folder of results, which need not exist yet."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; refuses one that exists and is not a folder."""
        if value == "":
            self.fail("got an empty name; name a folder, or . for this one.", param, ctx)
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path.exists() and not path.is_dir():
            self.fail(f"{path} is not a folder; give the name of a folder, old or new.", param, ctx)
        return path


def choice(name: str, values: Iterable[str], text: str, **more: Any) -> Option:
    """An option with a fixed set of values."""
    return click.option(name, type=click.Choice([*values]), help=text, **more)


def several_units(text: str) -> Option:
    """A repeatable option for indices of units or feature maps."""
    numbers = click.IntRange(min=0)
    return click.option("--unit", "units", type=numbers, multiple=True, help=text)


FROM_ONE = click.IntRange(min=1)
WEIGHTS = click.option(
    "--weights",
    default="objects",
    metavar="NAME|FOLDER|FILE",
    help="Weights that ship with the package, a folder of weights, or a network written by `unpool "
    "export`.  [default: objects]",
)
PRESET = choice(
    "--preset",
    [*PRESETS, EDECONVNET],
    "How proposals are used in mode instance: paper takes squares of any size; reference those of "
    "112 pixels or more and aggregates by max, like the released script; edeconvnet is paper in an "
    "ensemble with the partner FCN that the card of the weights names.  [default: paper]",
)
ENSEMBLE = choice(
    "--ensemble",
    ENSEMBLES,
    "With --preset edeconvnet: the mean of the two probability maps, as in the paper, or the "
    "product of the positive scores, as in the released script.  [default: mean]",
)
CRF = choice(
    "--crf",
    [AUTO, *CRF_PRESETS],
    "Refine the result along the edges of the image by a dense CRF: auto with the parameters that "
    "were chosen for the weights, if any; the others have published ones, edeconvnet those of the "
    "DeconvNet paper.  [default: none]",
)
VOID_BELOW = click.option(
    "--void-below",
    type=click.FloatRange(0, 1),
    metavar="CONFIDENCE",
    help="Label pixels 255 (void) where the network is less sure of its label.  [default: 0.0]",
)
PRESENCE = click.option(
    "--presence-threshold",
    type=click.FloatRange(0, 1),
    metavar="PROBABILITY",
    help="Remove classes that reach this probability on less than 1 % of the image; 0 keeps all, "
    "and class 0 always stays.  [default: that of the weights or the saved scores, else 0]",
)
PROPOSALS = click.option(
    "--proposals",
    type=FROM_ONE,
    help="Maximum number of squares to segment in mode instance.  [default: 50]",
)
METHOD = choice(
    "--method",
    METHODS,
    "Source of the proposals in mode instance: closed contours (edgeboxes) or boxes of fixed sizes "
    "all over the image (grid).  [default: edgeboxes]",
)
AGGREGATE = choice(
    "--aggregate",
    AGGREGATIONS,
    "How to merge the scores of overlapping squares in mode instance: their maximum, as in the "
    "paper, or their mean.  [default: that of the preset or the weights, else max]",
)
BATCH = click.option(
    "--batch",
    type=FROM_ONE,
    help="Squares per batch in mode instance; more need more memory.  [default: the fastest]",
)
TILE = click.option(
    "--tile",
    type=FROM_ONE,
    metavar="SIDE",
    help="Side of the windows in mode tiles, in pixels of the network's input.  [default: 512, or "
    "the only size that the network takes]",
)
OVERLAP = click.option(
    "--overlap",
    type=click.IntRange(min=0),
    metavar="PIXELS",
    help="Overlap of neighboring windows in mode tiles, at least.  [default: a quarter of --tile]",
)
SCALE = click.option(
    "--scale",
    type=click.FloatRange(min=0, min_open=True),
    metavar="FACTOR",
    help="Scale at which the network sees the image in mode tiles; 0.5 halves its sides, 1 is "
    "native resolution.  [default: 1.0]",
)
DATA = click.option(
    "--data",
    multiple=True,
    required=True,
    metavar="FOLDER[:SPLIT]",
    help="Labeled images, in a layout that `unpool check` knows; may be repeated, for the figures "
    "of all together.",
)
BY_COLOR = click.option(
    "--by-color/--by-index",
    default=None,
    help="Read masks by their colors, which are those of labelmap.txt or of VOC, or else of most "
    "masks; or by their indices, whatever their palettes are.  [default: by index, and palettes "
    "must agree]",
)
CROWD = click.option(
    "--crowd",
    type=click.Choice(["void", "object"]),
    help="How COCO's annotations with iscrowd=1 are read.  [default: as objects in classes most of "
    "whose annotations are such, as labeling tools mark brush masks; as void in others]",
)
OVERLAY = click.option(
    "--overlay/--no-overlay",
    default=True,
    help="Write the images with the classes painted over them.  [default: overlay]",
)
DEVICE = click.option(
    "--device",
    metavar="auto|cpu|cuda[:n]",
    help="Device to compute on; auto uses a GPU if there is one.  [default: auto]",
)
PRECISION = choice(
    "--precision",
    PRECISIONS,
    "bf16 is faster on hardware that supports it; auto uses it there, and fp32 elsewhere. int8 is "
    "faster still on processors with VNNI, for weights that `unpool quantize` prepared.  "
    "[default: auto]",
)
EXACT = click.option(
    "--exact",
    is_flag=True,
    default=None,
    help="Use the network as trained, in fp32, instead of its fast form.",
)
REDO = click.option(
    "--redo",
    is_flag=True,
    help="Also do images again that an earlier run finished with the same options and weights.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")
QUIET = click.option("--quiet", is_flag=True, help="Print errors only, no progress or tables.")


def all_of(*options: Option) -> Option:
    """Several options as one decorator, in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


SAMPLES = click.option(
    "--samples",
    type=click.IntRange(min=0),
    help="Average so many passes with dropout left on, of whole images by a network that has "
    "dropout, such as Bayesian SegNet; 0 for one pass without.  [default: 0]",
)
SEGMENTATION = all_of(
    *(PRESET, ENSEMBLE, CRF, PRESENCE, PROPOSALS, AGGREGATE, TILE, OVERLAP, SCALE, SAMPLES),
    *(PRECISION, EXACT, DEVICE),
)


def network_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the given options of `unpool.segment.ensemble.load` out of those of a command."""
    return typed({name: options.pop(name) for name in LOADING})


def numbers(example: str, *counts: int) -> Callable[..., Any]:
    """A callback that parses finite numbers with commas between them.

    Args:
        example: shown in the error message.
        counts: accepted numbers of values; by default any.
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
    """A callback that parses ROW,COLUMN, and accepts some words instead."""

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
    """The options that were given; the others are None, and the application has their defaults."""
    return {name: value for name, value in options.items() if value is not None}


def make_folder(folder: Path) -> None:
    """Create a folder for results if it is missing; refuse one that is read-only."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(
            f"got {folder}, which cannot be made ({error.strerror}); choose another with -o"
        ) from None
    if not os.access(folder, os.W_OK):
        raise OptionError(f"got {folder}, which may not be written to; choose another with -o")
