"""The values of the authors' solvers."""

import pytest

from unpool.recipes.relatives import BAYESIAN_SEGNET, CRFRNN, SEGNET, SEGNET_BASIC


def test_the_solvers_of_segnet():
    """Values of the released tutorial."""
    assert (SEGNET.phases[0].steps, SEGNET.phases[0].lr, SEGNET.batch) == (40_000, 0.001, 4)
    assert (SEGNET_BASIC.phases[0].steps, SEGNET_BASIC.phases[0].lr) == (10_000, 0.1)
    assert (BAYESIAN_SEGNET.phases[0].steps, BAYESIAN_SEGNET.dropout) == (60_000, 0.5)
    for recipe in (SEGNET, SEGNET_BASIC, BAYESIAN_SEGNET):
        phase = recipe.phases[0]
        assert (phase.trunk_lr, phase.sources, recipe.image_size) == (
            phase.lr,
            ("images",),
            (360, 480),
        )
        assert (recipe.optimizer, recipe.momentum, recipe.schedule) == ("sgd", 0.9, "constant")
        assert (recipe.weight_decay, recipe.bias_lr, recipe.decay_norm) == (0.0005, 2, True)
        assert (recipe.flip, recipe.color, recipe.centered) == (False, 0, False)
        assert len(recipe.class_weights) == 11
    assert not SEGNET.decay_shift
    assert SEGNET_BASIC.decay_shift


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
