import numpy as np
import pytest

from unpool.segment.confidence import label_confidence


def softmax(scores):
    e = np.exp(scores.astype(np.float64) - scores.max(0))
    return e / e.sum(0)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_confidence_is_the_softmax_of_the_label_among_the_kept(temperature):
    """Against numpy, over several bands; a void pixel has that of its best class."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (5, 300, 7)).astype(np.float32)
    kept = np.array([0, 2, 4])
    labels = random.choice(kept, (300, 7)).astype(np.uint8)
    labels[::3] = 255
    shares = softmax(logits[kept] / temperature)
    own = sum(np.where(labels == k, share, 0) for k, share in zip(kept, shares, strict=True))
    expected = np.where(labels == 255, shares.max(0), own)
    found = label_confidence(logits, kept, labels, temperature)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_smaller_logits_give_the_confidence_around_each_pixel():
    logits = np.zeros((2, 4, 6), np.float32)
    logits[1, :, 3:] = 2
    labels = np.repeat(np.uint8([[0] * 6 + [1] * 6]), 8, 0)
    found = label_confidence(logits, np.arange(2), labels)
    assert found.shape == (8, 12)
    np.testing.assert_allclose(found[:, :5], 0.5, atol=1e-6)
    np.testing.assert_allclose(found[:, 7:], 1 / (1 + np.exp(-2)), atol=1e-6)
