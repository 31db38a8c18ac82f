"""The error of JPEG compression, against the images that were compressed."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter
from skimage import data

from unpool.vision.images import LUMA
from unpool.vision.jpeg import compression_noise, compression_of


def photo(name, colors=False):
    """The middle of a photo, a little blurred, without noise."""
    image = getattr(data, name)()
    image = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
    top, left = (image.shape[0] - 256) // 2, (image.shape[1] - 256) // 2
    image = gaussian_filter(image[top : top + 256, left : left + 256].astype(float), (2, 2, 0))
    return np.rint(image if colors else image @ LUMA).astype(np.uint8)


def compressed(image, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **options)
    return Image.open(file)


@pytest.mark.parametrize("quality", [50, 65, 80, 90, 95])
def test_the_error_is_the_measured_one(quality):
    """For each of four photos within 15 %, on average within 7 %."""
    ratios = []
    for name in ("astronaut", "camera", "chelsea", "coffee"):
        image = photo(name)
        found = compressed(image, quality=quality)
        pixels = np.array(found)
        ratios.append(255 * compression_of(found, pixels) / (pixels - image.astype(float)).std())
    assert 0.85 < min(ratios) < max(ratios) < 1.15
    assert np.mean(ratios) == pytest.approx(1, abs=0.07)


def test_of_colors_it_is_that_of_the_luminance():
    image = photo("coffee", colors=True)
    found = compressed(image, quality=80)
    pixels = np.array(found)
    error = ((pixels - image.astype(float)) @ LUMA).std()
    assert 255 * compression_of(found, pixels) == pytest.approx(error, rel=0.15)


@pytest.mark.parametrize("width", [3, 6, 30, 200])
def test_laplacian_coefficients(width):
    """Coefficients of one frequency, rounded: their error is known."""
    rng, steps = np.random.default_rng(0), np.ones((8, 8))
    steps[2, 3] = 16
    coefficients = np.zeros((2000, 8, 8))
    coefficients[:, 2, 3] = rng.laplace(0, width, 2000)
    rounded = steps * np.rint(coefficients / steps)
    pixels = idctn(rounded, axes=(1, 2), norm="ortho") + 128
    image = pixels.reshape(50, 40, 8, 8).swapaxes(1, 2).reshape(400, 320)
    found = compression_noise(image, steps)
    lost = np.mean((rounded - coefficients) ** 2)  # these pixels are not rounded
    assert found**2 - 1 / 12 == pytest.approx(lost, rel=0.15)
    # the steps are read row by row
    assert compression_noise(np.ascontiguousarray(image.T), steps.T) == pytest.approx(found)
    assert dctn(pixels[0] - 128, norm="ortho")[2, 3] == pytest.approx(rounded[0, 2, 3])


def test_without_blocks_or_tables_there_is_none():
    assert compression_noise(np.zeros((7, 40), np.uint8), np.ones(64)) == 0
    assert compression_noise(np.full((16, 16), 128, np.uint8), np.full(64, 9)) < 0.3
    assert compression_of(Image.new("L", (16, 16)), np.zeros((16, 16), np.uint8)) == 0


def test_steps_of_zero_in_a_damaged_file_count_as_one():
    pixels = photo("camera")
    found = compression_noise(pixels, np.zeros(64))
    assert found == compression_noise(pixels, np.ones(64)) > 0
