"""Blur against SciPy, against its definition, and against its adjoint."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve, convolve2d

from unpool.errors import OptionError, ShapeError
from unpool.ops.blur import BORDERS, blur, blur_adjoint, fast_length

MODES = {"reflect": ("same", "symm"), "zero": ("same", "fill"), "periodic": ("same", "wrap"),
         "valid": ("valid", "fill")}  # fmt: skip


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("sides", [(3, 5), (1, 7), (9, 9), (1, 1)])
def test_images_as_scipy_convolves_them(border, sides):
    x, psf = noise(1, 2, 11, 14), noise(*sides, seed=1)
    mode, boundary = MODES[border]
    for channel, found in zip(x[0], blur(x, psf, border)[0], strict=True):
        expected = convolve2d(channel, psf, mode, boundary)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_volumes_as_scipy_convolves_them():
    x, psf = noise(2, 1, 6, 7, 8), noise(3, 1, 5, seed=1)
    for i, found in enumerate(blur(x, psf, "zero")):
        np.testing.assert_allclose(found[0], convolve(x[i, 0], psf, "same"), atol=1e-12)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(
    ("shape", "sides"),
    [((2, 3, 9, 12), (5, 3)), ((1, 1, 4, 4), (7, 5)), ((1, 2, 5, 6, 7), (3, 5, 1))],
)
def test_the_adjoint(border, shape, sides):
    if border == "valid" and shape[2] < sides[0]:
        shape = (*shape[:2], 8, 8)
    x, psf = noise(*shape), noise(*sides, seed=1)
    blurred = blur(x, psf, border)
    y = noise(*blurred.shape, seed=2)
    back = blur_adjoint(y, psf, border)
    assert back.shape == x.shape
    torch.testing.assert_close((blurred * y).sum(), (x * back).sum(), rtol=1e-12, atol=0)


def test_a_psf_for_each_image_and_channel():
    x, psfs = noise(2, 3, 8, 9), noise(2, 3, 3, 5, seed=1)
    found, shared = blur(x, psfs), blur(x, psfs[:, :1])
    for i in range(2):
        for j in range(3):
            one = x[i : i + 1, j : j + 1]
            torch.testing.assert_close(found[i, j], blur(one, psfs[i, j])[0, 0])
            torch.testing.assert_close(shared[i, j], blur(one, psfs[i, 0])[0, 0])


def test_it_is_a_convolution_and_no_correlation():
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2] = 1
    psf = noise(3, 3).float()
    torch.testing.assert_close(blur(x, psf)[0, 0, 1:4, 1:4], psf)


def test_lengths_have_small_factors():
    for n in range(1, 200):
        length = fast_length(n)
        assert length >= n
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        assert rest == 1
        assert not any(_smooth(m) for m in range(n, length))


def _smooth(n):
    return 30**10 % n == 0


@pytest.mark.parametrize(
    ("x", "psf", "message"),
    [
        (torch.zeros(4, 4), torch.ones(3, 3), r"images of \(4, 4\).*as x\[None, None\]"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.ones(3, 3), "uint8; wanted .*x.float"),
        (torch.zeros(1, 1, 0, 4), torch.ones(3, 3), r"images of \(1, 1, 0, 4\)"),
        (torch.zeros(1, 1, 4, 4), torch.ones(3, 4), "PSF of 3 x 4; wanted odd sides"),
        (torch.zeros(1, 1, 4, 4), torch.ones(3), r"PSF of \(3,\)"),
        (torch.zeros(1, 1, 4, 4), torch.ones(2, 1, 3, 3), r"PSF of \(2, 1, 3, 3\)"),
        (torch.zeros(1, 1, 4, 4), torch.ones(3, 3).double(), "of the same type"),
    ],
)
def test_what_does_not_fit(x, psf, message):
    with pytest.raises(ShapeError, match=message):
        blur(x, psf)


def test_a_psf_that_is_larger_than_the_image():
    x = noise(1, 1, 4, 4)
    assert blur(x, noise(7, 7)).shape == x.shape
    with pytest.raises(ShapeError, match=r"PSF of \(7, 7\) for images of \(4, 4\).*crop it"):
        blur(x, noise(7, 7), "valid")


def test_an_unknown_border():
    with pytest.raises(OptionError, match=r"border 'mirror'.*reflect, zero, periodic, valid"):
        blur(noise(1, 1, 4, 4), noise(3, 3), "mirror")
