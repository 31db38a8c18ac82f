"""The options that the commands of `unpool generate` share, and what they write."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli import console
from unpool.cli.options import DEVICE, JSON, QUIET

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unpool.generate import GeneratedImage, Generator, Style

    Images = Sequence[NDArray[np.uint8]]

Command = Callable[..., Any]

IMAGES, ANIMATIONS = (".png", ".jpg", ".jpeg"), (".gif", ".mp4")


class File(click.Path):
    """A file to write, whose ending says what it is."""

    def __init__(self, *suffixes: str) -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self.suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, unless it is a folder, ends otherwise, or cannot be written."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path.suffix.lower() not in self.suffixes:
            self.fail(f"{path} ends otherwise than in {', '.join(self.suffixes)}.", param, ctx)
        home = next(folder for folder in path.absolute().parents if folder.exists())
        if not (home.is_dir() and os.access(home, os.W_OK)):
            self.fail(f"{path}: nothing may be written in {home}; choose another.", param, ctx)
        return path


def pair(example: str, alone: bool = False) -> Callable[..., Any]:
    """What reads two numbers with a comma, or one for both where that has a meaning."""

    def read(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value is None or isinstance(value, tuple):
            return value if value is None else tuple(read(ctx, param, one) for one in value)
        try:
            found = tuple(float(part) for part in value.split(","))
        except ValueError:
            found = ()
        fits = len(found) == 2 or (alone and len(found) == 1)
        if not fits or not all(map(math.isfinite, found)):
            message = f"got {value!r}; wanted numbers such as {example}."
            raise click.BadParameter(message, ctx, param)
        return found[0], found[-1]

    return read


def amounts(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Any:
    """Reads several NAME=AMOUNT as pairs."""
    found = []
    for value in values:
        name, _, amount = value.partition("=")
        try:
            found.append((name.strip(), float(amount)))
            if not math.isfinite(found[-1][1]):
                raise ValueError
        except ValueError:
            message = f"got {value!r}; wanted NAME=AMOUNT, such as zoom=0.3."
            raise click.BadParameter(message, ctx, param) from None
    return found


def chain(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def output(default: str, *suffixes: str) -> Callable[[Command], Command]:
    """Where the result goes, with one of these endings."""
    return click.option(
        "-o",
        "--output",
        type=File(*suffixes),
        default=default,
        metavar="FILE",
        help=f"What to write: {', '.join(suffixes)}.  [default: {default}]",
    )


def view(azimuth: float, elevation: float) -> Callable[[Command], Command]:
    """From where an object is seen; the defaults of the function that is called."""
    around, above = f"{azimuth:g}", f"{elevation:g}"
    return chain(
        click.option("--azimuth", type=float, help=f"Degrees around it.  [default: {around}]"),
        click.option("--elevation", type=float, help=f"Degrees above it.  [default: {above}]"),
    )


WEIGHTS = click.option(
    "--weights",
    default="chairs",
    metavar="NAME|FOLDER",
    help="Weights that come with the package, or a folder of weights.  [default: chairs]",
)
_STYLE_HELP = (
    "A style by its name or number, or fractions of several, A=1,B=-1,C=1; `unpool generate list` "
    "shows them."
)
STYLE = click.option("--style", required=True, metavar="STYLE", help=_STYLE_HELP)
STYLES = click.option("--style", "styles", multiple=True, metavar="STYLE", help=_STYLE_HELP)
ENDS = chain(
    click.option("--from", "first", required=True, metavar="STYLE", help=_STYLE_HELP),
    click.option("--to", "last", required=True, metavar="STYLE", help="Another."),
)
BACKGROUND = click.option(
    "--background", default="white", metavar="COLOR", help="A name or #rrggbb.  [default: white]"
)
TIMES = click.IntRange(1, 32)
SCALE = click.option("--scale", type=TIMES, default=1, help="Enlarge so many times.  [default: 1]")
FPS = click.option(
    "--fps",
    type=click.FloatRange(1, 50),
    default=15,
    help="Of an animation, images a second.  [default: 15]",
)
COUNT = click.option("--count", type=click.IntRange(2, 1000), help="How many images.")
SHARED = chain(WEIGHTS, DEVICE, JSON, QUIET)


def load(options: dict[str, Any]) -> "Generator":
    """The generator of the shared options, which are taken out of them."""
    from unpool.generate import Generator

    weights, device = options.pop("weights"), options.pop("device")
    return Generator.from_pretrained(weights, device=device or "auto")


def parsed(texts: Sequence[str], generator: "Generator") -> "list[Style]":
    """Styles as they were typed; all of the generator where none was."""
    from unpool.generate import parse_style

    known = generator.styles
    return [text if text in known else parse_style(text) for text in texts] or list(known)


def write(path: Path, images: "Images", columns: int, scale: int, fps: float = 15) -> list[int]:
    """Write images as a sheet or, by the ending, an animation; gives its width and height.

    Args:
        path: the file.
        images: (H, W, 3) each, in the order of the rows, or of time.
        columns: of a sheet.
        scale: how many times to enlarge.
        fps: of an animation.
    """
    from unpool.generate import write_animation
    from unpool.generate.result import enlarge
    from unpool.vision.figures import mosaic
    from unpool.vision.images import write_image

    if path.suffix.lower() in ANIMATIONS:
        write_animation(path, images, fps=fps, scale=scale)
        height, width = images[0].shape[:2]
        return [width * scale, height * scale]
    sheet = enlarge(mosaic(list(images), columns), scale)
    write_image(path, sheet)
    return [sheet.shape[1], sheet.shape[0]]


def write_captioned(
    path: Path, tiles: "Sequence[tuple[NDArray[np.uint8], str]]", columns: int, scale: int
) -> list[int]:
    """Write images as a sheet with a caption below each; gives its width and height."""
    from unpool.generate.result import enlarge
    from unpool.vision.figures import contact_sheet
    from unpool.vision.images import write_image

    columns = min(columns, len(tiles))
    side = max(max(image.shape[:2]) for image, _ in tiles) * scale
    width = columns * (side + 10) + 10
    sheet = contact_sheet([(enlarge(p, scale), text) for p, text in tiles], columns, width)
    write_image(path, sheet)
    return [sheet.shape[1], sheet.shape[0]]


def tell(options: dict[str, Any], path: Path, drawn: "Sequence[GeneratedImage]", **facts: Any) -> None:
    """Print what was written, and what is to be said of it."""
    notes = list(dict.fromkeys(d.note for d in drawn if d.note))
    if options["as_json"]:
        console.print_json({"output": str(path), **facts, "notes": notes})
    elif not options["quiet"]:
        if notes:
            others = f" (and {len(notes) - 1} more like that)" if len(notes) > 1 else ""
            console.print_error(f"note: {notes[0]}{others}")
        told = ", ".join(f"{n} {v}" for n, v in facts.items() if not isinstance(v, list | dict))
        click.echo(f"{path}{': ' * bool(told)}{told}")
