"""`unpool generate interpolate`, `morph`, `transform` and `correspond`: images in a row."""

from pathlib import Path
from typing import Any

import click

from unpool.cli.generate.options import (
    ANIMATIONS,
    BACKGROUND,
    COUNT,
    ENDS,
    FPS,
    IMAGES,
    SCALE,
    SHARED,
    STYLE,
    TIMES,
    load,
    output,
    pair,
    parsed,
    tell,
    write,
    write_captioned,
)
from unpool.cli.generate.options import (
    view as seen,
)
from unpool.cli.options import FROM_ONE, choice, typed

_ALL = (*IMAGES, *ANIMATIONS)
_CHANGES = (
    "translate-x",
    "translate-y",
    "angle",
    "zoom",
    "stretch",
    "saturation",
    "brightness",
    "hue",
)


def _moves(path: Path) -> bool:
    return path.suffix.lower() in ANIMATIONS


@click.command()
@STYLE
@click.option(
    "--azimuth",
    callback=pair("0,360"),
    default="0,360",
    metavar="FROM,TO",
    help="Degrees around it; 350,370 is the short way.  [default: 0,360]",
)
@click.option(
    "--elevation",
    callback=pair("20 or 0,60", alone=True),
    default="20",
    metavar="FROM,TO",
    help="Degrees above it.  [default: 20]",
)
@COUNT
@BACKGROUND
@SCALE
@FPS
@output("turn.gif", *_ALL)
@SHARED
def interpolate(
    style: str,
    azimuth: tuple[float, float],
    elevation: tuple[float, float],
    count: int | None,
    background: str,
    scale: int,
    fps: float,
    output: Path,
    **options: Any,
) -> None:
    """Draw views from one to another, between and beyond those of the training.

    There are 62 images of an animation and 8 of a sheet, unless --count is given. An animation
    of a whole turn goes round without a stop, any other there and back.

    With --json, there is an object with output, size, style, images and notes.

    \b
    Example: unpool generate interpolate --style 3 -o turn.gif
             unpool generate interpolate --style 3 --azimuth 30 --elevation 0,60 -o above.png
    """
    from unpool.generate import interpolate as draw
    from unpool.generate import turn

    generator, moves = load(options), _moves(output)
    mixed, count = parsed([style], generator)[0], count or (62 if moves else 8)
    whole = abs(azimuth[1] - azimuth[0]) == 360 and elevation[0] == elevation[1]
    if whole:  # the last image would be the first
        drawn = turn(generator, mixed, elevation[0], count)
    else:
        drawn = draw(generator, mixed, azimuth, elevation, count)
    shown = drawn if whole or not moves else drawn + drawn[-2:0:-1]
    size = write(output, [d.on(background) for d in shown], len(drawn), scale, fps)
    tell(options, output, drawn, size=size, style=style, images=len(shown))


@click.command()
@ENDS
@seen(301, 20)
@COUNT
@BACKGROUND
@SCALE
@FPS
@output("morph.gif", *_ALL)
@SHARED
def morph(
    first: str,
    last: str,
    count: int | None,
    background: str,
    scale: int,
    fps: float,
    output: Path,
    **options: Any,
) -> None:
    """Turn one style into another.

    An animation goes there in 32 steps, unless --count is given, and back. A sheet has the
    authors' seven, or --count with even shares.

    With --json, there is an object with output, size, shares (of the first style, in the order of
    the images) and notes.

    \b
    Example: unpool generate morph --from 0 --to 1 -o morph.gif
    """
    from unpool.generate import MORPH_FRACTIONS, ramp
    from unpool.generate import morph as draw

    generator, moves = load(options), _moves(output)
    shares = ramp(count or 32) if moves else list(MORPH_FRACTIONS)
    if count and not moves:
        shares = [1 - i / (count - 1) for i in range(count)]
    place = typed({name: options[name] for name in ("azimuth", "elevation")})
    a, b = parsed([first, last], generator)
    drawn = draw(generator, a, b, shares, **place)
    shown = drawn + drawn[-2:0:-1] if moves else drawn
    size = write(output, [d.on(background) for d in shown], len(drawn), scale, fps)
    tell(options, output, drawn, size=size, shares=shares, images=len(shown))


