"""Recipes are plain values: there and back as JSON, and changed by name only."""

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unpool.errors import OptionError
from unpool.recipes import RECIPES, SegmentationRecipe, find_recipe, override, step_counts
from unpool.recipes.segment import Phase

OURS = [recipe for recipe in RECIPES.values() if isinstance(recipe, SegmentationRecipe)]
SHORT = SegmentationRecipe(
    "short", (Phase("coarse", 1, 500, 1e-3), Phase("fine", 2, 300, 5e-4, older_lr=1e-4))
)


def test_recipes_are_by_name_and_do_not_change():
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert override(recipe, []) == recipe
        with pytest.raises(dataclasses.FrozenInstanceError):
            recipe.batch = 1
    assert "objects" in RECIPES


@pytest.mark.parametrize("recipe", [SHORT, *OURS], ids=lambda recipe: recipe.name)
def test_json_round_trip(recipe):
    text = json.dumps(recipe.to_json(), allow_nan=False)
    again = SegmentationRecipe.from_json(json.loads(text))
    assert again == recipe
    assert all(isinstance(phase, Phase) for phase in again.phases)
    assert isinstance(again.crop_long_side, tuple)


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("batch=8", "batch", 8),
        ("aspect=0.5", "aspect", 0.5),
        ("aspect=1", "aspect", 1.0),
        ("clip=1e3", "clip", 1000.0),
        ("flip=false", "flip", False),
        ("code=null", "code", None),
        ("code=512", "code", 512),
        ("optimizer=sgd", "optimizer", "sgd"),
        ('optimizer="sgd"', "optimizer", "sgd"),
        ("crop_long_side=[100, 200]", "crop_long_side", (100, 200)),
        (" batch = 8 ", "batch", 8),
    ],
)
def test_values_are_read_as_json_or_words(setting, name, value):
    changed = override(SHORT, [setting])
    assert getattr(changed, name) == value
    assert type(getattr(changed, name)) is type(value)
    assert dataclasses.replace(changed, **{name: getattr(SHORT, name)}) == SHORT


def test_a_code_comes_back_where_a_recipe_has_none():
    without = override(SHORT, ["code=null"])
    assert override(without, ["code=64"]).code == 64
    with pytest.raises(OptionError, match=r"got code=large; wanted a value of type int \| None"):
        override(without, ["code=large"])


def test_parts_are_set_by_number():
    changed = override(SHORT, ["phases.1.steps=5", "phases.0.lr=1", "phases.1.name=last"])
    assert changed.phases[0] == dataclasses.replace(SHORT.phases[0], lr=1.0)
    assert changed.phases[1] == dataclasses.replace(SHORT.phases[1], steps=5, name="last")
    assert override(SHORT, ["crop_long_side.1=300"]).crop_long_side == (224, 300)


def test_later_settings_win_and_the_recipe_stays():
    before = SHORT.to_json()
    assert override(SHORT, ["batch=8", "batch=9"]).batch == 9
    assert SHORT.to_json() == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batch", "got the setting 'batch'; write name=value, for example batch=8"),
        (
            "bacth=8",
            "there is no 'bacth': did you mean 'batch'. The choices are name, batch, accumulate",
        ),
        ("lrs=1", "there is no 'lrs': .*he choices are"),
        ("stepz=1", "there is no 'stepz': did you mean 'steps'"),
        ("phases.0.step=1", "there is no 'step': did you mean 'steps'"),
        ("phases.2.steps=1", "there is no item '2': the items are 0, 1"),
        ("phases.-1.steps=1", "there is no item '-1': the items are"),
        ("phases.².steps=1", "there is no item '²'"),
        ("batch.0=1", "there is no '0': the choices are none"),
        ("=5", "there is no ''"),
        ("batch=many", "got batch=many; wanted a value of type int"),
        ("batch=8.0", "wanted a value of type int"),
        ("batch=true", "wanted a value of type int"),
        ("batch=null", "wanted a value of type int"),
        ("flip=1", "wanted a value of type bool"),
        ("aspect=true", "wanted a value of type float"),
        ("aspect=NaN", "wanted a value of type float"),
        ("aspect=Infinity", "wanted a value of type float"),
        ("trunk=16", r"wanted a value of type str \| \[\[int, int\], \.\.\.\]$"),
        ("crop_long_side=null", r"=None; wanted a list \[int, int\]$"),
        ("class_weights=5", r"wanted a list \[float, \.\.\.\]$"),
        ("class_weights=null", r"class_weights=None; wanted a list \[float, ...\], \[\] for none$"),
        ("code=64.5", r"wanted a value of type int \| None"),
        ("crop_long_side=5", r"wanted a list \[int, int\]$"),
        ("crop_long_side=[1, 2, 3]", r"wanted a list \[int, int\]$"),
        ('crop_long_side=["a", "b"]', r"wanted a list \[int, int\]$"),
        ("phases=[]", r"set single values, as phases\.0\.steps=100"),
        ("phases=5", r"set single values, as phases\.0\.steps=100"),
        ("phases.0=5", r"set single values, as phases\.0\.steps=100"),
    ],
)
def test_refuses_settings(setting, message):
    with pytest.raises(OptionError, match=message):
        override(SHORT, [setting])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(bacth=8), "got a recipe with 'bacth'; .*did you mean 'batch'"),
        (lambda v: v.pop("name"), "got an incomplete recipe: .*'name'"),
        (lambda v: v["phases"][0].pop("lr"), "got an incomplete recipe: .*'lr'"),
        (lambda v: v["phases"][0].update(step=1), "got a recipe with 'step'.*steps"),
        (lambda v: v.update(phases=[3]), "got 3 in a recipe; wanted name, stages, steps"),
        (lambda v: v.update(phases=3), "got phases=3; set single values"),
    ],
)
def test_refuses_json(change, message):
    values = SHORT.to_json()
    change(values)
    with pytest.raises(OptionError, match=message):
        SegmentationRecipe.from_json(values)
    with pytest.raises(OptionError, match="in a recipe; wanted name, batch"):
        SegmentationRecipe.from_json([values])


