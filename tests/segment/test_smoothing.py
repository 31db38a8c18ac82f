"""The Gaussian that smooths scores, against scipy's, and where segmenters apply it."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from unpool.errors import OptionError, WeightsError
from unpool.models import FCN, DeconvNet, save_pretrained
from unpool.segment.ensemble import EDeconvNet
from unpool.segment.segmenter import Segmenter
from unpool.segment.smoothing import smooth

CLASSES = ["background", "cat", "dog"]
TRUNK = ((1, 6), (1, 8))


@pytest.mark.parametrize("sigma", [0.7, 2.0, 5.0])
def test_it_is_scipys_gaussian(sigma):
    logits = np.random.default_rng(0).normal(size=(2, 3, 23, 31)).astype(np.float32)
    before = logits.copy()
    width = round(8 * sigma + 1) | 1  # OpenCV's for floats
    settings = {"mode": "nearest", "truncate": (width // 2) / sigma}
    for maps, found in zip(logits, smooth(logits, sigma), strict=True):
        for one, smoothed in zip(maps, found, strict=True):
            expected = scipy.ndimage.gaussian_filter(one.astype(float), sigma, **settings)
            np.testing.assert_allclose(smoothed, expected, atol=1e-5)
    np.testing.assert_array_equal(logits, before)


def test_even_scores_stay():
    even = np.full((1, 2, 4, 40), 3, np.float32)
    np.testing.assert_allclose(smooth(even, 6.0), even, rtol=1e-5)


@pytest.mark.parametrize("sigma", [-1, 33, True, "2", float("nan")])
def test_what_is_no_standard_deviation(sigma):
    with pytest.raises(OptionError, match=r"smoothing=.*wanted a standard deviation"):
        smooth(np.zeros((1, 1, 2, 2), np.float32), sigma)


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(0, 256, (30, 44, 3), dtype=np.uint8)


@pytest.fixture
def net(filled):
    return filled(DeconvNet(3, TRUNK, None, 32), seed=3)


def test_the_output_of_the_network_is_smoothed(net, image):
    plain = Segmenter(net, CLASSES, precision="fp32")
    smoothed = Segmenter(net, CLASSES, precision="fp32", smoothing=1.5)
    crops = np.stack([image[:28, :28], image[2:, 16:]])
    np.testing.assert_array_equal(smoothed.infer(crops), smooth(plain.infer(crops), 1.5))
    assert (smoothed.infer(crops) != plain.infer(crops)).any()
    assert "scores smoothed by 1.5" in smoothed.describe()
    assert "smoothed" not in plain.describe()


def test_each_network_of_an_ensemble_has_its_own(net, filled, image):
    fcn = filled(FCN(3, TRUNK, None, stride=4, pad=1))
    first = Segmenter(net, CLASSES, precision="fp32", smoothing=2.0)
    both = EDeconvNet(first, Segmenter(fcn, CLASSES, precision="fp32"))
    plain = EDeconvNet(Segmenter(net, CLASSES, precision="fp32"), both.fcn)
    assert (
        both.predict(image, mode="whole").logits != plain.predict(image, mode="whole").logits
    ).any()
    assert both.describe("whole").count("smoothed") == 1


def test_the_card_has_it(net, image, tmp_path):
    card = {"classes": CLASSES, "smoothing": 1.5, "long_side": 48}
    save_pretrained(net, tmp_path / "net", card)
    found = Segmenter.from_pretrained(tmp_path / "net", precision="fp32")
    given = Segmenter(net, CLASSES, long_side=48, precision="fp32", smoothing=1.5)
    torch.testing.assert_close(found(image).logits, given(image).logits, rtol=0, atol=0)
    with pytest.raises(WeightsError, match=r"smoothing -1 .*wanted a standard deviation"):
        save_pretrained(net, tmp_path / "other", {**card, "smoothing": -1})
