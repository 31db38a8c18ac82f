import functools
import inspect
import json
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated

import pytest

from unpool.errors import OptionError
from unpool.recipes import KINDS, RECIPES, override
from unpool.recipes.recipe import Count, Fraction, OneOf, Range, check_fields
from unpool.recipes.segment import FINETUNE


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_options_are_the_arguments_of_the_task(kind):
    module, _, name = kind.task.partition(":")
    data, recipe, *options = inspect.signature(
        getattr(import_module(module), name)
    ).parameters.values()
    assert (data.name, recipe.name) == ("data", "recipe")
    assert tuple(option.name for option in options) == kind.options
    assert all(option.default is not option.empty for option in options)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_task_keeps_its_arguments(recipe, tmp_path):
    values = {"trunk_inputs": "torchvision", "by_color": True, "crowd": "object"}
    options = {name: values.get(name, "part") for name in recipe.options}
    task = recipe.make_task(tmp_path, **options)
    assert (task.recipe, task.data) == (recipe, tmp_path)
    assert {name: str(getattr(task, name)) for name in options} == {
        name: str(value) for name, value in options.items()
    }
    with pytest.raises(OptionError, match=rf"got foo=1 for the recipe {recipe.name}, which takes"):
        recipe.make_task(tmp_path, foo=1)


@pytest.mark.parametrize(
    "settings",
    [
        *("batch=1e400", "batch=nan", "batch=-1", "batch=65537", "batch=1" + 400 * "0"),
        *("batch=1" + 5000 * "0", "batch=" + 10**5 * "[", "batch=" + 500 * "[" + 500 * "]"),
        *("steps=1" + 400 * "0", "lr=1" + 400 * "0", "lr=NaN", "lr=-1", "weight_decay=1e308"),
        *("phases=" + 300 * "[" + 300 * "]", "phases.0.sources=[[]]", "phases.99.lr=1"),
        *("seed=-1", "seed=" + 30 * "9", "paste=1000000000", "long_side=100000", "pad=10000"),
    ],
    ids=lambda setting: setting[:30],
)
def test_absurd_settings_are_refused(settings):
    with pytest.raises(OptionError):
        override(FINETUNE, [settings])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": "8"}, "got batch=8; wanted a value of type int"),
        ({"bias_lr": None}, "got bias_lr=None; wanted a value of type float"),
        ({"phases": 3}, "got phases=3"),
        ({"phases": [3]}, "got 3 in a recipe; wanted name, stages"),
        ({"phases": [{"name": "all"}]}, "got an incomplete recipe"),
        ({"phases": [{"name": 3, "stages": 1, "steps": 1, "lr": 1}]}, "got name=3; wanted .* str"),
        ({"sources": []}, "got a recipe with 'sources'"),
        ({"aspect": functools.reduce(lambda a, _: [a], range(600), 1)}, "lists in hundreds"),
    ],
)
def test_recipes_from_files_are_checked(change, message):
    with pytest.raises(OptionError, match=message):
        type(FINETUNE).from_json(FINETUNE.to_json() | change)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_recipes_come_back_from_json(recipe):
    assert type(recipe).from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_a_missing_field_gets_its_default():
    values = FINETUNE.to_json()
    del values["batch"]
    assert type(FINETUNE).from_json(values).batch == type(FINETUNE).batch


@dataclass(frozen=True)
class Part:
    steps: Count = 1


@dataclass(frozen=True)
class Whole:
    fraction: Fraction | None = None
    sides: tuple[Annotated[int, Range(2, 9)], ...] = (2,)
    solver: Annotated[str, OneOf("adamw", "sgd")] = "sgd"
    parts: tuple[Part, ...] = (Part(),)


@pytest.mark.parametrize("valid", [{}, {"fraction": 0.0}, {"fraction": 1.0}, {"sides": (2, 9)}])
def test_bounds_are_inclusive_and_none_is_always_valid(valid):
    check_fields(Whole(**valid))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"fraction": 1.01}, r"got fraction=1\.01 in a recipe; wanted 0 to 1"),
        ({"fraction": float("nan")}, "got fraction=nan in a recipe; wanted 0 to 1"),
        ({"sides": (2, 10)}, r"got sides=\(2, 10\) in a recipe; wanted 2 to 9"),
        ({"solver": "adam"}, "got solver=adam in a recipe; did you mean 'adamw'"),
        ({"parts": (Part(), Part(0))}, r"got parts\.1\.steps=0 in a recipe; wanted 1 or more"),
    ],
)
def test_values_out_of_bounds_are_refused(value, message):
    with pytest.raises(OptionError, match=message):
        check_fields(Whole(**value))
