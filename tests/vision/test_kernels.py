"""PSFs by formula, against closed forms, SciPy and photographs of their definitions."""

import math

import numpy as np
import pytest
from scipy.special import j1

from unpool.errors import OptionError
from unpool.vision import kernels
from unpool.vision.kernels import FAMILIES, airy, centered, cropped, disk, gaussian, moffat, motion

ALL = [
    *(gaussian(0.5), gaussian(1.6), gaussian(3, 1, 30), disk(0.4), disk(2), disk(3.5), disk(7.3)),
    *(motion(1), motion(13, 30), motion(8, 90), motion(20, 161), moffat(4), moffat(3, 2.5)),
    *(airy(1.5), airy(4), *(kernels.shake(seed) for seed in range(20))),
]


def places(kernel):
    """Columns to the right and rows upward, from the center."""
    height, width = kernel.shape
    return np.meshgrid(np.arange(width) - width // 2, height // 2 - np.arange(height))


def moments(kernel):
    x, y = places(kernel)
    k = kernel.astype(float)
    return (k * x).sum(), (k * y).sum(), (k * x * x).sum(), (k * y * y).sum(), (k * x * y).sum()


@pytest.mark.parametrize("kernel", ALL)
def test_what_every_kernel_is(kernel):
    assert kernel.dtype == np.float32
    assert all(side % 2 for side in kernel.shape)
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    mean_x, mean_y, *_ = moments(kernel)
    assert abs(mean_x) <= 0.51
    assert abs(mean_y) <= 0.51


def test_a_gaussian_has_its_deviations_and_angle():
    *_, xx, yy, xy = moments(gaussian(1.6))
    assert (xx, yy) == (pytest.approx(1.6**2, rel=0.01), pytest.approx(1.6**2, rel=0.01))
    assert abs(xy) < 1e-6
    *_, xx, yy, xy = moments(gaussian(3, 1, 30))
    wide, narrow, turn = 9, 1, math.radians(30)
    assert xx == pytest.approx(wide * math.cos(turn) ** 2 + narrow * math.sin(turn) ** 2, rel=0.02)
    assert xy == pytest.approx((wide - narrow) * math.sin(turn) * math.cos(turn), rel=0.02)


@pytest.mark.parametrize("radius", [2, 3.5, 7.3])
def test_a_disk_is_even_and_round(radius):
    kernel = disk(radius)
    x, y = places(kernel)
    inside = np.hypot(abs(x) + 0.5, abs(y) + 0.5) < radius
    np.testing.assert_allclose(kernel[inside], 1 / (math.pi * radius**2), rtol=0.02)
    *_, xx, yy, _ = moments(kernel)
    assert xx == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.05)
    assert yy == pytest.approx(xx)


def test_a_motion_passes_evenly_over_its_pixels():
    np.testing.assert_allclose(motion(13), np.full((1, 13), 1 / 13), rtol=1e-6)
    np.testing.assert_allclose(motion(13, 90), np.full((13, 1), 1 / 13), rtol=1e-6)
    np.testing.assert_allclose(motion(6), [[0.5 / 6, *[1 / 6] * 5, 0.5 / 6]], rtol=1e-5)


@pytest.mark.parametrize("angle", [0, 30, 45, 100, 161])
def test_a_motion_goes_counterclockwise(angle):
    *_, xx, yy, xy = moments(motion(15, angle))
    found = 0.5 * math.atan2(2 * xy, xx - yy)
    assert math.degrees(found) % 180 == pytest.approx(angle % 180, abs=1.5)
    assert xx + yy == pytest.approx(15**2 / 12, rel=0.05)


@pytest.mark.parametrize("radius", [1.5, 4, 11])
def test_airy_as_by_the_bessel_function(radius):
    kernel = airy(radius)
    x, y = places(kernel)
    v = np.maximum(3.8317059702 / radius * np.hypot(x, y), 1e-6)
    expected = (2 * j1(v) / v) ** 2
    np.testing.assert_allclose(kernel, expected / expected.sum(), atol=2e-7)


def test_moffat_has_its_width():
    kernel = moffat(6, 2.5)
    middle = kernel.shape[0] // 2
    assert kernel[middle, middle + 3] / kernel[middle, middle] == pytest.approx(0.5, abs=1e-3)
    assert kernel[middle + 3, middle] / kernel[middle, middle] == pytest.approx(0.5, abs=1e-3)


def test_shakes_differ_and_stay_within_their_side():
    shakes = [kernels.shake(seed) for seed in range(20)]
    assert len({kernel.tobytes() for kernel in shakes}) == 20
    np.testing.assert_array_equal(kernels.shake(7), shakes[7])
    for kernel in shakes:
        assert 7 <= max(kernel.shape) <= 31
    lopsided = [abs(k - k[::-1, ::-1]).sum() for k in shakes]
    assert np.median(lopsided) > 0.5


def test_centering_pads_and_cropping_cuts():
    kernel = np.zeros((4, 6))
    kernel[1, 4] = 3
    found, moved = centered(kernel)
    assert (found.shape, moved) == ((5, 9), [-0.5, 1.5])
    assert found[2, 4] == 3
    assert cropped(found, 0.9).tolist() == [[3]]
    dusty = np.full((41, 41), 1e-7)
    dusty[15:26, 18:23] = 1
    assert cropped(dusty, 0.995).shape == (11, 5)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_its_example(name):
    make, least, most, example = FAMILIES[name]
    numbers = [float(value) for value in example.split(" ")[0].partition(":")[2].split(",")]
    assert least <= len(numbers) <= most
    assert make(*numbers).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("make", "values", "message"),
    [
        (gaussian, (0,), "sigma 0; wanted a finite number above 0"),
        (gaussian, (1, -2), "other -2"),
        (disk, (math.nan,), "radius nan"),
        (motion, (math.inf,), "length inf"),
        (moffat, (3, 1), "beta 0"),
        (airy, (-1,), "radius -1"),
        (gaussian, (200,), "scale the image down"),
    ],
)
def test_mistakes(make, values, message):
    with pytest.raises(OptionError, match=message):
        make(*values)


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("gaussian", (1e9,), "reaches 4e"),
        ("disk", (1e5,), "reaches 1e"),
        ("motion", (1e300,), "reaches 5e"),
        ("airy", (500,), "reaches 2500 pixels"),
        ("moffat", (4, 1.0000001), "reaches"),
        ("shake", (-1,), "a seed of 0 or more"),
        ("shake", (1, 10**9), "a side of 1 to 1023"),
        ("shake", (1, 0), "a side of 1 to 1023"),
    ],
)
def test_what_is_too_large_is_refused_before_it_is_computed(name, numbers, message):
    with pytest.raises(OptionError, match=message):
        FAMILIES[name][0](*numbers)
