"""The values of the authors' solvers."""

from unpool.recipes.relatives import BAYESIAN_SEGNET, SEGNET, SEGNET_BASIC


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
