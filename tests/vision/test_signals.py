"""Signed signals as images: zero, contrast, colors."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps

from unpool.errors import OptionError, ShapeError
from unpool.vision.signals import heat_map, to_images

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("contrast", ["sigmoid", "linear"])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_zero_is_gray_and_the_contrast_is_each_images_own(contrast, scale):
    signal = RANDOM.standard_normal((2, 3, 20, 30))
    signal[:, :, :3] = 0
    signal[1] *= 1000
    drawn = to_images(signal * scale, contrast=contrast)
    assert drawn.shape == (2, 20, 30, 3)
    assert drawn.dtype == np.uint8
    assert (drawn[:, :3] == 128).all()
    assert np.array_equal(drawn, to_images(signal, contrast=contrast))
    assert np.array_equal(drawn[1:], to_images(signal[1] * 1e-3, contrast=contrast))
    assert ((drawn > 128) <= (signal.transpose(0, 2, 3, 1) > 0)).all()
    mirrored = to_images(-signal, contrast=contrast).astype(int)
    if contrast == "linear":
        assert np.abs(mirrored + drawn - 255).max() <= 1
        assert drawn.min() == 0 or drawn.max() == 255


def test_the_sigmoid_is_that_of_the_release():
    """1 / (1 + exp(-(x / a) * -log(99))), where a is the 0.5 % quantile."""
    x = RANDOM.standard_normal((1, 3, 40, 40))
    a = np.quantile(x, 0.005)
    expected = 1 / (1 + np.exp(-(x / a * -np.log(99))))
    drawn = to_images(x).transpose(0, 3, 1, 2) / 255
    assert np.abs(drawn - expected).max() <= 0.5 / 255 + 1e-9


def test_a_stretch_goes_from_black_to_white():
    signal = RANDOM.random((3, 3, 9, 9)) * 7 + 2
    drawn = to_images(signal, contrast="stretch")
    assert drawn.reshape(3, -1).min(1).tolist() == [0] * 3
    assert drawn.reshape(3, -1).max(1).tolist() == [255] * 3
    expected = (signal[0] - signal[0].min()) / np.ptp(signal[0]) * 255
    assert np.abs(drawn[0].transpose(2, 0, 1) - expected).max() <= 0.5


@pytest.mark.parametrize("contrast", ["sigmoid", "linear", "stretch"])
def test_nothing_positive_only_and_little(contrast):
    gray = 0 if contrast == "stretch" else 128
    assert (to_images(np.zeros((1, 3, 4, 4)), contrast=contrast) == gray).all()
    one = np.zeros((1, 3, 8, 8))
    one[0, 0, 2, 3] = 5.0
    drawn = to_images(one, contrast=contrast)
    assert drawn[0, 2, 3, 0] >= 252
    assert drawn[0, 0, 0, 0] == gray
    assert (to_images(-one, contrast=contrast)[0, 2, 3, 0]) <= 3


def test_colors_and_their_order():
    signal = np.zeros((1, 3, 2, 2))
    signal[0, 0] = 1
    assert to_images(signal, contrast="linear")[0, 0, 0].tolist() == [255, 128, 128]
    assert to_images(signal, contrast="linear", order="BGR")[0, 0, 0].tolist() == [128, 128, 255]
    assert to_images(signal, contrast="linear", color=False)[0, 0, 0].tolist() == [255] * 3
    for channels in (1, 2, 4):
        many = RANDOM.standard_normal((2, channels, 5, 5))
        drawn = to_images(many)
        assert (drawn == drawn[..., :1]).all()
        assert np.array_equal(drawn, to_images(many.sum(1, keepdims=True)))


def test_tensors_and_arrays_give_the_same():
    signal = torch.randn(2, 3, 6, 7, requires_grad=True)
    assert np.array_equal(to_images(signal), to_images(signal.detach().numpy()))
    assert np.array_equal(to_images(signal[0]), to_images(signal[:1]))
    assert to_images(signal.bfloat16()).shape == (2, 6, 7, 3)
    assert to_images(torch.zeros(0, 3, 4, 5)).shape == (0, 4, 5, 3)


def test_a_heat_map_goes_from_dark_to_bright():
    values = RANDOM.permutation(256).reshape(16, 16).astype(float)
    for colors in ("viridis", "inferno"):
        expected = np.rint(255 * colormaps[colors](values.astype(int))[..., :3])
        shown = heat_map(values / 7 - 3, colors)
        assert np.abs(shown.astype(int) - expected).max() <= 1
    assert (heat_map([[1.0, np.nan, np.inf]])[0, 1:] == 128).all()
    assert (heat_map(np.full((2, 2), np.nan)) == 128).all()


def test_messages():
    with pytest.raises(ShapeError, match=r"got a signal of \(4, 4\); wanted \(N, C, H, W\)"):
        to_images(np.zeros((4, 4)))
    with pytest.raises(
        OptionError, match=r"got contrast='max', .* one of sigmoid, linear, stretch"
    ):
        to_images(np.zeros((3, 4, 4)), contrast="max")
    with pytest.raises(OptionError, match="an order 'RGB' or 'BGR'"):
        to_images(np.zeros((3, 4, 4)), order="rgb")
