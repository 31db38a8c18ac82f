"""Several passes with dropout: their mean, and how far they differ."""

import numpy as np
import pytest
import torch
from torch import nn

from unpool.errors import OptionError
from unpool.models import FCN, DeconvNet, SegNet, SegNetBasic
from unpool.segment.ensemble import EDeconvNet
from unpool.segment.segmenter import Segmenter

CLASSES = ["ground", "cat", "dog"]
TRUNK = ((1, 6), (2, 8))


@pytest.fixture
def net(filled):
    return filled(SegNet(3, TRUNK, dropout=0.5))


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3)).astype(np.uint8)


def segmenter(net, **options):
    return Segmenter(net, CLASSES, long_side=56, precision="fp32", device="cpu", **options)


def test_mean_and_variance_are_those_of_the_passes(net, image):
    """Against numpy, from the same seed, pass by pass."""
    own = segmenter(net, exact=True)
    found = own.predict(image, samples=5)
    layers = [m for m in own.model.modules() if isinstance(m, nn.Dropout)]
    assert len(layers) == 3  # after both poolings, and after a stage of the decoder
    for layer in layers:
        layer.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        passes = [torch.from_numpy(own.infer(image[None])).softmax(1)[0] for _ in range(5)]
    probabilities = np.array(passes, np.float64)
    np.testing.assert_allclose(np.exp(found.logits), probabilities.mean(0), rtol=1e-4, atol=1e-6)
    variance = probabilities.var(0).mean(0)  # biased
    np.testing.assert_allclose(found.uncertainty, variance, rtol=1e-3, atol=1e-7)
    assert found.uncertainty.max() > 1e-4


def test_the_same_image_gives_the_same_map_and_no_other_state_changes(net, image):
    own = segmenter(net)
    plain = own(image)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second = own(image, samples=4), own(image, samples=4)
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(first.uncertainty, second.uncertainty)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(own(image).logits, plain.logits)
    assert plain.uncertainty is None
    assert "uncertainty" not in plain.to_dict()
    assert first.to_dict()["largest_uncertainty"] == first.uncertainty.max()


def test_many_samples_of_a_linear_head_give_the_value_without_dropout(image):
    """With 400 samples, the mean of the scores is within four standard errors."""
    torch.manual_seed(0)
    net = SegNetBasic(3, 6, 3, 1, dropout=0.5).eval()
    x = torch.rand(1, 3, 8, 8) * 255
    expected = net(x)
    for layer in net.modules():
        if isinstance(layer, nn.Dropout):
            layer.train()
    net.decoder[0][-1].eval()  # a single place: the pooled maps, on which the scores are linear
    with torch.no_grad():
        scores = torch.cat([net(x) for _ in range(400)])
    error = (scores.mean(0) - expected[0]).abs()
    assert (error <= 4 * scores.std(0) / 20 + 1e-6).float().mean() > 0.99


def test_without_dropout_there_is_no_uncertainty(filled, image):
    net = filled(SegNet(3, TRUNK, dropout=1e-9))
    found = segmenter(net)(image, samples=3)
    assert found.uncertainty.max() == 0
    np.testing.assert_array_equal(found.labels, segmenter(net)(image).labels)


def test_networks_and_modes_without_samples_are_refused(filled, net, image):
    deconvnet = segmenter(filled(DeconvNet(3, TRUNK, None, 32)))
    for own in (segmenter(filled(SegNet(3, TRUNK))), deconvnet):
        with pytest.raises(OptionError, match="samples=3 for a network without dropout"):
            own(image, samples=3, mode="whole")
    with pytest.raises(OptionError, match=r"samples=3 in mode='instance'; .*mode='whole'"):
        deconvnet(image, samples=3, mode="instance")
    with pytest.raises(OptionError, match="samples"):
        segmenter(net)(image, samples=-1)
    fcn = segmenter(filled(FCN(3, ((1, 4),) * 3, 8, stride=4, pad=1, window=3)))
    assert fcn(image, samples=2).uncertainty.max() > 0  # FCN has dropout, too
    with pytest.raises(OptionError, match="samples=2"):
        EDeconvNet(deconvnet, fcn)(image, samples=2)
    assert "mean of 3 passes with dropout" in segmenter(net).describe(samples=3)
