"""The ensemble against its two formulas, written in NumPy, and against its parts."""

import json

import numpy as np
import pytest
from PIL import Image

from unpool.errors import OptionError, ShapeError, WeightsError
from unpool.models import FCN, DeconvNet, save_pretrained
from unpool.segment.ensemble import EDECONVNET, ENSEMBLES, EDeconvNet, combine, load
from unpool.segment.postprocessing import postprocess
from unpool.segment.segmenter import Segmenter
from unpool.vision.images import voc_palette

CLASSES = ["background", "cat", "dog"]
TRUNK = ((1, 6), (1, 8))


def softmax(scores):
    e = np.exp(scores.astype(np.float64) - scores.max(0))
    return e / e.sum(0)


@pytest.fixture
def scores():
    random = np.random.default_rng(0)
    return [random.normal(0, 4, (4, 9, 11)).astype(np.float32) for _ in range(2)]


@pytest.fixture
def image():
    cells = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((56, 40), Image.Resampling.BILINEAR))


@pytest.fixture
def nets(filled):
    deconvnet = filled(DeconvNet(3, TRUNK, None, 32), seed=3)
    return deconvnet, filled(FCN(3, TRUNK, None, stride=4, pad=1), seed=4)


@pytest.fixture
def parts(nets):
    options = {"device": "cpu", "precision": "fp32", "long_side": 48}
    return [Segmenter(net, CLASSES, **options) for net in nets]


@pytest.fixture
def weights(nets, tmp_path):
    """A folder of weights with a partner in it."""
    card = {"classes": CLASSES, "long_side": 48}
    folder = save_pretrained(nets[0], tmp_path / "net", {**card, "partner": "../fcn8s"})
    save_pretrained(nets[1], tmp_path / "fcn8s", card)
    return folder


# ---- scores --------------------------------------------------------------------------------------


def test_the_mean_is_that_of_the_probabilities(scores):
    expected = (softmax(scores[0]) + softmax(scores[1])) / 2
    found = combine(*scores)
    assert found.dtype == np.float32
    np.testing.assert_allclose(softmax(found), expected, atol=1e-6)
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-6)  # logarithms already


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.9, 1.0])
def test_a_weighted_mean(scores, weight):
    expected = weight * softmax(scores[0]) + (1 - weight) * softmax(scores[1])
    np.testing.assert_allclose(softmax(combine(*scores, weight=weight)), expected, atol=1e-6)
    with pytest.raises(OptionError, match=r"got weight=1\.2 of the first network; wanted 0 to 1"):
        combine(*scores, weight=1.2)


def test_the_weight_is_that_of_the_card(weights, parts, image):
    card = weights / "card.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "ensemble_weight": 0.25}))
    both = EDeconvNet.from_pretrained(weights, device="cpu", precision="fp32")
    assert both.weight == 0.25
    assert both.describe().startswith("EDeconvNet: 0.25 : 0.75 mean of DeconvNet (")
    deconvnet, fcn = parts
    first = deconvnet.predict(image, mode="instance", proposals=3).logits
    second = fcn.predict(image).logits
    found = both.predict(image, proposals=3).logits
    np.testing.assert_allclose(found, combine(first, second, weight=0.25), atol=1e-5)
    other = EDeconvNet.from_pretrained(weights, weights.parent / "fcn8s")
    assert other.weight == 0.5  # chosen for the partner of the card
    with pytest.raises(OptionError, match="got weight=2 of the DeconvNet; wanted 0 to 1"):
        EDeconvNet(*parts, weight=2)


def test_the_product_is_that_of_the_positive_scores(scores):
    expected = softmax(np.maximum(0, scores[0]) * np.maximum(0, scores[1]))
    np.testing.assert_allclose(softmax(combine(*scores, "product")), expected, atol=1e-6)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_the_order_is_of_no_matter_and_nothing_is_changed(scores, ensemble):
    before = [part.copy() for part in scores]
    np.testing.assert_allclose(
        combine(*scores, ensemble), combine(*scores[::-1], ensemble), atol=1e-6
    )
    assert all((a == b).all() for a, b in zip(scores, before, strict=True))


def test_extreme_scores_stay_finite():
    a = np.array([1e4, -1e4, 0], np.float32).reshape(3, 1, 1)
    found = combine(a, a[::-1].copy())
    assert np.isfinite(found).all()
    np.testing.assert_allclose(softmax(found).ravel(), [0.5, 0, 0.5], atol=1e-6)


def test_where_no_square_was_the_fcn_decides_in_the_mean_alone():
    nothing = np.zeros((3, 1, 1), np.float32)
    fcn = np.array([0, 2, 1], np.float32).reshape(3, 1, 1)
    assert combine(nothing, fcn).argmax() == 1
    assert not combine(nothing, fcn, "product").any()  # all alike: background


def test_refuses(scores):
    with pytest.raises(OptionError, match="got ensemble 'max'; the choices are mean, product"):
        combine(*scores, "max")
    with pytest.raises(ShapeError, match=r"got scores of \(4, 9, 11\) and \(3, 9, 11\); wanted"):
        combine(scores[0], scores[1][:3])


