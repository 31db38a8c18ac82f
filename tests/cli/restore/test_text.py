"""What is printed for a restored file."""

import re

import numpy as np
import pytest
from PIL import Image
from skimage import data

from unpool.cli import main
from unpool.restore import Restorer
from unpool.vision.psf import find_psf


@pytest.fixture
def blurred():
    """A photo after a motion, with noise of 0.01, (180, 180) uint8."""
    sharp = data.camera()[100:300, 100:300] / 255
    kernel = find_psf("motion:13,30").kernel
    spectrum = np.fft.rfft2(sharp) * np.fft.rfft2(kernel, sharp.shape)
    found = np.fft.irfft2(spectrum, sharp.shape)[20:, 20:]
    found += np.random.default_rng(0).normal(0, 0.01, found.shape)
    return Image.fromarray(np.rint(found.clip(0, 1) * 255).astype(np.uint8))


def test_the_noise_of_jpeg_is_stated(blurred, tmp_path, capsys):
    blurred.save(tmp_path / "a.jpg", quality=80)
    arguments = ["--psf", "motion:13,30", "-o", str(tmp_path / "out"), "--method", "tv"]
    assert main(["restore", str(tmp_path / "a.jpg"), *arguments]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"estimated noise 0\.00\d+ \(JPEG compression 0\.00\d+\), ", shown)
    assert "larger than estimated" not in shown
    assert main(["restore", str(tmp_path / "a.jpg"), *arguments, "--noise=0.01", "--redo"]) == 0
    assert " noise 0.01, " in capsys.readouterr().out


def test_noise_that_jpeg_hides_is_suspected(blurred, tmp_path, capsys):
    blurred.save(tmp_path / "a.jpg", quality=80)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "strong.png")
    blurred.save(tmp_path / "weak.png")
    for name in ("strong.png", "weak.png"):
        arguments = ["--psf", "motion:13,30", "-o", str(tmp_path / "out"), "--method", "tv"]
        assert main(["restore", str(tmp_path / name), *arguments]) == 0
        shown = capsys.readouterr().out
        assert ("the noise is larger than estimated" in shown) is (name == "strong.png")
    found = Restorer("tv")(tmp_path / "strong.png", "motion:13,30")
    assert found.residual is not None
    assert found.residual > 1.4
    again = ["--noise", "0.01", "--redo", *arguments]
    assert main(["restore", str(tmp_path / "strong.png"), *again]) == 0
    assert "larger than estimated" not in capsys.readouterr().out  # it is not estimated
