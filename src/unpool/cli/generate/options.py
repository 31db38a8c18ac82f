"""The options that the commands of `unpool generate` share, and how they write their results."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli import console
from unpool.cli.options import DEVICE, JSON, QUIET, typed

if TYPE_CHECKING:
    from unpool.generate import GeneratedImage, Generator, Style
    from unpool.vision.images import Pixels

Command = Callable[..., Any]

IMAGES, ANIMATIONS = (".png", ".jpg", ".jpeg"), (".gif", ".mp4")


class File(click.Path):
    """A file to write, whose suffix selects the format."""

    def __init__(self, *suffixes: str) -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self.suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, if it is not a folder, has one of the suffixes and can be written."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path.suffix.lower() not in self.suffixes:
            self.fail(f"{path} does not end in {', '.join(self.suffixes)}.", param, ctx)
        home = next(folder for folder in path.absolute().parents if folder.exists())
        if not (home.is_dir() and os.access(home, os.W_OK)):
            self.fail(f"{path}: {home} is not writable; choose another folder.", param, ctx)
        return path


def pair(example: str, alone: bool = False) -> Callable[..., Any]:
    """A callback that parses two numbers with a comma; if `alone`, one number for both too."""

    def parse(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value is None or isinstance(value, tuple):
            return value if value is None else tuple(parse(ctx, param, one) for one in value)
        try:
            numbers = tuple(float(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        fits = len(numbers) == 2 or (alone and len(numbers) == 1)
        if not fits or not all(map(math.isfinite, numbers)):
            message = f"got {value!r}; wanted numbers such as {example}."
            raise click.BadParameter(message, ctx, param)
        return numbers[0], numbers[-1]

    return parse


def amounts(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Any:
    """A callback that parses several NAME=AMOUNT into pairs."""
    pairs = []
    for value in values:
        name, _, amount = value.partition("=")
        try:
            pairs.append((name.strip(), float(amount)))
            if not math.isfinite(pairs[-1][1]):
                raise ValueError
        except ValueError:
            message = f"got {value!r}; wanted NAME=AMOUNT, such as zoom=0.3."
            raise click.BadParameter(message, ctx, param) from None
    return pairs


def chain(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def output(default: str, *suffixes: str) -> Callable[[Command], Command]:
    """The option for the file to write, with one of these suffixes."""
    return click.option(
        "-o",
        "--output",
        type=File(*suffixes),
        default=default,
        metavar="FILE",
        help=f"File to write: {', '.join(suffixes)}.  [default: {default}]",
    )


def view_options(azimuth: float, elevation: float) -> Callable[[Command], Command]:
    """The options for the view; their defaults, shown here, are those of the called function."""
    around, above = f"{azimuth:g}", f"{elevation:g}"
    return chain(
        click.option(
            "--azimuth", type=float, help=f"Degrees around the object.  [default: {around}]"
        ),
        click.option(
            "--elevation", type=float, help=f"Degrees above the object.  [default: {above}]"
        ),
    )


def typed_view(options: dict[str, Any]) -> dict[str, Any]:
    """The view, as far as it was typed."""
    return typed({name: options[name] for name in ("azimuth", "elevation")})


WEIGHTS = click.option(
    "--weights",
    default="chairs",
    metavar="NAME|FOLDER",
    help="Weights that come with the package, or a folder of weights.  [default: chairs]",
)
_STYLE_HELP = (
    "A style by name or index, or fractions of several, A=1,B=-1,C=1; `unpool generate list` shows "
    "the styles."
)
STYLE = click.option("--style", required=True, metavar="STYLE", help=_STYLE_HELP)
STYLES = click.option(
    "--style", "styles", multiple=True, metavar="STYLE", help=f"{_STYLE_HELP} Repeatable."
)
ENDS = chain(
    click.option("--from", "first", required=True, metavar="STYLE", help=_STYLE_HELP),
    click.option("--to", "last", required=True, metavar="STYLE", help="Another style."),
)
BACKGROUND = click.option(
    "--background", default="white", metavar="COLOR", help="A name or #rrggbb.  [default: white]"
)
TIMES = click.IntRange(1, 32)


def scale_option(default: int = 1) -> Callable[[Command], Command]:
    """The option to enlarge images."""
    text = f"Factor by which images are enlarged.  [default: {default}]"
    return click.option("--scale", type=TIMES, default=default, help=text)


SCALE = scale_option()
FPS = click.option(
    "--fps",
    type=click.FloatRange(1, 50),
    default=15,
    help="Frames per second of an animation.  [default: 15]",
)
COUNT = click.option("--count", type=click.IntRange(2, 1000), help="Number of images.")
SHARED = chain(WEIGHTS, DEVICE, JSON, QUIET)


def load(options: dict[str, Any]) -> "Generator":
    """The generator of the shared options, which are removed from the dictionary."""
    from unpool.generate import Generator

    weights, device = options.pop("weights"), options.pop("device")
    return Generator.from_pretrained(weights, device=device or "auto")


def parse_styles(texts: Sequence[str], generator: "Generator") -> "list[Style]":
    """The styles that were typed, or all styles of the generator."""
    from unpool.generate import parse_style

    known = generator.styles
    return [text if text in known else parse_style(text) for text in texts] or list(known)


def is_animation(path: Path) -> bool:
    """Whether the suffix is that of an animation."""
    return path.suffix.lower() in ANIMATIONS


def there_and_back(images: "list[GeneratedImage]") -> "list[GeneratedImage]":
    """The images of a looped animation: forward, then backward."""
    return images + images[-2:0:-1]


def write(
    path: Path, images: "Sequence[Pixels]", columns: int, scale: int, fps: float = 15
) -> list[int]:
    """Write images as a sheet or, by the suffix, an animation; returns its width and height.

    Args:
        path: the file.
        images: (H, W, 3) uint8 each, row by row, or in the order of time.
        columns: of a sheet.
        scale: factor by which images are enlarged.
        fps: frames per second of an animation.
    """
    from unpool.generate import write_animation
    from unpool.generate.result import enlarge
    from unpool.vision.figures import mosaic
    from unpool.vision.images import write_image

    if is_animation(path):
        write_animation(path, images, fps=fps, scale=scale)
        height, width = images[0].shape[:2]
        return [width * scale, height * scale]
    sheet = enlarge(mosaic(list(images), columns), scale)
    write_image(path, sheet)
    return [sheet.shape[1], sheet.shape[0]]


def write_captioned(
    path: Path, tiles: "Sequence[tuple[Pixels, str]]", columns: int, scale: int
) -> list[int]:
    """Write images as a sheet with a caption below each; returns its width and height."""
    from unpool.generate.result import enlarge
    from unpool.vision.figures import contact_sheet
    from unpool.vision.images import write_image

    columns = min(columns, len(tiles))
    side = max(max(image.shape[:2]) for image, _ in tiles) * scale
    width = columns * (side + 10) + 10
    sheet = contact_sheet([(enlarge(p, scale), text) for p, text in tiles], columns, width)
    write_image(path, sheet)
    return [sheet.shape[1], sheet.shape[0]]


def print_written(
    options: dict[str, Any], path: Path, images: "Sequence[GeneratedImage]", /, **facts: Any
) -> None:
    """Print the file that was written, facts about it, and the notes of its images."""
    notes = list(dict.fromkeys(image.note for image in images if image.note))
    if options["as_json"]:
        console.print_json({"output": str(path), **facts, "notes": notes})
    elif not options["quiet"]:
        if notes:
            others = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
            console.print_error(f"note: {notes[0]}{others}")
        text = ", ".join(f"{n} {v}" for n, v in facts.items() if not isinstance(v, list | dict))
        click.echo(f"{path}{': ' * bool(text)}{text}")