# ---- images ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("mode", [None, "whole", "instance"])
def test_both_networks_are_asked(parts, image, ensemble, mode):
    both = EDeconvNet(*parts, ensemble)
    options = {} if mode == "whole" else {"method": "grid", "proposals": 4}
    first, boxes = parts[0].predict(image, mode=mode or "instance", **options)[:2]
    second, _ = parts[1].predict(image, mode="whole")[:2]
    expected = combine(first, second, ensemble)
    found, found_boxes = both.predict(image, mode=mode, **options)[:2]
    assert (found == expected).all()
    assert (found_boxes == boxes).all()
    assert len(boxes) == (0 if mode == "whole" else 4)
    result = both(image, mode=mode, **options)
    assert (result.labels == expected.argmax(0)).all()
    assert (result.logits == expected).all()
    np.testing.assert_allclose(result.probabilities, softmax(expected), atol=1e-6)


def test_a_crf_refines_the_whole(parts, image):
    both = EDeconvNet(*parts)
    options = {"method": "grid", "proposals": 4}
    scores, _ = both.predict(image, **options)[:2]
    expected = postprocess(image, scores, CLASSES, crf="edeconvnet")
    result = both(image, crf="edeconvnet", **options)
    assert (result.labels == expected.labels).all()
    assert (result.probabilities == expected.probabilities).all()
    assert (result.labels != both(image, **options).labels).any()


def test_the_presence_is_that_of_the_whole(nets, image):
    one = Segmenter(nets[0], CLASSES, presence_threshold=0.5, device="cpu", precision="fp32")
    two = Segmenter(nets[1], CLASSES, presence_threshold=0.9, device="cpu", precision="fp32")
    both = EDeconvNet(one, two)
    options = {"method": "grid", "proposals": 4}
    scores, _ = both.predict(image, **options)[:2]
    for given, taken in ((None, 0.5), (0, 0), (0.4, 0.4)):
        expected = postprocess(image, scores, CLASSES, presence_threshold=taken)
        assert (both(image, presence_threshold=given, **options).labels == expected.labels).all()
        assert both.describe(presence_threshold=given).count("on 1 % of the image") == bool(taken)


def test_the_preset_of_the_ensemble_takes_the_papers_proposals(parts, image):
    both = EDeconvNet(*parts)
    own, paper, reference = (
        both.predict(image, method="grid", **options)[1]
        for options in ({"preset": EDECONVNET}, {"preset": "paper"}, {"preset": "reference"})
    )
    assert (own == paper).all()
    assert len(reference) < len(own)
    with pytest.raises(OptionError, match=r"load both: unpool\.load.preset='edeconvnet'"):
        parts[0].predict(image, mode="instance", preset=EDECONVNET)


def test_the_palette_is_the_deconvnets(nets, image):
    own = Segmenter(nets[0], CLASSES, [[1, 2, 3]], device="cpu")
    both = EDeconvNet(own, Segmenter(nets[1], CLASSES, device="cpu"))
    assert both(image, proposals=1).palette[0].tolist() == [1, 2, 3]
    assert (both.palette[1:] == voc_palette()[1:]).all()


def test_the_procedure_tells_all(parts):
    both = EDeconvNet(*parts, "product")
    first, second = parts[0].describe("instance", proposals=7), parts[1].describe("whole")
    assert both.describe(crf="deeplab", proposals=7) == (
        f"EDeconvNet: product of DeconvNet ({first}) and FCN ({second}); dense CRF deeplab"
    )
    assert "instance-wise, 7 edgeboxes proposals, preset paper" in first
    assert "DeconvNet (whole images, long side 48, float32)" in both.describe("whole")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: (b, a), "got a FCN, which segments whole images, as the network for"),
        (lambda a, b: (a, b, "max"), "got ensemble 'max'; the choices are mean, product"),
    ],
)
def test_refuses_networks(parts, change, message):
    with pytest.raises(OptionError, match=message):
        EDeconvNet(*change(*parts))


def test_refuses_other_classes(nets, parts):
    other = Segmenter(nets[1], CLASSES[::-1], device="cpu")
    with pytest.raises(
        OptionError, match="of the classes background, cat, dog and dog, cat, background; wanted"
    ):
        EDeconvNet(parts[0], other)


# ---- saved ---------------------------------------------------------------------------------------


def test_saved_weights_bring_their_partner(parts, image, weights):
    expected = EDeconvNet(*parts)(image, method="grid", proposals=3)
    build = {"device": "cpu", "precision": "fp32"}
    for both in (
        EDeconvNet.from_pretrained(weights, **build),
        EDeconvNet.from_pretrained(weights, weights.parent / "fcn8s", **build),
        load(weights, EDECONVNET, **build),
    ):
        assert (both(image, method="grid", proposals=3).labels == expected.labels).all()
        assert (both.mode, both.ensemble, both.device.type) == ("instance", "mean", "cpu")
    assert load(weights, EDECONVNET, "product", **build).ensemble == "product"


def test_other_presets_take_one_network(weights):
    for preset in (None, "paper", "reference"):
        assert isinstance(load(weights, preset), Segmenter)
    with pytest.raises(OptionError, match="='mean' for one network; set preset='edeconvnet', or"):
        load(weights, "paper", "mean")


def test_weights_without_partner(weights):
    with pytest.raises(WeightsError, match="fcn8s', whose card names no partner"):
        load(weights.parent / "fcn8s", EDECONVNET)
