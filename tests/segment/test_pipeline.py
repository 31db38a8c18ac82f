"""The three steps of every segmenter."""

import inspect

import numpy as np
import pytest

from unpool.errors import OptionError
from unpool.models import FCN, DeconvNet
from unpool.recipes.presets import CRF_PRESETS
from unpool.segment.ensemble import EDeconvNet
from unpool.segment.pipeline import OPTIONS, BaseSegmenter
from unpool.segment.segmenter import Segmenter

CLASSES = ["background", "cat", "dog", "tree"]
IMAGE = np.random.RandomState(0).randint(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture
def segmenters(filled):
    options = {"device": "cpu", "precision": "fp32"}
    one = Segmenter(filled(DeconvNet(4, ((1, 6), (1, 8)), None, 32)), CLASSES, **options)
    other = filled(FCN(4, ((1, 6), (1, 8)), None, stride=4, pad=1))
    return [one, EDeconvNet(one, Segmenter(other, CLASSES, **options))]


def test_the_options_are_those_of_predict():
    parameters = [*inspect.signature(Segmenter.predict).parameters]
    assert parameters == ["self", "image", *OPTIONS]


def test_a_call_is_preprocess_predict_postprocess(segmenters):
    for segmenter in segmenters:
        assert isinstance(segmenter, BaseSegmenter)
        options = {"method": "grid", "proposals": 3, "mode": "instance"}
        whole = segmenter(IMAGE, presence_threshold=0.3, **options)
        image = segmenter.preprocess(IMAGE)
        prediction = segmenter.predict(image, **options)
        parts = segmenter.postprocess(image, prediction, presence_threshold=0.3)
        np.testing.assert_array_equal(whole.labels, parts.labels)
        np.testing.assert_array_equal(whole.probabilities, parts.probabilities)
        np.testing.assert_array_equal(whole.logits, prediction.logits)
        np.testing.assert_array_equal(whole.boxes, prediction.boxes)
        assert len(prediction.boxes) == 3


def test_auto_is_the_crf_of_the_weights(segmenters):
    for segmenter in segmenters:
        plain = segmenter(IMAGE)
        np.testing.assert_array_equal(segmenter(IMAGE, crf="auto").labels, plain.labels)
        assert segmenter.describe(crf="auto") == segmenter.describe()
        segmenter.crf = CRF_PRESETS["densecrf"]
        wanted = segmenter(IMAGE, crf="densecrf")
        np.testing.assert_array_equal(segmenter(IMAGE, crf="auto").labels, wanted.labels)
        assert (wanted.labels != plain.labels).any()
        assert "dense CRF 3 x 3 + 10 x 80/13, 5 iterations, symmetric" in segmenter.describe(
            crf="auto"
        )


def test_each_mode_has_its_temperature(filled):
    net = filled(DeconvNet(4, ((1, 6), (1, 8)), None, 32))
    own = {"whole": 2.0, "instance": 3.0, "edeconvnet": 4.0}
    one = Segmenter(net, CLASSES, precision="fp32", temperature=own)
    fcn = filled(FCN(4, ((1, 6), (1, 8)), None, stride=4, pad=1))
    both = EDeconvNet(one, Segmenter(fcn, CLASSES, precision="fp32"))
    assert one(IMAGE).temperature == 2
    assert one(IMAGE, mode="instance", proposals=2).temperature == 3
    assert both(IMAGE, proposals=2).temperature == 4
    found = one(IMAGE, void_below=0.5)
    np.testing.assert_array_equal(found.labels == 255, one(IMAGE).confidence < 0.5)
    with pytest.raises(OptionError, match="temperature"):
        Segmenter(net, CLASSES, temperature={"whole": 0.0})
