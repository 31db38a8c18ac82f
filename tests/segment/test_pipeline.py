"""The three steps of every segmenter."""

import inspect

import numpy as np
import pytest

from unpool.models import FCN, DeconvNet
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
