"""Parts of figures: what charts show, and how images are put together."""

import json

import numpy as np
import pytest

from unpool.errors import ShapeError
from unpool.vision.images import read_image
from unpool.visualize.figures import captioned, chart, fitted, joined, write_figure


def test_a_chart_is_as_high_as_its_values():
    """The line of a larger value runs higher up, and a color of its own tells it."""
    red, blue = (255, 0, 0), (0, 0, 255)
    drawn = chart([0, 1, 2], [[1, 1, 1], [3, 3, 3]], size=(200, 160), colors=[red, blue])
    rows = [np.nonzero((drawn == color).all(2))[0] for color in (red, blue)]
    assert rows[1].max() < rows[0].min()
    middle = [row.mean() for row in rows]
    zero, top = 160 - 22, 24
    assert middle == pytest.approx([zero + (top - zero) * v / 3 for v in (1, 3)], abs=1.5)


def test_a_chart_of_nothing_is_refused():
    for lines in ([], [[1.0]]):
        with pytest.raises(ShapeError, match="a value for each place"):
            chart([0, 1], lines)
    assert (chart([0, 1], [[0, 0]]) < 255).any()


def test_images_are_joined_with_white_between():
    black, gray = np.zeros((4, 6, 3), np.uint8), np.full((8, 3, 3), 9, np.uint8)
    both = joined([black, gray], 1, gap=2, align=0.5)
    assert both.shape == (8, 11, 3)
    assert (both[2:6, :6] == 0).all()
    assert (both[:, 8:] == 9).all()
    assert both.astype(int).sum() == 9 * 24 * 3 + 255 * 3 * (8 * 11 - 24 - 24)
    assert np.array_equal(joined([black, gray], 0, gap=2), joined([black, gray], 0, 2, 0))


def test_fitted_keeps_pixels_or_their_mean():
    checks = np.indices((3, 2)).sum(0)[:, :, None].repeat(3, 2).astype(np.uint8) % 2 * 200
    large = fitted(checks, 10)
    assert np.array_equal(large[:9, 2:8], checks.repeat(3, 0).repeat(3, 1))
    assert fitted(np.full((40, 20, 3), 7, np.uint8), 10)[:, 2:7].max() == 7


def test_captions_leave_the_image_as_it_is():
    image = np.random.default_rng(0).integers(0, 255, (30, 120, 3), dtype=np.uint8)
    assert np.array_equal(captioned(image, "layer")[20:], image)
    assert captioned(image, "a rather long caption for such an image").shape[1] > 120


def test_what_is_written(tmp_path):
    image = np.full((5, 7, 3), 80, np.uint8)
    paths = write_figure(tmp_path / "new", "chart", image, {"a": [1, None]})
    assert [path.name for path in paths] == ["chart.png", "chart.json"]
    assert np.array_equal(read_image(paths[0]), image)
    assert json.loads(paths[1].read_text()) == {"a": [1, None]}


def test_json_is_strict(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_figure(tmp_path, "a", np.zeros((2, 2, 3), np.uint8), {"value": float("nan")})
    assert not (tmp_path / "a.json").exists()
