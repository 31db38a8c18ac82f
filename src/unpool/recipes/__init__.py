"""Recipes, the hyperparameters of every experiment as a named constant, and published settings.

A run stores its recipe beside its weights. Single values are overridden by name
(`unpool.train(..., "objects", batch=8)`, `unpool train objects --set phases.0.steps=100`).
`presets` holds the published settings of CRFs and proposals.
"""

from unpool.errors import OptionError, suggest
from unpool.recipes import classify, generate, segment
from unpool.recipes.classify import ZFNET, ZFNET_SMALL, ClassificationRecipe
from unpool.recipes.generate import (
    CHAIRS,
    CHAIRS_128,
    CHAIRS_DEEP,
    CHAIRS_DISTILLED,
    CHAIRS_LONGER,
    CHAIRS_ONE_STREAM,
    CHAIRS_RANGES,
    CHAIRS_STAGE_1,
    CHAIRS_STAGE_2,
    CHAIRS_STAGE_3,
    GenerationRecipe,
    Rate,
)
from unpool.recipes.overrides import parse_setting, replaced
from unpool.recipes.recipe import AnyRecipe, Recipe
from unpool.recipes.segment import (
    DECONVNET,
    FCN8S,
    FINETUNE,
    OBJECTS,
    OBJECTS_LONGER,
    STAGE_1,
    STAGE_2,
    Phase,
    SegmentationRecipe,
)

__all__ = [
    "CHAIRS",
    "CHAIRS_128",
    "CHAIRS_DEEP",
    "CHAIRS_DISTILLED",
    "CHAIRS_LONGER",
    "CHAIRS_ONE_STREAM",
    "CHAIRS_RANGES",
    "CHAIRS_STAGE_1",
    "CHAIRS_STAGE_2",
    "CHAIRS_STAGE_3",
    "DECONVNET",
    "FCN8S",
    "FINETUNE",
    "KINDS",
    "OBJECTS",
    "OBJECTS_LONGER",
    "RECIPES",
    "STAGE_1",
    "STAGE_2",
    "ZFNET",
    "ZFNET_SMALL",
    "ClassificationRecipe",
    "GenerationRecipe",
    "Phase",
    "Rate",
    "Recipe",
    "SegmentationRecipe",
    "find_recipe",
    "override",
]

KINDS: dict[str, type[Recipe]] = {
    kind.kind: kind for kind in (SegmentationRecipe, ClassificationRecipe, GenerationRecipe)
}
"""The classes of recipes, one for each application, by `Recipe.kind`."""

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for module in (segment, classify, generate)
    for recipe in vars(module).values()
    if isinstance(recipe, Recipe)
}
"""All recipes, by name: the constants of these modules."""


def find_recipe(recipe: str | Recipe, **values: object) -> Recipe:
    """A recipe by name, with some of its values replaced.

    Args:
        recipe: a name in `RECIPES`, or a recipe, which is not changed.
        **values: by name; those of phases by number, `**{"phases.0.steps": 100}`, or `steps=100`
            if there is a single phase.

    Raises:
        OptionError: an unknown name, or a value of another type or out of bounds.

    >>> find_recipe("finetune", steps=300, batch=4).phases[0].steps
    300
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise OptionError(f"got recipe {recipe!r}; {suggest(recipe, RECIPES)}")
        recipe = RECIPES[recipe]
    if not isinstance(recipe, Recipe):
        raise OptionError(
            f"got a recipe of type {type(recipe).__name__}; wanted a Recipe or a name: "
            f"{', '.join(RECIPES)}"
        )
    for name, value in values.items():
        recipe = replaced(recipe, name, value)
    recipe.check()
    return recipe


def override(recipe: AnyRecipe, settings: list[str]) -> AnyRecipe:
    """A recipe with some values replaced, as on the command line.

    Args:
        recipe: not changed.
        settings: each `name=value`; values are JSON, strings also without quotes.

    >>> override(OBJECTS, ["phases.0.steps=5"]).phases[0].steps
    5
    """
    for setting in settings:
        recipe = replaced(recipe, *parse_setting(setting))
    recipe.check()
    return recipe
