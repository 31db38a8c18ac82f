"""Recipes of classifiers: published values, and those that are refused."""

import json

import pytest
import torch

from unpool.classify.train import build
from unpool.errors import OptionError
from unpool.recipes import ClassificationRecipe, override
from unpool.recipes.classify import ZFNET, ZFNET_SMALL


@pytest.mark.parametrize("recipe", [ZFNET, ZFNET_SMALL], ids=lambda recipe: recipe.name)
def test_recipes_are_plain_values_that_can_be_built(recipe):
    recipe.check()
    again = ClassificationRecipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert again == recipe
    with torch.device("meta"):
        assert build(recipe, 10).arguments["widths"] == list(recipe.widths)


def test_the_published_recipe_is_that_of_the_paper():
    """Zeiler, Fergus 2014, sections 3 and 4.1."""
    assert (ZFNET.batch, ZFNET.lr, ZFNET.momentum, ZFNET.dropout) == (128, 1e-2, 0.9, 0.5)
    assert (ZFNET.optimizer, ZFNET.epochs, ZFNET.rms, ZFNET.deviation) == ("sgd", 70, 0.1, 0.01)
    assert (ZFNET.size, ZFNET.enlarged, ZFNET.corners, ZFNET.flip) == (224, 256, True, True)
    assert ZFNET.keep == (1, 2, 5, 10, 20, 30, 40, 64)
    with torch.device("meta"):
        assert sum(p.numel() for p in build(ZFNET, 1000).parameters()) == 62_357_608


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("bach=3", "there is no 'bach': did you mean 'batch'"),
        ("phases.0.lr=1", "there is no 'phases'"),
        ("widths=[1, 0, 1, 1, 1]", "got widths="),
        ("widths=5", r"wanted a list \[int, ...\]"),
        ("enlarged=40", "got enlarged=40 and size=96"),
        ("epochs=0", "got epochs=0 in a recipe; wanted 1 or more"),
        ("lr=11", "got lr=11"),
        ("dropout=1", "got dropout=1"),
        ("keep=[0]", r"got keep=\(0,\)"),
    ],
)
def test_values_with_which_nothing_can_be_trained_are_refused(setting, message):
    with pytest.raises(OptionError, match=message):
        override(ZFNET_SMALL, [setting])
