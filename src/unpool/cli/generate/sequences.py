"""`unpool generate interpolate`, `morph`, `transform` and `correspond`: sequences of images."""

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
    is_animation,
    load,
    output,
    pair,
    parse_styles,
    print_written,
    scale_option,
    there_and_back,
    typed_view,
    view_options,
    write,
    write_captioned,
)
from unpool.cli.options import FROM_ONE

_ALL = (*IMAGES, *ANIMATIONS)


@click.command()
@STYLE
@click.option(
    "--azimuth",
    callback=pair("0,360"),
    default="0,360",
    metavar="FROM,TO",
    help="Degrees around the object; 350,370 is the short way.  [default: 0,360]",
)
@click.option(
    "--elevation",
    callback=pair("20 or 0,60", alone=True),
    default="20",
    metavar="FROM,TO",
    help="Degrees above the object.  [default: 20]",
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
    """Generate the views from one to another, between and beyond those of the training.

    By default an animation has 62 images, a sheet 8. An animation of a full turn loops smoothly;
    any other runs forward and backward.

    With --json, there is an object with output, size, style, images and notes.

    \b
    Example: unpool generate interpolate --style 3 -o turn.gif
             unpool generate interpolate --style 3 --azimuth 30 --elevation 0,60 -o above.png
    """
    from unpool.generate import interpolate, turntable

    generator, animated = load(options), is_animation(output)
    mixture, count = parse_styles([style], generator)[0], count or (62 if animated else 8)
    full_turn = abs(azimuth[1] - azimuth[0]) == 360 and elevation[0] == elevation[1]
    if full_turn:  # whose last view would repeat the first
        images = turntable(generator, mixture, elevation[0], count)
    else:
        images = interpolate(generator, mixture, azimuth, elevation, count)
    shown = there_and_back(images) if animated and not full_turn else images
    size = write(output, [image.on(background) for image in shown], len(images), scale, fps)
    print_written(options, output, images, size=size, style=style, images=len(shown))


@click.command()
@ENDS
@view_options(301, 20)
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
    """Morph one style into another.

    An animation takes 32 steps, or --count, forward and backward. A sheet has the authors' seven
    fractions, or --count evenly spaced ones.

    With --json, there is an object with output, size, fractions (of the first style, in the order
    of the images), images and notes.

    \b
    Example: unpool generate morph --from 0 --to 1 -o morph.gif
    """
    from unpool.generate import MORPH_FRACTIONS, morph, morph_fractions

    generator, animated = load(options), is_animation(output)
    fractions = morph_fractions(count or 32) if animated else list(MORPH_FRACTIONS)
    if count and not animated:
        fractions = [1 - i / (count - 1) for i in range(count)]
    a, b = parse_styles([first, last], generator)
    images = morph(generator, a, b, fractions, **typed_view(options))
    shown = there_and_back(images) if animated else images
    size = write(output, [image.on(background) for image in shown], len(images), scale, fps)
    print_written(options, output, images, size=size, fractions=fractions, images=len(shown))


@click.command()
@STYLE
@click.option(
    "--change",
    multiple=True,
    metavar="NAME",
    help="A transformation, see below; repeatable.  [default: all]",
)
@click.option(
    "--ends",
    callback=pair("-0.5,0.5"),
    metavar="FROM,TO",
    help="Range of all changes: fractions of the side, radians or logarithms.  "
    "[default: the authors']",
)
@view_options(301, 20)
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
    """Move, rotate, zoom, stretch and recolor an object in growing amounts.

    A sheet has a row for each change, of 7 images unless --count is given; an animation shows one
    change after another, 15 images forward and backward. The authors' ranges, which exceed those of
    the training, are

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
    from unpool.generate import CHANGES, vary
    from unpool.generate.sequences import amounts

    generator, animated = load(options), is_animation(output)
    count, place = count or (15 if animated else 7), typed_view(options)
    mixture, changes = parse_styles([style], generator)[0], change or tuple(CHANGES)
    rows = [vary(generator, mixture, name, count, ends=ends, **place) for name in changes]
    images = [image for row in rows for image in (there_and_back(row) if animated else row)]
    shown = [image.on(background) for image in images]
    if animated:
        size = write(output, shown, count, scale, fps)
    else:
        captions = [
            f"{name} {round(a, 2):+g}" for name in changes for a in amounts(name, count, ends)
        ]
        size = write_captioned(output, list(zip(shown, captions, strict=True)), count, scale)
    print_written(options, output, images, size=size, style=style, changes=list(changes))


@click.command()
@ENDS
@click.option(
    "--point",
    "points",
    callback=pair("64,20"),
    multiple=True,
    metavar="X,Y",
    help="A point of the first style, in pixels; repeatable.  [default: see --points]",
)
@click.option(
    "--points",
    "spread",
    type=FROM_ONE,
    default=12,
    help="Number of points to spread over the first style.  [default: 12]",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=64,
    help="Number of intermediate morphs.  [default: 64]",
)
@view_options(301, 20)
@FPS
@scale_option(4)
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
    """Find corresponding points of two styles, by optical flow through a morph.

    An image shows both styles, with corresponding points in the same color; an animation shows the
    points on their way.

    With --json, there is an object with output, size, points (x and y in the first style), matches
    (in the other) and notes.

    \b
    Example: unpool generate correspond --from 0 --to 1 -o correspond.png
    """
    import numpy as np

    from unpool.generate import mark_points, morph, spread_points, track_points

    generator = load(options)
    a, b = parse_styles([first, last], generator)
    fractions = [1 - i / (steps + 1) for i in range(steps + 2)]
    images = morph(generator, a, b, fractions, **typed_view(options))
    frames = [image.on() for image in images]
    start = np.array(points) if points else spread_points(images[0].rgba[:, :, 3], spread)
    tracks = track_points(frames, start)
    if is_animation(output):
        shown = [
            mark_points([frame], [positions], scale=scale)
            for frame, positions in zip(frames, tracks, strict=True)
        ]
    else:
        shown = [mark_points([frames[0], frames[-1]], [tracks[0], tracks[-1]], scale=scale)]
    size = write(output, shown, 1, 1, fps)
    found = {"points": tracks[0].round(2).tolist(), "matches": tracks[-1].round(2).tolist()}
    print_written(options, output, images, size=size, **found)
