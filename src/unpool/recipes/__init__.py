"""Recipes, the hyperparameters of every experiment as a named constant, and published settings.

A run stores its recipe beside its weights. Single values are overridden by name
(`unpool.train(..., "objects", batch=8)`, `unpool train objects --set phases.0.steps=100`).
`presets` holds the published settings of CRFs and proposals.
"""

from unpool.errors import OptionError, require_int, suggest
from unpool.recipes import classify, coder, decoupled, generate, relatives, restore, segment
from unpool.recipes.classify import ClassificationRecipe
from unpool.recipes.coder import CodingRecipe
from unpool.recipes.decoupled import DecoupledRecipe
from unpool.recipes.generate import GenerationRecipe
from unpool.recipes.overrides import parse_setting, replaced
from unpool.recipes.recipe import AnyRecipe, Recipe
from unpool.recipes.restore import RestorationRecipe
from unpool.recipes.segment import SegmentationRecipe

__all__ = [
    "KINDS",
    "RECIPES",
    "ClassificationRecipe",
    "CodingRecipe",
    "DecoupledRecipe",
    "GenerationRecipe",
    "Recipe",
    "RestorationRecipe",
    "SegmentationRecipe",
    "find_recipe",
    "override",
    "step_counts",
]

KINDS: dict[str, type[Recipe]] = {
    kind.kind: kind
    for kind in (
        *(SegmentationRecipe, DecoupledRecipe, ClassificationRecipe, GenerationRecipe),
        *(CodingRecipe, RestorationRecipe),
    )
}
"""The classes of recipes, one for each application, by `Recipe.kind`."""

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for module in (segment, relatives, decoupled, classify, generate, coder, restore)
    for recipe in vars(module).values()
    if isinstance(recipe, Recipe)
}
"""All recipes, by name: the constants of these modules."""


def find_recipe(recipe: str | Recipe, **values: object) -> Recipe:
    """A recipe by name, with some of its values replaced.

    Args:
        recipe: a name in `RECIPES`, or a recipe, which is not changed.
        **values: by name; those of phases by number, `**{"phases.0.lr": 1e-4}`, or `lr=1e-4` if
            there is a single phase. `steps=100` is the total of all parts, of each in proportion.

    Raises:
        OptionError: an unknown name, or a value of another type or out of bounds.

    >>> [phase.steps for phase in find_recipe("finetune", steps=480, batch=4).phases]
    [120, 120, 80, 60, 100]
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
        recipe = _replaced(recipe, name, value)
    recipe.check()
    return recipe


def override(recipe: AnyRecipe, settings: list[str]) -> AnyRecipe:
    """A recipe with some values replaced, as on the command line.

    Args:
        recipe: not changed.
        settings: each `name=value`; values are JSON, strings also without quotes.

    >>> override(RECIPES["objects"], ["phases.0.steps=5"]).phases[0].steps
    5
    """
    for setting in settings:
        recipe = _replaced(recipe, *parse_setting(setting))
    recipe.check()
    return recipe


def step_counts(recipe: Recipe) -> dict[str, int]:
    """The numbers of steps of a recipe's parts, in order, by the names of their fields.

    >>> step_counts(RECIPES["decouplednet-small"])
    {'classify_steps': 200, 'segment_steps': 300}
    """
    counts: dict[str, int] = {}
    for name, value in vars(recipe).items():
        if isinstance(value, tuple):
            parts = [getattr(part, "steps", None) for part in value]
            counts |= {f"{name}.{i}.steps": n for i, n in enumerate(parts) if isinstance(n, int)}
        elif name == "steps" or name.endswith("_steps"):
            counts[name] = value
    return counts


def _replaced(recipe: AnyRecipe, name: str, value: object) -> AnyRecipe:
    """`replaced`, but `steps` of a recipe with several parts are divided among them."""
    counts = step_counts(recipe)
    if name.strip() != "steps" or len(counts) < 2:
        return replaced(recipe, name, value)
    require_int("steps", value, len(counts))
    value = int(str(value))  # NumPy's integers, too
    total, done, end = sum(counts.values()), 0, 0
    for i, (part, count) in enumerate(counts.items()):
        start, done = end, done + count
        left = len(counts) - 1 - i  # one step for each at least
        end = min(max((value * done + total // 2) // total, start + 1), value - left)
        recipe = replaced(recipe, part, end - start)
    return recipe
