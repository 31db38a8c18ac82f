"""PSNR and SSIM as scikit-image computes them."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from unpool.errors import ShapeError
from unpool.restore import compare, psnr, ssim

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(40, 53), (40, 53, 3)])
@pytest.mark.parametrize("largest", [1.0, 255.0])
def test_as_scikit_image(shape, largest):
    a, b = (RNG.random(shape) * largest for _ in range(2))
    axis = 2 if len(shape) == 3 else None
    expected = structural_similarity(
        *(a, b), gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        data_range=largest, channel_axis=axis,
    )  # fmt: skip
    assert ssim(a, b, largest) == pytest.approx(expected, abs=1e-6)
    found = psnr(a, b, largest)
    assert found == pytest.approx(peak_signal_noise_ratio(b, a, data_range=largest))


def test_values_are_clipped_as_they_are_shown():
    assert psnr(np.full((4, 4), 1.3), np.ones((4, 4))) == np.inf


def test_before_and_after():
    truth = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
    before = np.full_like(truth, 128)
    found = compare(truth, before, truth, 255)
    assert found["psnr"] == np.inf
    assert found["psnr_before"] < 12
    assert found["ssim"] == pytest.approx(1)
    assert found["ssim_before"] < 0.1
    assert compare(truth[:5], before[:5], truth[:5], 255).keys() == {"psnr", "psnr_before"}
    volumes = [np.stack([image] * 3) for image in (truth, before, truth)]
    assert compare(*volumes, 255, volume=True) == pytest.approx(found)


def test_sizes_must_be_the_same():
    with pytest.raises(ShapeError, match=r"of \(4, 4\) for a truth of \(4, 5\)"):
        psnr(np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(ShapeError, match="11 pixels or more"):
        ssim(np.zeros((4, 40)), np.zeros((4, 40)))
