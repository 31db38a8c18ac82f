import numpy as np
import pytest

from unpool.segment.confidence import EXCLUDED, label_confidence


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_confidence_is_the_probability_of_the_label(temperature):
    """Against numpy, over several bands; classes that are excluded count less, and a void pixel
    has that of its best class."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (5, 300, 7)).astype(np.float32)
    kept = np.array([0, 2, 4])
    labels = random.choice(kept, (300, 7)).astype(np.uint8)
    labels[::3] = 255
    weights = np.exp(logits.astype(np.float64) / temperature)
    weights[[1, 3]] *= EXCLUDED
    shares = weights / weights.sum(0)
    own = sum(np.where(labels == k, shares[k], 0) for k in kept)
    expected = np.where(labels == 255, shares[kept].max(0), own)
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
