"""Parts of figures: charts, captions, and images side by side; and how a figure is written."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unpool.errors import ShapeError
from unpool.files import atomic
from unpool.vision.images import Pixels, write_image

Color = tuple[int, int, int]

COLORS: tuple[Color, ...] = (
    *((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167)),
    *((230, 159, 0), (86, 180, 233), (120, 120, 120), (0, 0, 0)),
)
"""Of lines; they can be told apart without seeing red or green. Okabe, Ito 2008."""

_FINE = 3  # charts are drawn so many times larger, and reduced
_TEXT = 12


def chart(
    x: Sequence[float],
    lines: Sequence[Sequence[float]],
    caption: str = "",
    *,
    top: float | None = None,
    size: tuple[int, int] = (260, 180),
    colors: Sequence[Color] = COLORS,
) -> Pixels:
    """Draw lines over a common axis, from 0 up.

    Args:
        x: places on the axis, in ascending order.
        lines: values of each line, as many as places, 0 or above.
        caption: stands above.
        top: the largest value of the axis; that of the lines when not given.
        size: width and height in pixels.
        colors: of the lines, in turn.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ShapeError: no lines, or one of another length.

    >>> chart([0, 1, 2], [[0, 1, 4], [1, 1, 1]], "distance", size=(200, 100)).shape
    (100, 200, 3)
    """
    if not lines or not len(x) or any(len(line) != len(x) for line in lines):
        raise ShapeError(
            f"got lines of {[len(line) for line in lines]} values for {len(x)} places; wanted one "
            "line or more, each with a value for each place"
        )
    width, height = (side * _FINE for side in size)
    font = ImageFont.load_default(_TEXT * _FINE)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    highest = top if top is not None else max(max(line) for line in lines)
    steps = _steps(highest if highest > 0 else 1.0)
    labels = [f"{step:g}" for step in steps]
    left = int(max(map(font.getlength, labels))) + 8 * _FINE
    box = left, 24 * _FINE, width - 14 * _FINE, height - 22 * _FINE

    def at(i: int, value: float) -> tuple[float, float]:
        across = (x[i] - x[0]) / ((x[-1] - x[0]) or 1)
        return (
            box[0] + across * (box[2] - box[0]),
            box[3] - min(value / steps[-1], 1) * (box[3] - box[1]),
        )

    for step, label in zip(steps, labels, strict=True):
        y = at(0, step)[1]
        pen.line((box[0], y, box[2], y), (225, 225, 225), _FINE)
        pen.text((box[0] - 4 * _FINE, y), label, (90, 90, 90), font, anchor="rm")
    for i in sorted({0, len(x) // 2, len(x) - 1}):
        place = at(i, 0)[0], box[3] + 4 * _FINE
        pen.text(place, f"{x[i]:g}", (90, 90, 90), font, anchor="mt")
    for n, line in enumerate(lines):
        points = [at(i, value) for i, value in enumerate(line)]
        pen.line(points, colors[n % len(colors)], round(1.5 * _FINE), joint="curve")
    pen.text((width / 2, 10 * _FINE), caption, "black", font, anchor="mm")
    return np.array(sheet.resize(size, Image.Resampling.BOX))


def _steps(highest: float) -> list[float]:
    """Round numbers from 0 to the first that is not below the highest value.

    >>> _steps(0.83), _steps(36.0)
    ([0.0, 0.5, 1.0], [0.0, 10.0, 20.0, 30.0, 40.0])
    """
    size = 10.0 ** math.floor(math.log10(highest / 2))
    step = next(size * n for n in (1, 2, 5, 10, 20) if size * n * 4 >= highest)
    return [round(step * i, 12) for i in range(math.ceil(highest / step - 1e-9) + 1)]


def captioned(image: Pixels, text: str, where: Literal["above", "left"] = "above") -> Pixels:
    """An image with a line of text above it, or to the left of its middle; it widens if need be.

    >>> captioned(np.zeros((20, 200, 3), np.uint8), "layer 1").shape
    (40, 200, 3)
    """
    font = ImageFont.load_default(_TEXT)
    length, band = math.ceil(font.getlength(text)) + 4, _TEXT + 8
    height, width = image.shape[:2]
    if where == "above":
        sheet, corner = Image.new("RGB", (max(width, length), height + band), "white"), (0, band)
        place, anchor = (2.0, band / 2), "lm"
    else:
        sheet, corner = Image.new("RGB", (width + length, max(height, band)), "white"), (length, 0)
        place, anchor = (length - 4.0, height / 2), "rm"
    ImageDraw.Draw(sheet).text(place, text, "black", font, anchor=anchor)
    sheet.paste(Image.fromarray(image), corner)
    return np.array(sheet)


def joined(images: Sequence[Pixels], axis: Literal[0, 1], gap: int = 8, align: float = 0) -> Pixels:
    """Images below one another (axis 0) or side by side (axis 1), on white.

    Args:
        images: (H, W, 3) uint8 each, one or more.
        axis: along which they stand.
        gap: white pixels between them.
        align: where smaller ones stand across: 0 at the beginning, 0.5 in the middle.

    >>> joined([np.zeros((4, 6, 3), np.uint8), np.zeros((9, 2, 3), np.uint8)], 1, gap=1).shape
    (9, 9, 3)
    """
    across = 1 - axis
    side = max(image.shape[across] for image in images)
    parts = []
    for image in images:
        spare = side - image.shape[across]
        pad = [(0, 0), (0, 0), (0, 0)]
        pad[across] = int(spare * align), spare - int(spare * align)
        pad[axis] = 0, gap
        parts.append(np.pad(image, pad, constant_values=255))
    whole = np.concatenate(parts, axis)
    return whole[: whole.shape[0] - gap] if axis == 0 else whole[:, : whole.shape[1] - gap]


def fitted(image: Pixels, side: int) -> Pixels:
    """An image in a white square: enlarged a whole number of times, or reduced.

    >>> fitted(np.zeros((7, 5, 3), np.uint8), 22).shape
    (22, 22, 3)
    """
    longest = max(image.shape[:2])
    if longest <= side:
        drawn = image.repeat(side // longest, 0).repeat(side // longest, 1)
    else:
        height, width = (max(round(s * side / longest), 1) for s in image.shape[:2])
        drawn = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
    square = np.full((side, side, 3), 255, np.uint8)
    y, x = (side - drawn.shape[0]) // 2, (side - drawn.shape[1]) // 2
    square[y : y + drawn.shape[0], x : x + drawn.shape[1]] = drawn
    return square


def write_figure(folder: Path, name: str, photo: Pixels, told: dict[str, Any]) -> list[Path]:
    """Write NAME.png and NAME.json into a folder, each whole or not at all; gives both paths."""
    image, text = folder / f"{name}.png", folder / f"{name}.json"
    write_image(image, photo)
    with atomic(text) as temporary:
        temporary.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return [image, text]