@pytest.mark.parametrize("recipe", OURS, ids=lambda recipe: recipe.name)
def test_the_constants_are_within_bounds(recipe):
    recipe.check()


@pytest.mark.parametrize(
    "setting",
    [
        "batch=0", "accumulate=0", "validate_every=0", "save_every=-1", "patience=0", "dropout=2",
        "seed=-1", "bn_eps=-1", "clip=-1", "momentum=5", "statistics_passes=-1", "warmup=-5",
        "aspect=99", "long_side=-1", "phases.0.steps=0", "phases.0.stages=0", "phases.0.lr=-1",
        "phases.0.drop_every=0", "phases.0.trunk_from=0", "crop_long_side=[-1, 50]",
        "average_with_start=2",
    ],
)  # fmt: skip
def test_values_with_which_nothing_can_be_trained_are_refused(setting):
    name = re.escape(setting.split("=")[0])
    with pytest.raises(OptionError, match=rf"got {name}=.* in a recipe; wanted [\d.]"):
        override(SHORT, [setting])


def test_other_impossible_recipes_are_refused():
    with pytest.raises(OptionError, match="wanted the smaller one first"):
        override(SHORT, ["crop_long_side=[400, 100]"])
    with pytest.raises(OptionError, match=r"\[3, 100\]; wanted 8 pixels or more, or \[0, 0\]"):
        override(SHORT, ["crop_long_side=3,100"])
    with pytest.raises(OptionError, match=r"average_with_start=0\.5 without start; set start, too"):
        override(SHORT, ["average_with_start=0.5"])
    with pytest.raises(OptionError, match=r"and class_weights; set class_weights=\[\] or"):
        override(SHORT, ["median_frequency=1", "class_weights=1,2"])
    with pytest.raises(OptionError, match="a phase without sources"):
        override(SHORT, ["phases.0.sources=[]"])
    with pytest.raises(OptionError, match=r"no 'lr', but phases have it: phases.0.lr"):
        override(SHORT, ["lr=3"])


def test_lists_are_written_with_commas():
    found = override(SHORT, ["phases.0.sources=views,pasted", "crop_long_side=100, 300"])
    assert found.phases[0].sources == ("views", "pasted")
    assert found.crop_long_side == (100, 300)
    assert override(SHORT, ["phases.0.sources=views"]).phases[0].sources == ("views",)
    assert override(SHORT, ["distill_without="]).distill_without == ()
    with pytest.raises(OptionError, match=r"crop_long_side=3; wanted a list \[int, int\]$"):
        override(SHORT, ["crop_long_side=3"])


@given(st.data())
def test_steps_of_several_phases_are_divided_in_proportion(data):
    steps = data.draw(st.lists(st.integers(1, 500), min_size=2, max_size=6))
    phases = tuple(dataclasses.replace(SHORT.phases[0], steps=n) for n in steps)
    recipe = dataclasses.replace(SHORT, phases=phases)
    total = data.draw(st.integers(len(steps), 2000))
    found = [phase.steps for phase in find_recipe(recipe, steps=total).phases]
    assert sum(found) == total
    assert min(found) >= 1
    if total >= sum(steps):  # then no phase needs more than its part
        for own, n in zip(found, steps, strict=True):
            assert abs(own - total * n / sum(steps)) <= 1
    assert override(recipe, [f"steps={total}"]) == find_recipe(recipe, steps=total)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("decouplednet-small", {"classify_steps": 2, "segment_steps": 3}),
        ("coder", {"layers.0.steps": 5}),
    ],
)
def test_steps_of_other_recipes_are_divided_too(name, parts):
    assert step_counts(find_recipe(name, steps=5)) == parts


def test_every_recipe_has_steps_or_epochs():
    without = {name for name, recipe in RECIPES.items() if not step_counts(recipe)}
    assert without == {"zfnet", "zfnet-small"}


def test_too_few_steps_for_all_phases():
    with pytest.raises(OptionError, match=r"got steps=1; wanted .*2"):
        find_recipe(SHORT, steps=1)
