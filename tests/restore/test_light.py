"""Curves of stored values, against the standard and against their inverses."""

import numpy as np
import pytest

from unpool.errors import OptionError
from unpool.restore.light import parse_gamma

VALUES = np.linspace(-0.2, 1.2, 141, dtype=np.float32)


@pytest.mark.parametrize("gamma", [None, "none", "srgb", 2.2, "1.8", 1])
def test_there_and_back(gamma):
    found = parse_gamma(gamma)
    np.testing.assert_allclose(found.encode(found.decode(VALUES)), VALUES, atol=1e-5)
    assert found.decode(VALUES).dtype == np.float32


def test_srgb_is_that_of_the_standard():
    """IEC 61966-2-1: 118 of 255 is 18 % gray; 10 lies on the straight part."""
    light = parse_gamma("srgb").decode(np.float32([118 / 255, 10 / 255, 1]))
    np.testing.assert_allclose(light, [0.18116, 10 / 255 / 12.92, 1], rtol=1e-4)
    np.testing.assert_allclose(parse_gamma(2.2).decode(np.float32([0.5])), [0.5**2.2], rtol=1e-6)


@pytest.mark.parametrize("gamma", [None, "srgb", 2.2])
def test_noise_in_linear_light_is_the_measured_one(gamma):
    rng, found = np.random.default_rng(0), parse_gamma(gamma)
    stored = rng.uniform(0.1, 0.9, 100_000).astype(np.float32)
    noisy = stored + rng.normal(0, 0.01, stored.shape).astype(np.float32)
    light = found.decode(stored)
    assert found.noise(light, 0.01) == pytest.approx((found.decode(noisy) - light).std(), rel=0.02)


@pytest.mark.parametrize("gamma", ["rec709", 0, -2.2, 100, float("nan")])
def test_mistakes(gamma):
    with pytest.raises(OptionError, match=r"wanted 'srgb', or an exponent such as 2\.2"):
        parse_gamma(gamma)
