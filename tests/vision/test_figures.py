"""The figure kit: grids, captions, legends, charts, and how figures are written."""

import json
import sys

import numpy as np
import pytest

from unpool.errors import OptionError, ShapeError
from unpool.vision.figures import (
    add_caption,
    chart,
    contact_sheet,
    fit_square,
    join,
    legend,
    mosaic,
    patch,
    plot,
    write_figure,
)
from unpool.vision.images import read_image

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
RED = [255, 0, 0]


def test_contact_sheet_places_tiles_in_rows():
    red, blue = np.zeros((20, 40, 3), np.uint8), np.zeros((40, 20, 3), np.uint8)
    red[..., 0] = blue[..., 2] = 255
    sheet = contact_sheet([(red, "red"), (blue, "blue"), (red, "")], columns=2, width=400)
    assert sheet.shape[1] == 400
    assert sheet.dtype == np.uint8
    side = (400 - 4) // 2 - 4
    assert sheet[4 + side // 4, 4 + side // 2].tolist() == RED
    assert sheet[4 + side // 2, 8 + side + side // 2].tolist() == [0, 0, 255]
    second = 4 + side + 2 * max(side // 16, 10) + 4  # below the portrait image and its caption
    assert sheet[second + side // 4, 4 + side // 2].tolist() == RED
    assert (sheet[second:, 8 + side :] == 255).all()
    assert (sheet[:4] == 255).all()
    assert sheet.min(2)[4 + side // 2 : 4 + side // 2 + 20, 4 : 4 + side].min() < 100  # caption


def test_contact_sheet_cuts_long_captions():
    tile = np.full((20, 20, 3), 255, np.uint8)
    sheet = contact_sheet([(tile, "word " * 50), (tile, "")], columns=2, width=400)
    assert (sheet[:, 202:] == 255).all()
    assert (sheet[:, :202] < 100).any()


@pytest.mark.parametrize(("tiles", "columns", "width"), [(0, 1, 400), (1, 0, 400), (1, 9, 100)])
def test_contact_sheet_refuses_what_does_not_fit(tiles, columns, width):
    with pytest.raises(ShapeError, match=rf"got {tiles} tiles for {columns} columns in {width}"):
        contact_sheet([(IMAGE, "")] * tiles, columns, width)


def test_a_mosaic():
    tiles = RNG.integers(0, 250, (5, 4, 6, 3), dtype=np.uint8)
    sheet = mosaic(tiles, columns=2, gap=3)
    assert sheet.shape == (3 * 4 + 2 * 3, 2 * 6 + 3, 3)
    for i, tile in enumerate(tiles):
        y, x = i // 2 * 7, i % 2 * 9
        assert np.array_equal(sheet[y : y + 4, x : x + 6], tile)
        sheet[y : y + 4, x : x + 6] = 255
    assert (sheet == 255).all()
    assert np.array_equal(mosaic(list(tiles[:1]), columns=1), tiles[0])


@pytest.mark.parametrize(
    "box", [(2, 1, 5, 4), (-3, -2, 2, 2), (5, 4, 12, 9), (-4, -4, 20, 20), (30, 30, 33, 33)]
)
def test_patches_reach_beyond_the_image(box):
    image = RNG.integers(0, 255, (7, 9, 3), dtype=np.uint8)
    x0, y0, x1, y1 = box
    cut = patch(image, box, fill=9)
    assert cut.shape == (y1 - y0, x1 - x0, 3)
    for y in range(y0, y1):
        for x in range(x0, x1):
            inside = 0 <= y < 7 and 0 <= x < 9
            expected = image[y, x].tolist() if inside else [9] * 3
            assert cut[y - y0, x - x0].tolist() == expected


def test_empty_grids_and_patches_are_refused():
    with pytest.raises(ShapeError, match="got 0 images for 2 columns; wanted one or more"):
        mosaic([], columns=2)
    with pytest.raises(ShapeError, match="of one size"):
        mosaic([np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)], columns=2)
    with pytest.raises(ShapeError, match=r"got the box \(3, 3, 3, 5\); wanted x0 < x1"):
        patch(np.zeros((4, 4, 3), np.uint8), (3, 3, 3, 5))


def test_a_chart_is_as_high_as_its_values():
    """The line of a larger value runs higher up, and the axis ends at the top asked for."""
    red, blue = (255, 0, 0), (0, 0, 255)
    shown = chart([0, 1, 2], [[1, 1, 1], [3, 3, 3]], top=4, size=(200, 160), colors=[red, blue])
    near = [(np.abs(shown.astype(int) - color).max(2) < 60) for color in (red, blue)]
    low, high = (np.nonzero(lines)[0].mean() for lines in near)
    alone = chart([0, 1, 2], [[2, 2, 2]], top=4, size=(200, 160), colors=[red])
    middle = np.nonzero(np.abs(alone.astype(int) - red).max(2) < 60)[0].mean()
    assert high < middle < low
    assert middle == pytest.approx((low + high) / 2, abs=1.5)
    assert shown.shape == (160, 200, 3)


def test_an_empty_chart_is_refused():
    for lines in ([], [[1.0]]):
        with pytest.raises(ShapeError, match="a value for each position"):
            chart([0, 1], lines)
    assert (chart([0, 1], [[0, 0]]) < 255).any()


def test_images_are_joined_with_white_between():
    black, gray = np.zeros((4, 6, 3), np.uint8), np.full((8, 3, 3), 9, np.uint8)
    both = join([black, gray], 1, gap=2, align=0.5)
    assert both.shape == (8, 11, 3)
    assert (both[2:6, :6] == 0).all()
    assert (both[:, 8:] == 9).all()
    assert both.astype(int).sum() == 9 * 24 * 3 + 255 * 3 * (8 * 11 - 24 - 24)
    assert np.array_equal(join([black, gray], 0, gap=2), join([black, gray], 0, 2, 0))


def test_fit_square_keeps_pixels_or_their_mean():
    checks = np.indices((3, 2)).sum(0)[:, :, None].repeat(3, 2).astype(np.uint8) % 2 * 200
    large = fit_square(checks, 10)
    assert np.array_equal(large[:9, 2:8], checks.repeat(3, 0).repeat(3, 1))
    assert fit_square(np.full((40, 20, 3), 7, np.uint8), 10)[:, 2:7].max() == 7


def test_captions_leave_the_image_as_it_is():
    image = np.random.default_rng(0).integers(0, 255, (30, 120, 3), dtype=np.uint8)
    assert np.array_equal(add_caption(image, "layer")[20:], image)
    assert add_caption(image, "a rather long caption for such an image").shape[1] > 120


def test_a_figure_and_its_values_are_written(tmp_path):
    image = np.full((5, 7, 3), 80, np.uint8)
    paths = write_figure(tmp_path / "new/chart.v1", image, {"a": [1, None]})
    assert [path.name for path in paths] == ["chart.v1.png", "chart.v1.json"]
    assert np.array_equal(read_image(paths[0]), image)
    assert json.loads(paths[1].read_text()) == {"a": [1, None]}


def test_values_that_are_not_finite_become_null(tmp_path):
    _, facts = write_figure(tmp_path / "a", np.zeros((2, 2, 3), np.uint8), {"value": float("nan")})
    assert json.loads(facts.read_text()) == {"value": None}


def test_a_plot_is_written_whole_or_not_at_all(tmp_path):
    with plot(tmp_path / "a.png", (3, 2), columns=2) as axes:
        for panel in axes:
            panel.plot([0, 1], [1, 0])
    assert read_image(tmp_path / "a.png").shape == (200, 300, 3)
    with pytest.raises(ZeroDivisionError), plot(tmp_path / "b.png", (3, 2)):
        1 / 0  # noqa: B018
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_without_matplotlib(monkeypatch, tmp_path):
    """A chart among tiles becomes a note; a chart file is refused."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("unpool.vision.figures.find_spec", lambda name: None)
    assert chart([0, 1], [[0, 1]], "distance", size=(260, 180)).shape == (180, 260, 3)
    with pytest.raises(OptionError, match="matplotlib is not installed; pip install"):
        plot(tmp_path / "a.png", (3, 2)).__enter__()


def test_a_legend_shows_its_colors_and_cuts_long_texts():
    panel = np.full((60, 100, 3), 255, np.uint8)
    shown = legend(panel, [((255, 0, 0), "red"), ((0, 0, 255), "blue " * 30)], 20)
    assert shown[19, 15].tolist() == RED
    assert shown[45, 15].tolist() == [0, 0, 255]
    assert (panel == 255).all()
    assert (shown[:, 98:] == 255).all()
