"""`unpool generate interpolate`, `morph`, `transform` and `correspond`: sequences of images."""

from dataclasses import replace
from typing import Any

import click

from unpool.cli.generate.options import BACKGROUND, CHANGES, COUNT, ENDS, STYLE, Job, command
from unpool.cli.options import FROM_ONE, numbers


@command(
    "turn.gif",
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
    CHANGES,
    BACKGROUND,
    animations=True,
)
def interpolate(
    job: Job,
    style: str,
    azimuth: tuple[float, float],
    elevation: tuple[float, ...],
    changes: list[tuple[str, float]],
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
    from unpool.generate.sequences import encode_changes

    change: dict[str, Any] = {"transformation": encode_changes(changes)}
    count = count or (62 if job.animated else 8)
    low, high = elevation[0], elevation[-1]
    if abs(azimuth[1] - azimuth[0]) == 360 and low == high:
        images = shown = turntable(job.generator, job.style(style), low, count, **change)
    else:
        ends = azimuth, (low, high)
        images = interpolate(job.generator, job.style(style), *ends, count, **change)
        shown = job.sequence(images)
    job.write(shown, len(images), {"style": style, "images": len(shown)})


@command("morph.gif", *ENDS, COUNT, CHANGES, BACKGROUND, view=(301, 20), animations=True)
def morph(
    job: Job,
    first: str,
    last: str,
    changes: list[tuple[str, float]],
    count: int | None = None,
    **view: float,
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
    from unpool.generate.sequences import encode_changes

    change = encode_changes(changes)
    if job.animated:
        fractions = morph_fractions(count or 32)
    else:
        fractions = [1 - i / (count - 1) for i in range(count)] if count else [*MORPH_FRACTIONS]
    ends = job.style(first), job.style(last)
    images = morph(job.generator, ends[0], ends[1], fractions, transformation=change, **view)
    shown = job.sequence(images)
    job.write(shown, len(images), {"fractions": fractions, "images": len(shown)})


@command(
    "transform.png",
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
    COUNT,
    BACKGROUND,
    view=(301, 20),
    animations=True,
)
def transform(job: Job, style: str, changes: tuple[str, ...], **options: Any) -> None:
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

    count, names = options.pop("count", 15 if job.animated else 7), list(changes or CHANGES)
    images, captions = [], []
    for name in names:
        images += job.sequence(vary(job.generator, job.style(style), name, count, **options))
        steps = amounts(name, count, options.get("ends"))
        captions += [f"{name} {round(amount, 2):+g}" for amount in steps]
    job.write(images, count, {"style": style, "changes": names}, captions)


@command(
    "correspond.png",
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
    view=(301, 20),
    scale=4,
    animations=True,
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
