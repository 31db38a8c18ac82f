"""Whole images in one pass, or in the square around them."""

import numpy as np
import pytest
import torch

from tests.segment.tiny import CLASSES, MEAN, SIDE, photo
from unpool.models import DeconvNet
from unpool.segment.postprocessing import postprocess
from unpool.segment.segmenter import Segmenter
from unpool.vision.boxes import reduced


@pytest.fixture
def seen(segmenter):
    """The sizes of what goes into the network."""
    sizes = []
    segmenter.model.register_forward_pre_hook(lambda m, x: sizes.append(tuple(x[0].shape)))
    return sizes


@pytest.mark.parametrize(
    ("size", "inner"),
    [((60, 80), (72, 96)), ((80, 60), (96, 72)), ((96, 96), (96, 96)), ((300, 400), (72, 96)),
     ((3, 400), (4, 96)), ((1, 1), (96, 96)), ((400, 2), (96, 4))],
)  # fmt: skip
def test_whole_images_keep_their_size(segmenter, seen, size, inner):
    segmenter.long_side = 96
    result = segmenter(photo(*size), mode="whole")
    assert seen == [(1, 3, *inner)]
    assert result.labels.shape == size
    assert result.labels.dtype == np.uint8
    assert result.probabilities.shape == (4, *size)
    assert np.allclose(result.probabilities.sum(0), 1, atol=1e-5)
    assert result.boxes.shape == (0, 4)


def test_a_whole_image_at_its_own_scale_is_the_network(net, segmenter):
    segmenter.long_side = 80
    image = photo(60, 80)
    x = torch.from_numpy(image.astype(np.float32)[..., ::-1] - MEAN).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        expected = net(x)[0].softmax(0).numpy()
    result = segmenter(image, mode="whole")
    # a few switches move
    assert np.isclose(result.probabilities, expected, atol=1e-4).mean() > 0.99
    assert (result.labels == expected.argmax(0)).mean() > 0.99


def test_a_network_with_a_code_sees_the_square_around_the_image(filled):
    net = filled(DeconvNet(4, ((1, 6), (1, 8)), 8, SIDE), seed=2)
    segmenter = Segmenter(net, CLASSES, device="cpu", precision="fp32")
    image = photo(20, 32)
    result = segmenter(image)
    square = np.zeros((32, 32, 3), np.float32)
    square[6:26] = image
    x = torch.from_numpy(square[..., ::-1] - MEAN).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        expected = net(x)[0].softmax(0).numpy()[:, 6:26]
    assert result.labels.shape == (20, 32)
    assert np.isclose(result.probabilities, expected, atol=1e-4).mean() > 0.999


def test_images_may_be_views_and_are_not_changed(segmenter):
    base = photo(60, 80)
    before = base.copy()
    for view in (base[:, ::-1], base[::2, ::3], base[..., ::-1]):
        view.flags.writeable = False
        for options in ({"mode": "whole"}, {"method": "grid", "proposals": 3}):
            a, b = segmenter(view, **options), segmenter(view.copy(), **options)
            assert (a.labels == b.labels).all()
    assert (base == before).all()


def test_large_images_are_segmented_reduced(monkeypatch, segmenter):
    """The labels are those of the reduced image's scores, interpolated; squares are in place."""
    monkeypatch.setattr("unpool.vision.boxes.reduced.__defaults__", (900,))
    monkeypatch.setattr("unpool.vision.boxes.reduced_size.__defaults__", (900,))
    image = photo(90, 120)
    for options in ({"mode": "whole"}, {"mode": "instance", "proposals": 4}, {"crf": "deeplab"}):
        found = segmenter(image, **options)
        assert found.labels.shape == (90, 120)
        assert found.probabilities.shape == (4, 25, 34)
        if len(found.boxes):
            assert found.boxes[:, 2:].max() > 60
        crf = options.pop("crf", None)
        small = postprocess(
            reduced(image), segmenter.predict(image, **options)[0], CLASSES, crf=crf
        )
        assert np.array_equal(found.probabilities, small.probabilities)
