"""The table: values follow the noise, and the choice says why."""

import pytest
import torch

from unpool.errors import OptionError
from unpool.restore import METHODS
from unpool.restore.methods import choose, require_value


@pytest.mark.parametrize("name", METHODS)
def test_more_noise_is_restored_less(name):
    method = METHODS[name]
    values = [method.value_for(sigma) for sigma in (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.2)]
    falls = method.parameter == "steps"
    assert values == sorted(values, reverse=falls)
    for sigma, value in method.curve:
        assert method.value_for(sigma) == pytest.approx(value)
    assert method.value_for(0) == method.curve[0][1]
    assert method.value_for(1) == method.curve[-1][1]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(1, 1, 12, 14), (1, 1, 6, 12, 14)])
def test_every_method_runs_on_images_and_volumes(name, shape):
    method, psf = METHODS[name], torch.ones([1, 3, 3][-(len(shape) - 2) :]) / 9
    found = method.run(torch.rand(shape), psf, method.value_for(0.03), "ramp")
    assert found.shape == shape


def test_choices():
    assert choose("rl", volume=False, counts=True) == ("rl", "as asked for")
    assert choose("auto", volume=False, counts=True)[0] == "tv"
    assert choose("auto", volume=True, counts=True)[0] == "rl-fast"
    assert choose("auto", volume=True, counts=False)[0] == "tikhonov"
    with pytest.raises(OptionError, match="got method 'weiner'; did you mean 'wiener'"):
        choose("weiner", volume=False, counts=True)


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("steps", 2.5), ("lam", -1)])
def test_values_that_cannot_be(name, value):
    with pytest.raises(OptionError, match=f"got {name}={value}; wanted a"):
        require_value(name, value)
