"""The recipes of DecoupledNet."""

import pytest

from unpool.errors import OptionError
from unpool.recipes import RECIPES, find_recipe
from unpool.recipes.decoupled import DecoupledRecipe


def test_the_published_solver():
    recipe = RECIPES["decouplednet"]
    assert (recipe.batch, recipe.accumulate, recipe.segment_steps) == (64, 16, 17_500)
    assert (recipe.segment_lr, recipe.drop_every, recipe.momentum) == (0.01, 10_000, 0.9)
    assert recipe.weight_decay == 3.125e-5
    assert (recipe.size, recipe.enlarged, recipe.code, recipe.seg_code) == (320, 350, 4096, 2048)


def test_plain_values():
    recipe = find_recipe("decouplednet-small", strong=25, strong_split="few", stages=None)
    assert DecoupledRecipe.from_json(recipe.to_json()) == recipe
    with pytest.raises(OptionError, match=r"got enlarged=100 and size=160; .*set enlarged"):
        find_recipe("decouplednet-small", enlarged=100)
    with pytest.raises(OptionError, match="bridge=sum"):
        find_recipe("decouplednet-small", bridge="sum")
