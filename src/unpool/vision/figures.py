"""The parts of all figures: tiles, captions, legends, grids and charts, and writing them.

Images are (H, W, 3) uint8 arrays, RGB. Only charts need matplotlib (`pip install 'unpool[plots]'`).
"""

import io
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from unpool.errors import OptionError, ShapeError
from unpool.files import write_bytes, write_json
from unpool.vision.images import Pixels, check_image, read_image, write_image

Color = tuple[int, int, int]
Tile = tuple[Pixels, str]
"""An image with its caption."""

GRAY = 128
"""The value of zero in signed maps, and outside the border of an image."""

COLORS: tuple[Color, ...] = (
    *((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167)),
    *((230, 159, 0), (86, 180, 233), (120, 120, 120), (0, 0, 0)),
)
"""Line colors, distinguishable by color-blind readers (Okabe, Ito 2008)."""

_TEXT = 12
_DPI = 100


def contact_sheet(tiles: Sequence[Tile], columns: int, width: int = 1200) -> Pixels:
    """Lay out images with captions below them in a grid on white.

    The sheet is `width` pixels wide. Each image, (H, W, 3) uint8, RGB, is scaled to fit a square as
    wide as its column; captions that are too long are cut.

    Raises:
        ShapeError: no tiles, columns too narrow, or an image of another shape or type.

    >>> gray = np.full((20, 30, 3), 128, np.uint8)
    >>> contact_sheet([(gray, "input"), (gray, "output")], columns=2, width=300).shape[1]
    300
    """
    gap = max(4, width // 100)
    side = (width - gap) // max(columns, 1) - gap
    if not tiles or columns < 1 or side < 16:
        raise ShapeError(
            f"got {len(tiles)} tiles for {columns} columns in {width} pixels; "
            "wanted a tile or more, and columns of at least 16 pixels"
        )
    cells = [_cell(image, caption, side) for image, caption in tiles]
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) + gap for row in rows]
    sheet = Image.new("RGB", (width, gap + sum(heights)), "white")
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            sheet.paste(cell, (gap + j * (side + gap), gap + sum(heights[:i])))
    return np.array(sheet)


def mosaic(images: Pixels | Sequence[Pixels], columns: int, gap: int = 2) -> Pixels:
    """Lay out images (N, H, W, 3), unscaled and without captions, in a grid on white.

    Raises:
        ShapeError: no images, images of several sizes, or less than one column.

    >>> mosaic(np.zeros((9, 20, 30, 3), np.uint8), columns=3).shape
    (64, 94, 3)
    """
    shapes = {np.shape(image) for image in images}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 3 or columns < 1 or gap < 0:
        raise ShapeError(
            f"got {len(images)} images for {columns} columns; wanted one or more of one size, "
            "(H, W, 3), and a column or more"
        )
    tiles = [*images, *[np.full(shape, 255, np.uint8)] * (-len(images) % columns)]
    rows = [join(tiles[i : i + columns], 1, gap) for i in range(0, len(tiles), columns)]
    return join(rows, 0, gap)


def join(images: Sequence[Pixels], axis: Literal[0, 1], gap: int = 8, align: float = 0) -> Pixels:
    """Put images below one another (axis 0) or side by side (axis 1), on white.

    Smaller ones are aligned across the sequence: 0 at the start, 0.5 in the middle.

    >>> join([np.zeros((4, 6, 3), np.uint8), np.zeros((9, 2, 3), np.uint8)], 1, gap=1).shape
    (9, 9, 3)
    """
    side = max(image.shape[1 - axis] for image in images)
    parts = []
    for image in images:
        spare = side - image.shape[1 - axis]
        around = int(spare * align), spare - int(spare * align)
        pad = [(0, gap), around] if axis == 0 else [around, (0, gap)]
        parts.append(np.pad(image, [*pad, (0, 0)], constant_values=255))
    whole = np.concatenate(parts, axis)
    return np.delete(whole, np.s_[whole.shape[axis] - gap :], axis)