@click.command()
@STYLE
@choice(
    "--change",
    _CHANGES,
    "What is varied; can be given several times.  [default: all]",
    multiple=True,
)
@click.option(
    "--ends",
    callback=pair("-0.5,0.5"),
    metavar="FROM,TO",
    help="Of all changes: fractions of the side, radians or logarithms.  [default: the authors']",
)
@seen(301, 20)
@COUNT
@BACKGROUND
@SCALE
@FPS
@output("transform.png", *_ALL)
@SHARED
def transform(
    style: str,
    change: tuple[str, ...],
    ends: tuple[float, float] | None,
    count: int | None,
    background: str,
    scale: int,
    fps: float,
    output: Path,
    **options: Any,
) -> None:
    """Move, turn, zoom, stretch and recolor an object by degrees, beyond what was trained.

    A sheet has a row for each change, of 7 images unless --count is given; an animation shows
    one after another, 15 images there and back. The authors' ends are

    \b
      translate-x, translate-y   -0.2 to 0.2   fractions of the side
      angle                      -0.5 to 0.5   radians
      zoom                       0 to 0.59     logarithm
      stretch                    0.41 to -0.41 logarithm
      saturation                 -5 to 5       logarithm
      brightness                 -2 to 2       logarithm
      hue                        -3 to 3       radians

    With --json, there is an object with output, size, style, changes and notes.

    \b
    Example: unpool generate transform --style 3 -o transform.png
             unpool generate transform --style 3 --change angle -o angle.gif
    """
    from unpool.generate import transform as draw
    from unpool.generate.sequences import degrees

    generator, moves = load(options), _moves(output)
    count = count or (15 if moves else 7)
    place = typed({name: options[name] for name in ("azimuth", "elevation")})
    mixed, changes = parsed([style], generator)[0], change or _CHANGES
    rows = [draw(generator, mixed, name, count, ends=ends, **place) for name in changes]
    shown = [d for row in rows for d in (row + row[-2:0:-1] if moves else row)]
    if moves:
        size = write(output, [d.on(background) for d in shown], count, scale, fps)
    else:
        named = [f"{name} {round(a, 2):+g}" for name in changes for a in degrees(name, count, ends)]
        tiles = [(d.on(background), text) for d, text in zip(shown, named, strict=True)]
        size = write_captioned(output, tiles, count, scale)
    tell(options, output, shown, size=size, style=style, changes=list(changes))


@click.command()
@ENDS
@click.option(
    "--point",
    "points",
    callback=pair("64,20"),
    multiple=True,
    metavar="X,Y",
    help="A place in the first, in pixels; can be given several times.  [default: as --points]",
)
@click.option("--points", "spread", type=FROM_ONE, default=12, help="How many.  [default: 12]")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=64,
    help="Morphs in between.  [default: 64]",
)
@seen(301, 20)
@FPS
@click.option("--scale", type=TIMES, default=4, help="Enlarge so many times.  [default: 4]")
@output("correspond.png", *_ALL)
@SHARED
def correspond(
    first: str,
    last: str,
    points: tuple[tuple[float, float], ...],
    spread: int,
    steps: int,
    fps: float,
    scale: int,
    output: Path,
    **options: Any,
) -> None:
    """Find what of one style corresponds to what of another, by the optical flow of a morph.

    An image shows both, with the same points in the same colors; an animation shows the points
    on their way.

    With --json, there is an object with output, points (x and y in the first) and found (in the
    other).

    \b
    Example: unpool generate correspond --from 0 --to 1 -o correspond.png
    """
    import numpy as np

    from unpool.generate import carry, mark_points, spread_points
    from unpool.generate import morph as draw

    generator = load(options)
    place = typed({name: options[name] for name in ("azimuth", "elevation")})
    a, b = parsed([first, last], generator)
    shares = [1 - i / (steps + 1) for i in range(steps + 2)]
    drawn = draw(generator, a, b, shares, **place)
    frames = [d.on() for d in drawn]
    start = np.array(points) if points else spread_points(drawn[0].rgba[:, :, 3], spread)
    tracks = carry(frames, start)
    if _moves(output):
        shown = [
            mark_points([f], [places], scale=scale) for f, places in zip(frames, tracks, strict=True)
        ]
    else:
        shown = [mark_points([frames[0], frames[-1]], [tracks[0], tracks[-1]], scale=scale)]
    size = write(output, shown, 1, 1, fps)
    found = {"points": tracks[0].round(2).tolist(), "found": tracks[-1].round(2).tolist()}
    tell(options, output, drawn, size=size, **found)
