"""Images of signals: where zero is, what contrast is, and what lies where."""

import numpy as np
import pytest
import torch

from unpool.errors import OptionError, ShapeError
from unpool.visualize import draw, mosaic, patch

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("contrast", ["sigmoid", "linear"])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_zero_is_gray_and_the_contrast_is_each_images_own(contrast, scale):
    signal = RANDOM.standard_normal((2, 3, 20, 30))
    signal[:, :, :3] = 0
    signal[1] *= 1000
    drawn = draw(signal * scale, contrast=contrast)
    assert drawn.shape == (2, 20, 30, 3)
    assert drawn.dtype == np.uint8
    assert (drawn[:, :3] == 128).all()
    assert np.array_equal(drawn, draw(signal, contrast=contrast))
    assert np.array_equal(drawn[1:], draw(signal[1] * 1e-3, contrast=contrast))
    assert ((drawn > 128) <= (signal.transpose(0, 2, 3, 1) > 0)).all()
    mirrored = draw(-signal, contrast=contrast).astype(int)
    if contrast == "linear":
        assert np.abs(mirrored + drawn - 255).max() <= 1
        assert drawn.min() == 0 or drawn.max() == 255


def test_the_sigmoid_is_that_of_the_release():
    """1 / (1 + exp(-(x / a) * -log(99))), where a is the 0.5 % quantile."""
    x = RANDOM.standard_normal((1, 3, 40, 40))
    a = np.quantile(x, 0.005)
    expected = 1 / (1 + np.exp(-(x / a * -np.log(99))))
    drawn = draw(x).transpose(0, 3, 1, 2) / 255
    assert np.abs(drawn - expected).max() <= 0.5 / 255 + 1e-9


def test_a_stretch_goes_from_black_to_white():
    signal = RANDOM.random((3, 3, 9, 9)) * 7 + 2
    drawn = draw(signal, contrast="stretch")
    assert drawn.reshape(3, -1).min(1).tolist() == [0] * 3
    assert drawn.reshape(3, -1).max(1).tolist() == [255] * 3
    expected = (signal[0] - signal[0].min()) / np.ptp(signal[0]) * 255
    assert np.abs(drawn[0].transpose(2, 0, 1) - expected).max() <= 0.5


@pytest.mark.parametrize("contrast", ["sigmoid", "linear", "stretch"])
def test_nothing_positive_only_and_little(contrast):
    gray = 0 if contrast == "stretch" else 128
    assert (draw(np.zeros((1, 3, 4, 4)), contrast=contrast) == gray).all()
    one = np.zeros((1, 3, 8, 8))
    one[0, 0, 2, 3] = 5.0
    drawn = draw(one, contrast=contrast)
    assert drawn[0, 2, 3, 0] >= 252
    assert drawn[0, 0, 0, 0] == gray
    assert (draw(-one, contrast=contrast)[0, 2, 3, 0]) <= 3


def test_colors_and_their_order():
    signal = np.zeros((1, 3, 2, 2))
    signal[0, 0] = 1
    assert draw(signal, contrast="linear")[0, 0, 0].tolist() == [255, 128, 128]
    assert draw(signal, contrast="linear", order="BGR")[0, 0, 0].tolist() == [128, 128, 255]
    assert draw(signal, contrast="linear", color=False)[0, 0, 0].tolist() == [255] * 3
    for channels in (1, 2, 4):
        many = RANDOM.standard_normal((2, channels, 5, 5))
        drawn = draw(many)
        assert (drawn == drawn[..., :1]).all()
        assert np.array_equal(drawn, draw(many.sum(1, keepdims=True)))


def test_tensors_are_drawn_as_arrays():
    signal = torch.randn(2, 3, 6, 7, requires_grad=True)
    assert np.array_equal(draw(signal), draw(signal.detach().numpy()))
    assert np.array_equal(draw(signal[0]), draw(signal[:1]))
    assert draw(signal.bfloat16()).shape == (2, 6, 7, 3)
    assert draw(torch.zeros(0, 3, 4, 5)).shape == (0, 4, 5, 3)


def test_a_mosaic():
    tiles = RANDOM.integers(0, 250, (5, 4, 6, 3), dtype=np.uint8)
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
    image = RANDOM.integers(0, 255, (7, 9, 3), dtype=np.uint8)
    x0, y0, x1, y1 = box
    cut = patch(image, box, fill=9)
    assert cut.shape == (y1 - y0, x1 - x0, 3)
    for y in range(y0, y1):
        for x in range(x0, x1):
            inside = 0 <= y < 7 and 0 <= x < 9
            expected = image[y, x].tolist() if inside else [9] * 3
            assert cut[y - y0, x - x0].tolist() == expected


def test_messages():
    with pytest.raises(ShapeError, match=r"got a signal of \(4, 4\); wanted \(N, C, H, W\)"):
        draw(np.zeros((4, 4)))
    with pytest.raises(
        OptionError, match=r"got contrast='max', .* one of sigmoid, linear, stretch"
    ):
        draw(np.zeros((3, 4, 4)), contrast="max")
    with pytest.raises(OptionError, match="an order 'RGB' or 'BGR'"):
        draw(np.zeros((3, 4, 4)), order="rgb")
    with pytest.raises(ShapeError, match="got 0 images for 2 columns; wanted one or more"):
        mosaic([], columns=2)
    with pytest.raises(ShapeError, match="of one size"):
        mosaic([np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)], columns=2)
    with pytest.raises(ShapeError, match=r"got the box \(3, 3, 3, 5\); wanted x0 < x1"):
        patch(np.zeros((4, 4, 3), np.uint8), (3, 3, 3, 5))
