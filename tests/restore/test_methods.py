"""The table: values follow the noise, and the choice says why."""

import pytest
import torch

from unpool.errors import OptionError
from unpool.recipes.presets import RESTORATIONS
from unpool.restore import METHODS, methods
from unpool.restore.methods import Facts, choose, require_value

CLASSICAL = [name for name, method in METHODS.items() if method.run is not None]


def test_the_command_line_knows_all_methods():
    assert ("auto", *METHODS) == RESTORATIONS


@pytest.mark.parametrize("name", CLASSICAL)
def test_more_noise_is_restored_less(name):
    method = METHODS[name]
    values = [method.value_for(sigma) for sigma in (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.2)]
    falls = method.parameter == "steps"
    assert values == sorted(values, reverse=falls)
    for sigma, value in method.curve:
        assert method.value_for(sigma) == pytest.approx(value)
    assert method.value_for(0) == method.curve[0][1]
    assert method.value_for(1) == method.curve[-1][1]


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("shape", [(1, 1, 12, 14), (1, 1, 6, 12, 14)])
def test_every_method_runs_on_images_and_volumes(name, shape):
    method, psf = METHODS[name], torch.ones([1, 3, 3][-(len(shape) - 2) :]) / 9
    found = method.run(torch.rand(shape), psf, method.value_for(0.03), "ramp")
    assert found.shape == shape


def test_a_network_is_given_the_noise():
    assert [METHODS["given"].value_for(sigma) for sigma in (0.0, 0.013)] == [0.0, 0.013]


@pytest.fixture
def shipped(monkeypatch):
    """As if there were weights of both networks; the function sets others."""

    def ship(*names):
        monkeypatch.setattr(methods, "list_pretrained", lambda: names)

    ship("deblur-given", "deblur-blind")
    return ship


def test_choices(shipped):
    assert choose("rl", Facts()) == ("rl", "as asked for")
    loud = Facts(sigma=methods.GIVEN_NOISE + 0.01)
    assert choose("auto", loud) == ("given", "auto: the best for images with a known PSF")
    assert choose("auto", Facts(volume=True))[0] == "rl-fast"
    assert choose("auto", Facts(volume=True, counts=False))[0] == "tikhonov"
    assert choose("auto", Facts(psf_side=0)) == ("blind", "auto: there is no PSF")
    assert choose("auto", loud._replace(psf_side=99))[0] == "tv"
    for value, name in (("lam", "tv"), ("balance", "tikhonov"), ("steps", "rl")):
        assert choose("auto", loud._replace(values=[value])) == (
            name, f"auto: the method for {value}"
        )  # fmt: skip
    with pytest.raises(OptionError, match="got method 'weiner'; did you mean 'wiener'"):
        choose("weiner", Facts())


def test_below_some_noise_auto_takes_total_variation(shipped, monkeypatch):
    monkeypatch.setattr(methods, "GIVEN_NOISE", 0.005)
    name, reason = choose("auto", Facts(sigma=0.004))
    assert (name, reason) == ("tv", "auto: the network is for a noise of 0.005 or more")
    assert choose("auto", Facts(sigma=0.005))[0] == "given"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"psf_side": methods.GIVEN_SIDE + 2}, "the network is for PSFs up to 41 pixels"),
        ({"sigma": 0.0}, "the network is for a noise of 0.0005 or more"),
        (
            {"no_photo": "the file is a stack of pages"},
            "the network was trained on photos, and the file is a stack of pages",
        ),
    ],
)
def test_the_network_says_what_it_was_not_trained_for(shipped, change, why):
    facts = Facts(sigma=0.01, psf_side=methods.GIVEN_SIDE)
    assert choose("given", facts) == ("given", "as asked for")
    beyond = facts._replace(**change)
    assert choose("auto", beyond) == ("tv", f"auto: {why}")
    assert choose("given", beyond) == ("given", f"as asked for, but {why}: tv may be better")
    assert choose("given", beyond._replace(ours=False)) == ("given", "as asked for")


def test_without_weights(shipped):
    shipped()
    assert choose("auto", Facts(sigma=0.02))[0] == "tv"
    with pytest.raises(OptionError, match="got no PSF, and no weights of a blind network"):
        choose("auto", Facts(psf_side=0))


@pytest.mark.parametrize(
    ("name", "facts", "message"),
    [
        ("given", Facts(volume=True), "got a volume for method 'given'"),
        ("blind", Facts(), "got a PSF for method 'blind', which takes none; set psf='none'"),
        ("tv", Facts(psf_side=0), "got no PSF for method 'tv'; name one"),
        ("given", Facts(psf_side=0), "got no PSF for method 'given'"),
    ],
)
def test_methods_that_do_not_fit(name, facts, message):
    with pytest.raises(OptionError, match=message):
        choose(name, facts)


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("steps", 2.5), ("lam", -1)])
def test_values_that_cannot_be(name, value):
    with pytest.raises(OptionError, match=f"got {name}={value}; wanted a"):
        require_value(name, value)
