"""Images as a restorer takes them, and what it measures on them."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import convolve

from unpool.errors import ImageError, ShapeError
from unpool.restore.samples import (
    as_samples,
    brightest,
    lowest,
    noise_of,
    require_finite,
    require_room,
    residual_of,
    strips,
    why_no_photo,
)
from unpool.vision.psf import find_psf


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16", "I", "F"])
def test_images_of_pillow_keep_their_values(mode):
    image = Image.new(mode, (7, 5), 3 if len(mode) == 1 or ";" in mode else (3,) * len(mode))
    values, frame = as_samples(image)
    assert np.array_equal(values, np.array(image))
    assert values.dtype == np.array(image).dtype
    assert frame.shape[:2] == (5, 7)


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((0, 4)), np.zeros((2, 2), bool)])
def test_what_is_no_image_is_refused(wrong):
    with pytest.raises(ShapeError, match="wanted numbers"):
        as_samples(wrong)


def test_values_that_are_not_finite_are_counted():
    plane = np.ones((4, 4), np.float32)
    require_finite(plane)
    plane[0, 0], plane[1, 1] = np.nan, np.inf
    with pytest.raises(ImageError, match="got 2 values"):
        require_finite(plane)


def test_a_psf_must_fit_into_the_image():
    psf = find_psf("disk:3")
    side = psf.kernel.shape[0]
    require_room((side, side, 1), psf)
    with pytest.raises(ShapeError, match="cut the spot out"):
        require_room((side, side - 1, 1), psf)


def test_strips_are_the_whole_plane():
    plane = np.arange(600 * 1000, dtype=np.float32).reshape(600, 1000)
    parts = strips(plane)
    assert len(parts) > 1
    assert np.array_equal(np.concatenate([plane[part] for part in parts]), plane)


def test_noise_and_residual_are_those_that_were_added():
    rng = np.random.default_rng(0)
    sharp = convolve(rng.random((200, 200)), np.ones((9, 9)) / 81).astype(np.float32)
    kernel = find_psf("gaussian:1.6").kernel
    y = convolve(sharp, kernel) + np.float32(0.01) * rng.standard_normal(sharp.shape, np.float32)
    y = y.astype(np.float32)
    assert noise_of(y) == pytest.approx(0.01, rel=0.05)
    assert residual_of(y, sharp, kernel, 0.01) == pytest.approx(1, rel=0.05)
    assert residual_of(y, sharp, kernel, 0.005) == pytest.approx(2, rel=0.05)
    assert residual_of(y[:9, :9], sharp[:9, :9], kernel, 0.01) is None  # smaller than two PSFs
    assert lowest([y, y - 1]) == y.min() - 1
    assert brightest(y) == pytest.approx(np.quantile(y, 0.999))


def test_floats_beyond_one_are_no_photo():
    _, floats = as_samples(np.zeros((4, 4), np.float32))
    _, whole = as_samples(np.zeros((4, 4), np.uint16))
    assert why_no_photo(floats, 1.02) == why_no_photo(whole, 1.0) == ""
    assert why_no_photo(floats, 812.3) == "the values are floating point up to 812, not to 1"
