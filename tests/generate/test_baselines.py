"""Baselines and errors, against numbers by hand."""

from pathlib import Path

import numpy as np
import pytest

from unpool.errors import OptionError, ShapeError
from unpool.generate import blend, compare_views, nearest_view
from unpool.generate.baselines import errors, premultiplied
from unpool.rendering.dataset import Chairs, View

RANDOM = np.random.default_rng(0)


def flat(*values):
    """Images of one value each."""
    return np.stack([np.full((2, 2, 4), v, np.float32) for v in values])


def test_the_nearest_view_wraps_around():
    assert nearest_view([10, 100, 300], 350) == 0
    assert nearest_view([10, 100, 300], 326) == 2
    assert nearest_view([10, 100, 300], 190) == 1
    assert nearest_view([0, 20], 10) == 0  # at equal distance


@pytest.mark.parametrize(
    ("azimuth", "wanted"),
    [(0, 1.0), (90, 2.0), (30, 4 / 3), (300, 2.0), (345, 1.25), (360, 1.0), (165, 2.5)],
)
def test_blending_of_neighbors(azimuth, wanted):
    """Views at 0, 90 and 240 degrees of values 1, 2 and 3: 345 is 15 before the first."""
    seen, around = flat(1, 2, 3), [0.0, 90.0, 240.0]
    expected = {345: 1 + 2 * 15 / 120, 300: 3 - 2 * 60 / 120}.get(azimuth, wanted)
    assert blend(seen, around, azimuth)[0, 0, 0] == pytest.approx(expected)
    order = [2, 0, 1]
    again = blend(seen[order], [around[i] for i in order], azimuth)
    assert again[1, 1, 3] == pytest.approx(expected)


def test_a_single_view_is_used_as_it_is():
    assert blend(flat(5), [77.0], 200).max() == blend(flat(5), [77.0], 77).min() == 5
    with pytest.raises(OptionError, match="got no views to blend"):
        blend(flat(5)[:0], [], 10)


def test_errors_are_over_colors_inside_the_mask():
    images = RANDOM.integers(0, 256, (3, 2, 2, 4), dtype=np.uint8)
    truth = premultiplied(images)
    x = images.astype(float) / 255
    for i in range(3):
        by_hand = 0.0
        for row in range(2):
            for column in range(2):
                for c in range(3):
                    inside = x[i, row, column, c] * x[i, row, column, 3]
                    by_hand += (inside - 0.25) ** 2 / 12
        assert errors(np.full_like(truth, 0.25), truth)[i] == pytest.approx(by_hand, rel=1e-5)
        total, count = 0.0, 0
        for row in range(2):
            for column in range(2):
                if images[i, row, column, 3] > 127:
                    total += ((truth[i, row, column, :3] - 0.25) ** 2).sum() / 3
                    count += 1
        found = errors(np.full_like(truth, 0.25), truth, inside=True)[i]
        assert found == pytest.approx(total / max(count, 1), rel=1e-5)
    with pytest.raises(ShapeError, match=r"wanted both \(N, S, S, 4\)"):
        errors(truth[:1], truth)


@pytest.fixture
def chairs(generator):
    """Two styles, two elevations, four azimuths."""
    views = [
        View(style, azimuth, elevation, Path("none"))
        for style in (0, 1)
        for elevation in (20.0, 30.0)
        for azimuth in (0.0, 90.0, 180.0, 270.0)
    ]
    return Chairs(Path(), ("stool", "bar_stool"), tuple(views))


def test_baselines_use_seen_views_only(generator, chairs):
    images = RANDOM.integers(0, 256, (16, 32, 32, 4), dtype=np.uint8)
    held = [1, 12]
    found = compare_views(generator, chairs, images, held)
    known = premultiplied(images)
    # view 1 lies between 0 and 2; view 12 (0 degrees) between 15 and 13
    np.testing.assert_allclose(found.truth, known[held])
    blended = [(known[0] + known[2]) / 2, (known[15] + known[13]) / 2]
    np.testing.assert_allclose(found.images["blending"], blended, atol=1e-6)
    np.testing.assert_allclose(found.images["nearest"], known[[0, 13]])
    images = [generator.view("stool", azimuth=90), generator.view("bar_stool", elevation=30)]
    for one, network in zip(images, found.images["network"], strict=True):
        seen = one.rgba / 255
        seen[..., :3] = np.minimum(seen[..., :3], seen[..., 3:])
        assert np.abs(seen - network).max() < 0.5 / 255 + 1e-6
    wanted = ((found.images["network"] - known[held])[..., :3] ** 2).mean()
    assert found.mse()["network"] == pytest.approx(wanted, rel=1e-5)
    assert list(found.mse()) == ["network", "blending", "nearest"]


def test_refusals(generator, chairs):
    images = np.zeros((16, 32, 32, 4), np.uint8)
    with pytest.raises(OptionError, match="got no held-out views"):
        compare_views(generator, chairs, images, [])
    with pytest.raises(ShapeError, match=r"got images of \(15, 32, 32, 4\)"):
        compare_views(generator, chairs, images[1:], [0])
    with pytest.raises(OptionError, match="got style 'couch'"):
        compare_views(generator, chairs._replace(styles=("couch", "stool")), images, [0])
    with pytest.raises(OptionError, match="got no views to blend"):
        compare_views(generator, chairs, images, [0, 1, 2, 3])
