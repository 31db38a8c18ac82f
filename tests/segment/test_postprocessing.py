"""Which classes an image holds, by counting pixels, and what becomes of the others."""

import numpy as np
import pytest
import torch

from tests.segment.tiny import CLASSES, photo
from unpool.errors import OptionError, ShapeError
from unpool.models import DeconvNet
from unpool.ops import CRF_PRESETS, mean_field
from unpool.segment.postprocessing import describe_postprocessing, postprocess, present
from unpool.segment.scores import read_scores
from unpool.segment.segmenter import Segmenter


def softmax(scores):
    e = np.exp(scores - scores.max(0))
    return e / e.sum(0)


def scene(seed=0, size=(20, 30)):
    """Random scores of which some classes are sure in places, and one is nowhere."""
    random = np.random.default_rng(seed)
    scores = random.normal(0, 1, (4, *size)).astype(np.float32)
    scores[0] += 1
    scores[1, 4:12, 5:15] += 8
    scores[2, 15, 20:26] += 8  # 6 of 600 pixels: just enough
    image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    return image, scores


@pytest.mark.parametrize("presence_threshold", [0.3, 0.5, 0.75, 0.9, 0.999])
@pytest.mark.parametrize("seed", range(5))
def test_present_by_counting(seed, presence_threshold):
    shares = softmax(scene(seed)[1])
    needed = shares[0].size / 100
    expected = [0]
    for k in (1, 2, 3):
        if sum(share >= presence_threshold for share in shares[k].ravel().tolist()) >= needed:
            expected.append(k)
    assert present(shares, presence_threshold).tolist() == expected


def test_one_pixel_less_is_not_enough():
    shares = np.zeros((2, 10, 20), np.float32)
    shares[0], shares[1, 3, 4:6] = 1, 0.8
    assert present(shares, 0.8).tolist() == [0, 1]
    shares[1, 3, 4] = 0.79
    assert present(shares, 0.8).tolist() == [0]


def test_all_are_there_without_a_presence():
    image, scores = scene()
    assert present(softmax(scores), 0).tolist() == [0, 1, 2, 3]
    found = postprocess(image, scores, CLASSES)
    assert (found.labels == scores.argmax(0)).all()
    np.testing.assert_allclose(found.probabilities, softmax(scores), atol=1e-6)


def test_pixels_of_a_class_that_is_not_there_go_to_the_best_of_the_others():
    image, scores = scene()
    found = postprocess(image, scores, CLASSES, presence_threshold=0.95)
    assert (scores.argmax(0) == 3).any()
    assert set(np.unique(found.labels)) == {0, 1, 2}
    assert (found.labels == scores[:3].argmax(0)).all()
    np.testing.assert_allclose(found.probabilities[:3], softmax(scores[:3]), atol=1e-6)
    assert (found.probabilities[3] == 0).all()
    assert (found.logits == scores).all()


def test_the_background_is_always_there():
    image, scores = scene()
    scores[0] -= 30
    found = postprocess(image, scores, CLASSES, presence_threshold=1)
    assert (found.labels == 0).all()
    assert (found.probabilities[0] == 1).all()


@pytest.mark.parametrize("crf", CRF_PRESETS)
def test_the_crf_knows_only_the_classes_that_are_there(crf):
    image, scores = scene()
    found = postprocess(image, scores, CLASSES, crf=crf, presence_threshold=0.95)
    expected = postprocess(image, scores[:3], CLASSES[:3], crf=crf)
    assert (found.labels == expected.labels).all()
    np.testing.assert_allclose(found.probabilities[:3], expected.probabilities, atol=1e-6)


@pytest.mark.parametrize("crf", ["deeplab1", "deeplab"])
def test_the_unary_of_deeplab1_is_minus_the_score(crf):
    """Probabilities of 1e-5 and less are as far apart as their scores; others' energy is bound."""
    image, scores = scene()
    scores[2] -= 40
    found = postprocess(image, scores, CLASSES, crf=crf).probabilities
    minus = torch.from_numpy(-scores)
    expected = mean_field(minus, torch.from_numpy(image), crf).numpy()
    assert np.allclose(found, expected, atol=1e-6) == (crf == "deeplab1")


