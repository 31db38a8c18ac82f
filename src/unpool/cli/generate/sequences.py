"""`unpool generate interpolate`, `morph`, `transform` and `correspond`: sequences of images."""

from dataclasses import replace

import click

from unpool.cli.generate.options import (
    ANIMATIONS,
    BACKGROUND,
    COUNT,
    ENDS,
    FPS,
    IMAGES,
    STYLE,
    Job,
    command,
    scale_option,
    view_options,
)
from unpool.cli.options import FROM_ONE, numbers

_ALL = (*IMAGES, *ANIMATIONS)


@command(
    "turn.gif",
    _ALL,
    STYLE,
    click.option(
        "--azimuth",
        callback=numbers("0,360", 2),
        default="0,360",
        metavar="FROM,TO",
        help="Degrees around the object; 350,370 is the short way.  [default: 0,360]",
    ),
    click.option(
        "--elevation",
        callback=numbers("20 or 0,60", 1, 2),
        default="20",
        metavar="FROM,TO",
        help="Degrees above the object.  [default: 20]",
    ),
    COUNT,
    BACKGROUND,
    scale_option(),
    FPS,
)
def interpolate(
    job: Job,
    style: str,
    azimuth: tuple[float, float],
    elevation: tuple[float, ...],
    count: int | None = None,
) -> None:
    """Generate the views from one to another, between and beyond those of the training.

    By default an animation has 62 images, a sheet 8. An animation of a full turn loops smoothly;
    any other runs forward and backward.

    With --json, there is an object with output, size, style, images and notes.

    \b
    Example: unpool generate interpolate --style 3 -o turn.gif
             unpool generate interpolate --style 3 --azimuth 30,30 --elevation 0,60 -o above.png
    """
    from unpool.generate import interpolate, turntable

    count = count or (62 if job.animated else 8)
    low, high = elevation[0], elevation[-1]
    if abs(azimuth[1] - azimuth[0]) == 360 and low == high:
        images = turntable(job.generator, job.style(style), low, count)
        shown = images  # the last view is followed by the first
    else:
        images = interpolate(job.generator, job.style(style), azimuth, (low, high), count)
        shown = job.sequence(images)
    job.write(shown, len(images), {"style": style, "images": len(shown)})


@command("morph.gif", _ALL, *ENDS, *view_options(301, 20), COUNT, BACKGROUND, scale_option(), FPS)
def morph(job: Job, first: str, last: str, count: int | None = None, **view: float) -> None:
    """Morph one style into another.

    An animation takes 32 steps, or --count, forward and backward. A sheet has the authors' seven
    fractions, or --count evenly spaced ones.

    With --json, there is an object with output, size, fractions (of the first style, in the order
    of the images), images and notes.

    \b
    Example: unpool generate morph --from 0 --to 1 -o morph.gif
    """
    from unpool.generate import MORPH_FRACTIONS, morph, morph_fractions

    if job.animated:
        fractions = morph_fractions(count or 32)
    else:
        fractions = [1 - i / (count - 1) for i in range(count)] if count else [*MORPH_FRACTIONS]
    images = morph(job.generator, job.style(first), job.style(last), fractions, **view)
    shown = job.sequence(images)
    job.write(shown, len(images), {"fractions": fractions, "images": len(shown)})


@command(
    "transform.png",
    _ALL,
    STYLE,
    click.option(
        "--change",
        "changes",
        multiple=True,
        metavar="NAME",
        help="A transformation, see below; repeatable.  [default: all]",
    ),
    click.option(
        "--ends",
        callback=numbers("-0.5,0.5", 2),
        metavar="FROM,TO",
        help="Range of all changes: fractions of the side, radians or logarithms.  "
        "[default: the authors']",
    ),
    *view_options(301, 20),
    COUNT,
    BACKGROUND,
    scale_option(),
    FPS,
)
def transform(
    job: Job,
    style: str,
    changes: tuple[str, ...],
    ends: tuple[float, float] | None = None,
    count: int | None = None,
    **view: float,
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

    count, changes = count or (15 if job.animated else 7), changes or tuple(CHANGES)
    images, captions, mixture = [], [], job.style(style)
    for name in changes:
        row = vary(job.generator, mixture, name, count, ends=ends, **view)
        images += job.sequence(row)
        captions += [f"{name} {round(amount, 2):+g}" for amount in amounts(name, count, ends)]
    job.write(images, count, {"style": style, "changes": list(changes)}, captions)


@command(
    "correspond.png",
    _ALL,
    *ENDS,
    click.option(
        "--point",
        "points",
        callback=numbers("64,20", 2),
        multiple=True,
        metavar="X,Y",
        help="A point of the first style, in pixels; repeatable.  [default: see --points]",
    ),
    click.option(
        "--points",
        "spread",
        type=FROM_ONE,
        default=12,
        help="Number of points to spread over the first style.  [default: 12]",
    ),
    click.option(
        "--steps", type=FROM_ONE, default=64, help="Number of intermediate morphs.  [default: 64]"
    ),
    *view_options(301, 20),
    FPS,
    scale_option(4),
)
def correspond(
    job: Job,
    first: str,
    last: str,
    points: tuple[tuple[float, float], ...],
    spread: int,
    steps: int,
    **view: float,
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

    fractions = [1 - i / (steps + 1) for i in range(steps + 2)]
    images = morph(job.generator, job.style(first), job.style(last), fractions, **view)
    frames = [image.on() for image in images]
    start = np.array(points) if points else spread_points(images[0].rgba[:, :, 3], spread)
    tracks = track_points(frames, start)
    pairs = list(zip(frames, tracks, strict=True))
    if job.animated:
        shown = [mark_points([frame], [track], scale=job.scale) for frame, track in pairs]
    else:
        shown = [mark_points(*zip(pairs[0], pairs[-1], strict=True), scale=job.scale)]
    facts = {
        "size": replace(job, scale=1).save(shown, 1),  # enlarged before the points were marked
        "points": tracks[0].round(2).tolist(),
        "matches": tracks[-1].round(2).tolist(),
    }
    job.report(facts, [image.note for image in images])
