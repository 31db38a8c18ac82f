"""Recipes of generators: published values, and those that are refused."""

import pytest

from unpool.errors import OptionError
from unpool.recipes import RECIPES, override
from unpool.recipes.generate import CHAIRS, CHAIRS_STAGE_1


def test_published_recipes():
    assert {n: r.steps for n, r in RECIPES.items() if n.startswith("chairs")} == {
        "chairs": 12_000,
        "chairs-longer": 6_000,
        "chairs-ranges": 10_000,
        "chairs-one-stream": 14_000,
        "chairs-distilled": 12_000,
        "chairs-stage1": 300_000,
        "chairs-stage2": 100,
        "chairs-stage3": 50_000,
        "chairs-128": 900_000,
        "chairs-deep": 500_000,
    }
    assert (CHAIRS_STAGE_1.momentum, CHAIRS_STAGE_1.bias_lr) == (0.9, 2)
    published = ("chairs-stage1", "chairs-stage2", "chairs-stage3", "chairs-128", "chairs-deep")
    for recipe in map(RECIPES.__getitem__, published):
        assert recipe.rgb_weight / recipe.mask_weight == 10
        assert (recipe.background, recipe.overlap_weight, recipe.teachers) == (1, 0, ())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("held_out=[31]", r"held_out=\(31,\) in a recipe; wanted 0 to 30"),
        ("rates.0.steps=0", r"rates.0.steps=0 in a recipe; wanted 1 or more"),
        ("plain=2", r"wanted 0 to 1"),
        ("speed=1", r"there is no 'speed'"),
    ],
)
def test_refused_settings(setting, message):
    with pytest.raises(OptionError, match=message):
        override(CHAIRS, [setting])
