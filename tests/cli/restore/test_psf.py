"""`unpool restore psf`: figures and a look."""

import json

import pytest

from unpool.vision.images import read_image


@pytest.mark.parametrize("given", [["motion:7,30"], ["--psf", "motion:7,30"]])
def test_a_look_at_a_psf(given, run):
    code, out, err = run("restore", "psf", *given, "-o", "psf.png")
    assert (code, err, out[0]) == (0, [], "psf: motion:7,30")
    assert read_image("psf.png").shape[1] == 1200


def test_figures(run):
    facts = json.loads(run("restore", "psf", "--psf", "disk:3", "--json")[1][0])
    assert facts["psf_size"] == [7, 7]
    assert "Look at a PSF" in "\n".join(run("restore", "psf", "--help")[1])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "got no PSF; name one: unpool restore psf motion:13,30"),
        (["disk:2", "--psf", "disk:3"], "got two PSFs; name one"),
        (["estimate:motion"], "which needs an image to estimate it from"),
        (["none"], "got none, which is no PSF to look at"),
        (["motoin:3"], "did you mean 'motion'"),
    ],
)
def test_mistakes(args, message, refused):
    assert message in refused("restore", "psf", *args)
