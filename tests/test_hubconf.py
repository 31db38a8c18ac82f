"""`torch.hub.load` from this folder."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unpool import OptionError

ROOT = str(Path(__file__).parent.parent)


def load(name, **options):
    return torch.hub.load(ROOT, name, source="local", **options)


def test_the_networks_by_name():
    net = load("deconvnet", classes=3, trunk=((1, 4), (1, 6)), code=None, size=32).eval()
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)
    assert load("fcn8s", classes=2, code=8).classes == 2


def test_the_default_weights_segment():
    segmenter = load("objects", device="cpu", precision="fp32")
    assert segmenter(np.zeros((20, 30, 3), np.uint8)).labels.shape == (20, 30)


@pytest.mark.parametrize("options", [{"foo": 1}, {"classes": "a"}])
def test_options_that_do_not_fit_are_refused(options):
    with pytest.raises(OptionError, match=r"the choices are classes|wanted 2 or more, an integer"):
        load("deconvnet", **options)