def test_large_images(monkeypatch):
    monkeypatch.setattr("unpool.vision.boxes.reduced.__defaults__", (600,))
    monkeypatch.setattr("unpool.vision.boxes.reduced_size.__defaults__", (600,))
    scores = scene()[1]
    image = np.zeros((40, 60, 3), np.uint8)
    found = postprocess(image, scores, CLASSES, presence_threshold=0.95)
    expected = postprocess(image, scores[:3], CLASSES[:3])
    assert found.labels.shape == (40, 60)
    assert (found.labels == expected.labels).all()


def test_a_presence_goes_with_saved_scores(tmp_path):
    image, scores = scene()
    first = postprocess(image, scores, CLASSES, presence_threshold=0.95)
    first.save(tmp_path / "a.png", scores=True)
    kept = read_scores(tmp_path / "a.scores.npz")
    assert kept.presence_threshold == 0.95
    again = postprocess(
        image, kept.values, kept.classes, presence_threshold=kept.presence_threshold
    )
    assert set(np.unique(again.labels)) == {0, 1, 2}
    assert (again.labels == first.labels).mean() > 0.99


@pytest.mark.parametrize("presence_threshold", [-0.1, 1.5, float("nan"), "much", None])
def test_a_presence_is_a_probability(presence_threshold):
    image, scores = scene()
    net = DeconvNet(4, ((1, 4),), None, 32)
    for use in (
        lambda: postprocess(image, scores, CLASSES, presence_threshold=presence_threshold),
        lambda: Segmenter(net, CLASSES, presence_threshold=presence_threshold),
        lambda: describe_postprocessing(presence_threshold, None),
    ):
        with pytest.raises(
            OptionError, match=r"got presence_threshold=.*; wanted a probability, 0 to 1"
        ):
            use()


def test_in_words():
    assert describe_postprocessing(0, None) == []
    assert describe_postprocessing(0, "deeplab") == ["dense CRF deeplab"]
    assert describe_postprocessing(0.5, None) == [
        "only classes with a probability of 0.5 on 1 % of the image"
    ]


def test_unsure_pixels_become_void():
    image, scores = scene()
    plain = postprocess(image, scores, CLASSES)
    found = postprocess(image, scores, CLASSES, void_below=0.6)
    unsure = plain.confidence < 0.6
    assert 0 < unsure.sum() < unsure.size
    np.testing.assert_array_equal(found.labels, np.where(unsure, 255, plain.labels))
    np.testing.assert_allclose(found.confidence, plain.confidence, atol=1e-6)
    assert found.fractions()["void"] == pytest.approx(unsure.mean())
    assert sum(found.fractions().values()) == pytest.approx(1)
    assert found.objects().areas.sum() == ((found.labels > 0) & ~unsure).sum()
    assert found.overlay().shape == image.shape
    assert describe_postprocessing(0, None, 0.6) == ["void where less sure than 0.6"]
    with pytest.raises(OptionError, match=r"void_below=1\.5; wanted a probability"):
        describe_postprocessing(0, None, 1.5)


def drawn(seed=0):
    """A disk of another color than the ground, and scores that know it only roughly."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:60, :80]
    labels = ((y - 30) ** 2 + (x - 40) ** 2 < 20**2).astype(np.uint8)
    colors = np.array([[40, 90, 30], [200, 150, 60]])[labels]
    image = np.clip(colors + random.normal(0, 4, colors.shape), 0, 255).astype(np.uint8)
    shifted = np.roll(labels, 4, 1)
    scores = np.eye(4, dtype=np.float32)[shifted].transpose(2, 0, 1) * 2
    return image, labels, scores + random.normal(0, 1, scores.shape).astype(np.float32)


@pytest.mark.parametrize("crf", CRF_PRESETS)
def test_a_crf_finds_the_outline_in_noise(crf):
    image, labels, scores = drawn()
    before, after = (postprocess(image, scores, CLASSES, crf=c).labels for c in (None, crf))
    assert (before == labels).mean() < 0.9
    assert (after == labels).mean() > 0.98


@pytest.mark.parametrize("shape", [(4, 30, 24), (4, 24, 29), (24, 30), (24, 30, 4)])
def test_scores_of_another_image_are_refused(shape):
    with pytest.raises(ShapeError, match=r"got scores of .* for an image of \(24, 30\) \(H, W\)"):
        postprocess(photo(24, 30), np.zeros(shape, np.float32), CLASSES)
