"""The shape that all commands of `unpool generate` share: options, generator, output file."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli.console import print_error, print_json
from unpool.cli.options import DEVICE, JSON, QUIET, Option, all_of, typed

if TYPE_CHECKING:
    from unpool.generate import GeneratedImage, Generator, Style
    from unpool.vision.images import Pixels

_IMAGES, _ANIMATIONS = (".png", ".jpg", ".jpeg"), (".gif", ".webp", ".mp4")

_STYLE_HELP = (
    "A style by name or index, or fractions of several, A=1,B=-1,C=1; `unpool generate list` shows "
    "the styles."
)
STYLE = click.option("--style", required=True, metavar="STYLE", help=_STYLE_HELP)
STYLES = click.option(
    "--style", "styles", multiple=True, metavar="STYLE", help=f"{_STYLE_HELP} Repeatable."
)
ENDS: tuple[Option, ...] = (
    click.option("--from", "first", required=True, metavar="STYLE", help=_STYLE_HELP),
    click.option("--to", "last", required=True, metavar="STYLE", help="Another style."),
)
BACKGROUND = click.option(
    "--background", metavar="COLOR", help="A name or #rrggbb.  [default: white]"
)


def _amounts(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> Any:
    pairs = []
    for value in values:
        name, _, amount = value.partition("=")
        with suppress(ValueError):
            pairs.append((name.strip(), float(amount)))
            if math.isfinite(pairs[-1][1]):
                continue
        message = f"got {value!r}; wanted NAME=AMOUNT, such as zoom=0.3."
        raise click.BadParameter(message, ctx, param)
    return pairs


CHANGES = click.option(
    "--change",
    "changes",
    callback=_amounts,
    multiple=True,
    metavar="NAME=AMOUNT",
    help="A transformation: translate-x or translate-y, in fractions of the side; angle or "
    "hue, in radians; zoom, stretch, saturation or brightness, in logarithms. Repeatable.",
)
COUNT = click.option("--count", type=click.IntRange(2, 1000), help="Number of images.")


def layer_options(shown: str, **default: Any) -> tuple[Option, ...]:
    """The options for a layer."""
    text = f"A layer, see --list-layers.  [default: {shown}]"
    layers = click.option("--list-layers", is_flag=True, help="List the layers and exit.")
    return click.option("--layer", metavar="NAME", help=text, **default), layers


class _File(click.Path):
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


@dataclass(frozen=True)
class Job:
    """The generator of a command, and the file that it writes."""

    generator: "Generator"
    weights: str
    output: Path  #: None only where the file is optional
    as_json: bool
    quiet: bool
    scale: int = 1
    background: str | None = None
    fps: float = 15

    @property
    def animated(self) -> bool:
        """Whether the output is an animation."""
        return self.output.suffix.lower() in _ANIMATIONS

    def style(self, text: str) -> "Style":
        """A style as it was typed."""
        from unpool.generate import parse_style

        return parse_style(text, self.generator.styles)

    def sequence(self, images: "list[GeneratedImage]") -> "list[GeneratedImage]":
        """The images; in an animation, forward and then backward, so that it loops."""
        from unpool.generate.sequences import there_and_back

        return there_and_back(images) if self.animated else images

    def save(
        self,
        images: "Sequence[GeneratedImage | Pixels]",
        columns: int,
        captions: Sequence[str] = (),
    ) -> list[int]:
        """Write images as a sheet or, by the suffix, an animation; returns its width and height.

        Arrays are (H, W, 3) uint8, RGB. Sheets can have captions; animations have none.
        """
        from unpool.generate import GeneratedImage, write_animation
        from unpool.generate.result import enlarge
        from unpool.vision.figures import contact_sheet, mosaic
        from unpool.vision.images import write_image

        pixels = [
            image.on(self.background or "white") if isinstance(image, GeneratedImage) else image
            for image in images
        ]
        if self.animated:
            write_animation(self.output, pixels, fps=self.fps, scale=self.scale)
            height, width = pixels[0].shape[:2]
            return [width * self.scale, height * self.scale]
        if captions:
            large = [enlarge(image, self.scale) for image in pixels]
            tiles, columns = list(zip(large, captions, strict=True)), min(columns, len(large))
            side = max(max(image.shape[:2]) for image in large)
            sheet = contact_sheet(tiles, columns, columns * (side + 10) + 10)
        else:
            sheet = enlarge(mosaic(pixels, columns), self.scale)
        write_image(self.output, sheet)
        return [sheet.shape[1], sheet.shape[0]]

    def write(
        self,
        images: "Sequence[GeneratedImage]",
        columns: int,
        facts: Mapping[str, Any],
        captions: Sequence[str] = (),
    ) -> None:
        """Write images, as `save` does, and print the file, its size, facts and notes."""
        size = self.save(images, columns, captions)
        self.report({"size": size, **facts}, [image.note for image in images])

    def report(self, facts: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
        """Print the file that was written, facts about it, and notes on its images."""
        notes = [*dict.fromkeys(filter(None, notes))]
        if self.as_json:
            print_json({"output": str(self.output), **facts, "notes": notes})
        elif not self.quiet:
            if notes:
                others = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
                print_error(f"note: {notes[0]}{others}")
            text = ", ".join(f"{n} {v}" for n, v in facts.items() if not isinstance(v, list | dict))
            click.echo(f"{self.output}{': ' * bool(text)}{text}")

    def print_layers(self, names: Sequence[str]) -> None:
        """Print the names of layers: what --list-layers does."""
        for name in names:
            print_json({"layer": name}) if self.as_json else click.echo(name)


def command(
    output: str | None,
    *options: Option,
    view: tuple[float, float] | None = None,
    scale: int | None = 1,
    animations: bool = False,
    name: str | None = None,
) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function `(job, **options)`.

    Only options that were typed are passed on; the defaults are those of the application.

    Args:
        output: the default output file; None if the command can do without one.
        options: besides those that all commands have.
        view: the function's default azimuth and elevation, if it has options for them.
        scale: the default factor by which images are enlarged; None for no such option.
        animations: whether the output can be one.
        name: of the command, if it is not that of the function.
    """
    suffixes = (*_IMAGES, *_ANIMATIONS) if animations else _IMAGES
    default = f"  [default: {output}]" if output else ""
    shared: list[Option] = [*options]
    if view is not None:
        text = "Degrees {} the object.  [default: {:g}]"
        shared += [
            click.option("--azimuth", type=float, help=text.format("around", view[0])),
            click.option("--elevation", type=float, help=text.format("above", view[1])),
        ]
    if scale is not None:
        text = f"Factor by which images are enlarged.  [default: {scale}]"
        shared += [click.option("--scale", type=click.IntRange(1, 32), default=scale, help=text)]
    if animations:
        text = "Frames per second of an animation.  [default: 15]"
        shared += [click.option("--fps", type=click.FloatRange(1, 50), default=15, help=text)]
    shared += [
        click.option(
            "-o",
            "--output",
            type=_File(*suffixes),
            default=output,
            metavar="FILE",
            help=f"File to write: {', '.join(suffixes)}.{default}",
        ),
        click.option(
            "--weights",
            default="chairs",
            metavar="NAME|FOLDER",
            help="Weights that ship with the package, or a folder of weights.  [default: chairs]",
        ),
        DEVICE,
        JSON,
        QUIET,
    ]

    def decorate(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def run(weights: str, device: str | None, **options: Any) -> None:
            from unpool.generate import Generator

            generator = Generator.from_pretrained(weights, device=device or "auto")
            own = ("output", "as_json", "quiet", "scale", "background", "fps")
            given = {name: options.pop(name) for name in own if name in options}
            function(Job(generator, weights, **given), **typed(options))

        return click.command(name)(all_of(*shared)(run))

    return decorate
