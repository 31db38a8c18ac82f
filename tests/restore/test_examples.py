"""Training examples of blur, against SciPy and by their statistics."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from unpool.restore.examples import (
    draw_crop,
    draw_examples,
    draw_psf,
    fitted,
    make_example,
    validation_cases,
)
from unpool.vision.psf import find_psf


@pytest.fixture
def images(photos):
    return sorted(photos.glob("*.png"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_batch_depends_on_its_number_alone(images, tiny):
    whole = [*itertools.islice(draw_examples(images, tiny, 3), 3)]
    later = next(draw_examples(images, tiny, 3, start=2))
    for a, b in zip(whole[2], later, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(whole[0].sharp, whole[1].sharp)
    batch = whole[0]
    assert batch.blurred.shape == batch.sharp.shape == (3, 1, 24, 24)
    assert batch.psf.shape == (3, 1, 9, 9)
    torch.testing.assert_close(batch.psf.sum((1, 2, 3)), torch.ones(3))
    assert all(0.001 <= s <= 0.03 for s in batch.sigma)


def test_blurred_is_the_sharp_one_blurred(tiny, rng):
    """As SciPy convolves; the crop of the sharp image shows the same part."""
    sharp = rng.random((1, 32, 32), np.float32)
    kernel = fitted(find_psf("shake:3,9").kernel, 9)
    plain = dataclasses.replace(tiny, rounded=0.0)
    example = make_example(sharp, kernel, 1e-9, plain, rng)
    expected = convolve2d(sharp[0], kernel, "valid")
    np.testing.assert_allclose(example.blurred[0, 0], expected, atol=1e-5)
    assert torch.equal(example.sharp[0, 0], torch.from_numpy(sharp[0, 4:-4, 4:-4]))


def test_noise_has_its_level(tiny, rng):
    flat = np.full((1, 128, 128), 0.5, np.float32)
    plain = dataclasses.replace(tiny, rounded=0.0)
    example = make_example(flat, fitted(find_psf("disk:2").kernel, 9), 0.02, plain, rng)
    assert float(example.blurred.std()) == pytest.approx(0.02, rel=0.05)
    assert float(example.sigma) == pytest.approx(0.02)


def test_half_of_the_noise_is_low(tiny, images):
    levels = torch.cat(
        [batch.sigma for batch in itertools.islice(draw_examples(images, tiny, 3), 60)]
    )
    assert float(levels.log().mean().exp()) == pytest.approx(math.sqrt(0.001 * 0.03), rel=0.2)


@pytest.mark.parametrize("channels", [1, 3])
def test_rounding_and_jpeg(tiny, rng, channels):
    sharp = rng.random((channels, 40, 40), np.float32)
    kernel = fitted(find_psf("gaussian:1").kernel, 9)
    found = {}
    for name in ("rounded", "jpeg"):
        recipe = dataclasses.replace(tiny, **{"rounded": 0.0, "jpeg": 0.0, name: 1.0})
        found[name] = make_example(sharp, kernel, 1e-9, recipe, np.random.default_rng(1))
    steps = found["rounded"].blurred * 255
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    gap = (found["jpeg"].blurred - found["rounded"].blurred).abs()
    assert 0.0005 < float(gap.mean()) < 0.05


def test_errors_of_the_psf_are_not_in_the_blur(tiny, rng):
    sharp = rng.random((1, 32, 32), np.float32)
    kernel = fitted(find_psf("disk:2").kernel, 9)
    wrong = dataclasses.replace(tiny, psf_noise=0.002, rounded=0.0)
    example = make_example(sharp, kernel, 1e-9, wrong, rng)
    np.testing.assert_allclose(
        example.blurred[0, 0], convolve2d(sharp[0], kernel, "valid"), atol=1e-5
    )
    assert float(example.psf.sum()) == pytest.approx(1)
    assert 1e-4 < float((example.psf[0, 0] - torch.from_numpy(kernel)).abs().mean()) < 0.002
    assert float(example.psf.min()) >= 0


def test_a_halved_crop_is_the_mean_of_four_pixels(rng):
    image = rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)
    crop = draw_crop(image, 30, 3, 1.0, np.random.default_rng(0))
    whole = image.reshape(30, 2, 30, 2, 3).mean((1, 3)) / 255
    options = [
        np.flip(whole, axes).swapaxes(*swap)
        for axes in ((), (0,), (1,), (0, 1))
        for swap in ((0, 0), (0, 1))
    ]
    assert any(np.allclose(crop.transpose(1, 2, 0), option, atol=1e-6) for option in options)
    small = draw_crop(image[:40, :40], 30, 1, 1.0, rng)  # too small to be halved
    assert small.shape == (1, 30, 30)


def test_psfs_of_all_families(tiny, rng):
    recipe = dataclasses.replace(tiny, psf_side=21)
    kernels = [draw_psf(recipe, rng) for _ in range(100)]
    assert all(k.shape == (21, 21) and k.min() >= 0 for k in kernels)
    assert all(abs(float(k.sum()) - 1) < 1e-5 for k in kernels)
    line = np.arange(21) - 10
    centers = [(abs(k.sum(0) @ line), abs(k.sum(1) @ line)) for k in kernels]
    assert np.max(centers) <= 0.51
    turned = sum(np.allclose(k, k[::-1, ::-1], atol=1e-6) for k in kernels)
    assert 25 < turned < 65  # Gaussians, disks and straight motions: 45 of 100
    only = dataclasses.replace(recipe, psf="motion:5")
    assert np.count_nonzero(draw_psf(only, rng)) == 5


def test_fitted_psfs_keep_their_middle():
    assert fitted(find_psf("disk:1").kernel, 9)[4, 4] == pytest.approx(
        find_psf("disk:1").kernel[1, 1]
    )
    cut = fitted(find_psf("gaussian:3").kernel, 9)
    assert cut.shape == (9, 9)
    assert cut.argmax() == 40
    assert cut.sum() == pytest.approx(1)


def test_validation_is_always_the_same(images, tiny):
    cases = validation_cases(images, tiny)
    again = validation_cases(images, tiny)
    middle = pytest.approx(math.sqrt(0.001 * 0.03))
    assert [case[:2] for case in cases] == [
        ("shake", 0.001), ("shake", middle), ("shake", 0.03), ("gaussian:1.4", middle),
        ("disk:3", middle), ("motion:11,70", middle),
    ]  # fmt: skip
    for a, b in zip(cases, again, strict=True):
        assert torch.equal(a[2].blurred, b[2].blurred)
        assert a[2].sharp.shape == (8, 1, 62, 62)  # the image without the border of the blur