def scale_to(image: Pixels, side: int) -> Pixels:
    """Scale an image (H, W, 3) to a long side of at most `side`.

    It is enlarged by a whole factor without interpolation, or reduced by area averaging.

    >>> scale_to(np.zeros((7, 5, 3), np.uint8), 22).shape
    (21, 15, 3)
    """
    longest = max(image.shape[:2])
    if longest <= side:
        return image.repeat(side // longest, 0).repeat(side // longest, 1)
    height, width = (max(round(s * side / longest), 1) for s in image.shape[:2])
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def fit_square(image: Pixels, side: int) -> Pixels:
    """Center an image, scaled as by `scale_to`, in a white square.

    >>> fit_square(np.zeros((7, 5, 3), np.uint8), 22).shape
    (22, 22, 3)
    """
    scaled = scale_to(image, side)
    spare = [side - length for length in scaled.shape[:2]]
    around = [(n // 2, n - n // 2) for n in spare]
    return np.pad(scaled, [*around, (0, 0)], constant_values=255)


def patch(image: Pixels, box: Sequence[int], fill: int = GRAY) -> Pixels:
    """Cut a box (x0, y0, x1, y1, ends excluded) out of an image (H, W, 3) uint8.

    Pixels outside the image are `fill`. A box without area is a `ShapeError`.

    >>> patch(np.zeros((4, 4, 3), np.uint8), (-1, 0, 2, 2))[:, :, 0].tolist()
    [[128, 0, 0], [128, 0, 0]]
    """
    x0, y0, x1, y1 = box
    if x0 >= x1 or y0 >= y1:
        raise ShapeError(f"got the box {tuple(box)}; wanted x0 < x1 and y0 < y1")
    cut = np.full((y1 - y0, x1 - x0, *image.shape[2:]), fill, np.uint8)
    inside = image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    top, left = max(-y0, 0), max(-x0, 0)
    cut[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return cut


def add_caption(image: Pixels, text: str, where: Literal["above", "left"] = "above") -> Pixels:
    """Add a line of text above an image, or to the left of its middle; it widens if need be.

    >>> add_caption(np.zeros((20, 200, 3), np.uint8), "layer 1").shape
    (40, 200, 3)
    """
    font = ImageFont.load_default(_TEXT)
    length, band = math.ceil(font.getlength(text)) + 4, _TEXT + 8
    height, width = image.shape[:2]
    if where == "above":
        size, corner = (max(width, length), height + band), (0, band)
        place, anchor = (2.0, band / 2), "lm"
    else:
        size, corner = (width + length, max(height, band)), (length, 0)
        place, anchor = (length - 4.0, height / 2), "rm"
    sheet = Image.new("RGB", size, "white")
    ImageDraw.Draw(sheet).text(place, text, "black", font, anchor=anchor)
    sheet.paste(Image.fromarray(image), corner)
    return np.array(sheet)


def legend(
    panel: Pixels, rows: Sequence[tuple[Sequence[int], str]], size: int, ink: str = "black"
) -> Pixels:
    """Draw color swatches with texts over a panel, from its top.

    Args:
        panel: the background, (H, W, 3) uint8.
        rows: colors with their texts, which are cut at the right border.
        size: of the text, in pixels; a row is 1.3 times as high.
        ink: the color of the text, and of the outlines of the swatches.

    >>> white = np.full((40, 90, 3), 255, np.uint8)
    >>> legend(white, [((255, 0, 0), "dog")], 20)[25, 10].tolist()
    [255, 0, 0]
    """
    image, font = Image.fromarray(panel), ImageFont.load_default(size)
    pen = ImageDraw.Draw(image)
    for i, (color, text) in enumerate(rows):
        middle = size * (0.95 + 1.3 * i)
        box = 0.4 * size, middle - 0.4 * size, 1.3 * size, middle + 0.4 * size
        pen.rectangle(box, tuple(color), ink)
        text = _cut(text, font, image.width - 1.7 * size)
        pen.text((1.7 * size, middle), text, ink, font, anchor="lm")
    return np.array(image)


def _cell(image: Pixels, caption: str, side: int) -> Image.Image:
    """An image within a square of `side`, centered across, with its caption below."""
    check_image(image)
    photo = ImageOps.contain(Image.fromarray(image), (side, side), Image.Resampling.LANCZOS)
    size = min(max(side // 16, 10), 22)
    font = ImageFont.load_default(size)
    cell = Image.new("RGB", (side, photo.height + 2 * size), "white")
    cell.paste(photo, ((side - photo.width) // 2, 0))
    middle = (side / 2, photo.height + size)
    ImageDraw.Draw(cell).text(middle, _cut(caption, font, side), "black", font, anchor="mm")
    return cell


def _cut(text: str, font: Any, width: float) -> str:
    """As much of a text as fits, with an ellipsis if it is cut."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


@contextmanager
def plot(
    path: str | Path, size: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any
) -> Iterator[Any]:
    """Give matplotlib axes to draw on; on success the chart is written as PNG, atomically.

    Args:
        path: the file.
        size: width and height in hundreds of pixels.
        rows, columns: of panels; with several panels, an array of axes is given.
        options: of matplotlib's `Figure.subplots`, such as sharex.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "loss.png"
    >>> with plot(file, (4, 3)) as axes:
    ...     _ = axes.plot([1, 2, 3], [0.9, 0.5, 0.4])
    >>> file.exists()
    True
    """
    figure = _figure(size)
    yield figure.subplots(rows, columns, **options)
    write_bytes(path, _encoded(figure))


def chart(
    x: Sequence[float],
    lines: Sequence[Sequence[float]],
    caption: str = "",
    *,
    top: float | None = None,
    size: tuple[int, int] = (260, 180),
    colors: Sequence[Color] = COLORS,
) -> Pixels:
    """A small line chart as an image, to be placed among tiles.

    Args:
        x: positions on the horizontal axis, ascending.
        lines: values of each line, one for each position, 0 or above.
        caption: title of the chart.
        top: upper end of the vertical axis, which begins at 0; by default above the largest value.
        size: width and height in pixels.
        colors: of the lines, in turn.

    Returns:
        (height, width, 3) uint8; without matplotlib, a note of how to install it.

    Raises:
        ShapeError: no lines, or a line of another length than `x`.

    >>> chart([0, 1, 2], [[0, 1, 4], [1, 1, 1]], "distance", size=(200, 100)).shape
    (100, 200, 3)
    """
    if not lines or not len(x) or any(len(line) != len(x) for line in lines):
        raise ShapeError(
            f"got lines of {[len(line) for line in lines]} values for {len(x)} positions; wanted "
            "one line or more, each with a value for each position"
        )
    width, height = size
    if find_spec("matplotlib") is None:  # the rest of the figure took long, and is worth having
        blank = np.full((height, width, 3), 255, np.uint8)
        note = add_caption(blank, "(chart: pip install 'unpool[plots]')")
        return add_caption(note, caption)[:height, :width]
    figure = _figure((width / _DPI, height / _DPI))
    axes = figure.subplots()
    for line, color in zip(lines, itertools.cycle(colors), strict=False):
        axes.plot(list(x), list(line), color=np.array(color) / 255, linewidth=1)
    axes.set_ylim(0, top)
    axes.margins(x=0)
    axes.set_title(caption, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    return read_image(_encoded(figure))


def _encoded(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise OptionError("matplotlib is not installed; pip install 'unpool[plots]'") from None
    return Figure(figsize=size, layout="constrained")


def write_figure(stem: str | Path, image: Pixels, facts: Mapping[str, Any]) -> list[Path]:
    """Write a figure to STEM.png and its values to STEM.json, each atomically; returns both paths.

    The name of the stem may contain dots. In the plain values `facts`, NaN becomes null.
    """
    figure, text = Path(f"{stem}.png"), Path(f"{stem}.json")
    write_image(figure, image)
    write_json(text, dict(facts))
    return [figure, text]
