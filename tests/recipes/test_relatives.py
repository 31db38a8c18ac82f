"""The values of the authors' solvers, and our recipes on tiny networks."""

from dataclasses import replace

import pytest
import torch

from unpool import train
from unpool.models import from_pretrained
from unpool.recipes.relatives import (
    BAYESIAN_SEGNET,
    BAYESIAN_SEGNET_CAMVID,
    CRFRNN,
    DECONVNET_CAMVID,
    DEEPLAB,
    DEEPLAB_LARGEFOV,
    SEGNET,
    SEGNET_BASIC,
    SEGNET_CAMVID,
)
from unpool.segment.networks import NETWORKS


def test_the_solvers_of_segnet():
    """Values of the released tutorial."""
    assert (SEGNET.phases[0].steps, SEGNET.phases[0].lr, SEGNET.batch) == (40_000, 0.001, 4)
    assert (SEGNET_BASIC.phases[0].steps, SEGNET_BASIC.phases[0].lr) == (10_000, 0.1)
    assert (BAYESIAN_SEGNET.phases[0].steps, BAYESIAN_SEGNET.dropout) == (60_000, 0.5)
    for recipe in (SEGNET, SEGNET_BASIC, BAYESIAN_SEGNET):
        phase = recipe.phases[0]
        assert (phase.older_lr, phase.trunk_lr, phase.sources, recipe.image_size) == (
            phase.lr,
            phase.lr,
            ("images",),
            (360, 480),
        )
        assert (recipe.optimizer, recipe.momentum, recipe.schedule) == ("sgd", 0.9, "constant")
        assert (recipe.weight_decay, recipe.bias_lr, recipe.decay_norm) == (0.0005, 2, True)
        assert (recipe.flip, recipe.color, recipe.centered) == (False, 0, False)
        assert len(recipe.class_weights) == 11
        assert not recipe.tied  # the decoder begins with random filters
    assert (SEGNET.phases[0].stages, SEGNET_BASIC.phases[0].stages) == (5, 4)
    assert not SEGNET.decay_shift
    assert SEGNET_BASIC.decay_shift


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [(SEGNET, 29_449_355), (SEGNET_BASIC, 1_416_587), (BAYESIAN_SEGNET, 29_486_411)],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_networks_of_segnets_authors(recipe, parameters):
    """Parameters of the released networks for the eleven classes of CamVid."""
    with torch.device("meta"):
        net = NETWORKS[recipe.network](recipe, 11)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


def test_the_solver_of_crf_rnn():
    """Its loss is a sum over the pixels of an image, ours their mean."""
    phase, pixels = CRFRNN.phases[0], 500**2
    rates = [phase.trunk_lr, phase.older_lr, phase.lr, phase.lr * CRFRNN.compatibility_lr]
    assert rates == pytest.approx([pixels * rate for rate in (1e-13, 1e-13, 1e-9, 1e-10)])
    assert CRFRNN.weight_decay == pytest.approx(5e-4 / pixels)
    assert (CRFRNN.optimizer, CRFRNN.momentum, CRFRNN.schedule) == ("sgd", 0.99, "constant")
    assert (CRFRNN.batch, CRFRNN.size, CRFRNN.crop_long_side) == (1, 500, (500, 500))
    assert (CRFRNN.iterations, CRFRNN.bias_lr, CRFRNN.dropout) == ((5, 10), 2, 0.5)
    assert (CRFRNN.code, CRFRNN.window, CRFRNN.pad, CRFRNN.at_once) == (4096, 7, 100, False)


def tiny(recipe, **changes):
    """With all phases of a recipe, each of a step, and five stages."""
    sizes = {"trunk": ((1, 6),) * 5, "size": 32, "batch": 2, "crop_long_side": (32, 64)}
    often = {"statistics_passes": 1, "validate_every": 99, "long_side": 48}
    phases = tuple(replace(phase, steps=1) for phase in recipe.phases)
    return replace(recipe, phases=phases, **sizes, **often, **changes)


@pytest.mark.parametrize("recipe", [SEGNET_CAMVID, DECONVNET_CAMVID], ids=lambda r: r.name)
def test_the_recipes_for_camvid_grow_a_network_that_can_be_used(data, tmp_path, recipe):
    train(data, tmp_path / "run", tiny(recipe))
    net, card = from_pretrained(tmp_path / "run/weights")
    assert type(net).__name__ == recipe.network
    assert (net.fc, card.mode) == (None, "whole")
    if recipe is SEGNET_CAMVID:
        start = str(tmp_path / "run/weights")
        train(data, tmp_path / "second", tiny(BAYESIAN_SEGNET_CAMVID, start=start))
        bayesian, _ = from_pretrained(tmp_path / "second/weights")
        assert (net.dropout, bayesian.dropout) == (0, 0.5)
        for name, filters in net.trunk.stages[2].named_parameters():  # frozen
            assert filters.equal(bayesian.trunk.stages[2].get_parameter(name))


def test_a_bayesian_segnet_is_trained_with_its_wide_head(data, tmp_path):
    recipe = tiny(BAYESIAN_SEGNET, class_weights=(), image_size=(32, 32))
    train(data, tmp_path / "run", recipe)
    net, _ = from_pretrained(tmp_path / "run/weights")
    assert (net.wide_head, net.dropout) == (True, 0.5)
    assert next(iter(net.decoder[-1].state_dict())) == "conv1_1_D.weight"


def test_the_solvers_of_deeplab():
    """Values of the released solvers and networks."""
    assert (DEEPLAB.size, DEEPLAB.batch, DEEPLAB.code) == (306, 20, 4096)
    assert (DEEPLAB.window, DEEPLAB.dilation, DEEPLAB.pool_kernel) == (4, 4, 2)
    assert (DEEPLAB_LARGEFOV.size, DEEPLAB_LARGEFOV.batch, DEEPLAB_LARGEFOV.code) == (321, 30, 1024)
    assert (DEEPLAB_LARGEFOV.window, DEEPLAB_LARGEFOV.dilation) == (3, 12)
    assert (DEEPLAB.pool_average, DEEPLAB_LARGEFOV.pool_average) == (False, True)
    for recipe in (DEEPLAB, DEEPLAB_LARGEFOV):
        (phase,) = recipe.phases
        assert (phase.steps, phase.drop_every, phase.sources) == (6_000, 2_000, ("crops",))
        assert (phase.lr, phase.older_lr, phase.trunk_lr) == (0.01, 0.001, 0.001)
        assert (recipe.optimizer, recipe.momentum, recipe.weight_decay) == ("sgd", 0.9, 0.0005)
        assert (recipe.bias_lr, recipe.flip, recipe.color, recipe.dropout) == (2, True, 0, 0.5)
