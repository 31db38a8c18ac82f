"""PSFs are found again in blurred photos; scikit-image has the photos."""

import numpy as np
import pytest
import torch
from skimage import data

from unpool.errors import ImageError, OptionError
from unpool.ops.blur import blur
from unpool.restore import estimate_psf
from unpool.vision.psf import find_psf


def photos():
    """Parts of 256 x 256 pixels and more of gray photos, 0 to 1."""
    color = data.astronaut()[:280, 100:380].mean(2), data.chelsea()[:280, 60:340].mean(2)
    return [
        part / 255 for part in (data.camera()[60:340, 100:380], data.moon()[:280, :280], *color)
    ]


def blurred(photo, psf, sigma=0.01, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, photo.shape)
    x = torch.from_numpy(photo)[None, None]
    kernel = torch.from_numpy(find_psf(psf).kernel.astype(np.float64))
    return blur(x, kernel)[0, 0].numpy() + noise


def numbers(psf):
    return [float(value) for value in psf.name.partition(":")[2].split(",")]


def test_motions():
    for photo in photos():
        length, angle = numbers(estimate_psf(blurred(photo, "motion:13,30"), "motion")[0])
        assert abs(length - 13) <= 2
        assert abs(angle - 30) <= 15


@pytest.mark.parametrize("psf", ["disk:3.5", "gaussian:1.6"])
def test_disks_and_gaussians(psf):
    """The moon, too, which has little fine detail."""
    family, _, true = psf.partition(":")
    found = [estimate_psf(blurred(p, psf), family)[0] for p in photos()]
    assert [numbers(f)[0] for f in found] == pytest.approx([float(true)] * 4, rel=0.25)
    assert "nothing else tells whether it is right" in found[0].changes[0]


def test_several_are_different():
    found = estimate_psf(blurred(photos()[0], "motion:13,30"), "motion", 3)
    assert len({psf.name for psf in found}) == 3


def test_mistakes():
    with pytest.raises(OptionError, match=r"family 'shake'.*gaussian, disk, motion"):
        estimate_psf(np.zeros((128, 128)), "shake")
    with pytest.raises(ImageError, match=r"of \(20, 128\) to estimate .*: name the PSF"):
        estimate_psf(np.zeros((20, 128)), "disk")
    with pytest.raises(ImageError, match="without detail"):
        estimate_psf(np.ones((128, 128)), "disk")
