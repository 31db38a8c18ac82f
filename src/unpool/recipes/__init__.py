"""Recipes: every experiment as a named constant, a frozen dataclass of plain values.

A run writes its resolved recipe beside its weights. Single values are overridden by name
(`unpool train --set batch=8 --set phases.0.steps=100`); unknown names are refused.
"""

from typing import TypeVar

from unpool.recipes.classify import (
    CLASSIFICATIONS,
    ZFNET,
    ZFNET_SMALL,
    Classification,
    require_classification,
)
from unpool.recipes.generate import (
    CHAIRS,
    CHAIRS_128,
    CHAIRS_DEEP,
    CHAIRS_LONGER,
    CHAIRS_ONE_STREAM,
    CHAIRS_RANGES,
    CHAIRS_STAGE_1,
    CHAIRS_STAGE_2,
    CHAIRS_STAGE_3,
    CHAIRS_TAUGHT,
    GENERATIONS,
    Generation,
    Rate,
    require_generation,
)
from unpool.recipes.overrides import replaced
from unpool.recipes.segment import (
    DECONVNET,
    FCN8S,
    FINETUNE,
    OBJECTS,
    RECIPES,
    STAGE_1,
    STAGE_2,
    Phase,
    Recipe,
    require_segmentation,
)

__all__ = [
    "CHAIRS",
    "CHAIRS_128",
    "CHAIRS_DEEP",
    "CHAIRS_LONGER",
    "CHAIRS_ONE_STREAM",
    "CHAIRS_RANGES",
    "CHAIRS_STAGE_1",
    "CHAIRS_STAGE_2",
    "CHAIRS_STAGE_3",
    "CHAIRS_TAUGHT",
    "CLASSIFICATIONS",
    "DECONVNET",
    "FCN8S",
    "FINETUNE",
    "GENERATIONS",
    "OBJECTS",
    "RECIPES",
    "STAGE_1",
    "STAGE_2",
    "ZFNET",
    "ZFNET_SMALL",
    "AnyKind",
    "Classification",
    "Generation",
    "Phase",
    "Rate",
    "Recipe",
    "override",
    "require_bounds",
]

AnyKind = Recipe | Classification | Generation
"""What a training run goes by."""

AnyRecipe = TypeVar("AnyRecipe", bound=AnyKind)


def require_bounds(recipe: AnyKind) -> None:
    """Refuse values with which no training can be done.

    Raises:
        OptionError: a value too small or too large, no phase, or a phase without a source.
    """
    if isinstance(recipe, Classification):
        require_classification(recipe)
    elif isinstance(recipe, Generation):
        require_generation(recipe)
    else:
        require_segmentation(recipe)


def override(recipe: AnyRecipe, settings: list[str]) -> AnyRecipe:
    """The recipe with some values replaced.

    Args:
        recipe: to begin from; it stays as it is.
        settings: `name=value` each; the parts of a phase by number, `phases.0.steps=100`.
            Values are written as in JSON, strings also without quotes.

    Raises:
        OptionError: no such name (the nearest known one is told), a value of another type, or
            one with which no training can be done.

    >>> override(OBJECTS, ["phases.0.steps=5"]).phases[0].steps
    5
    """
    for setting in settings:
        recipe = replaced(recipe, setting)
    require_bounds(recipe)
    return recipe
