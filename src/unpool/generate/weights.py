"""Saved networks that draw: what their cards say, and whether they fit a training run."""

from pathlib import Path
from typing import Any, NamedTuple

from unpool.errors import WeightsError
from unpool.models import GenerativeNet, from_pretrained
from unpool.recipes import RECIPES, GenerationRecipe


class Saved(NamedTuple):
    """A network that draws, and what its card says of it."""

    net: GenerativeNet
    styles: list[str]
    elevations: tuple[float, ...]  #: with which it was trained, degrees
    card: dict[str, Any]


def load_generative(source: str | Path) -> Saved:
    """Load a network that draws.

    Args:
        source: the name of weights that ship with the package, or a folder of weights.

    Raises:
        WeightsError: no such weights, a damaged file or card, or weights of another network.
    """
    net, card = from_pretrained(source)
    if not isinstance(net, GenerativeNet):
        raise WeightsError(
            f"got {source}, weights of a {card['architecture']}, which draws nothing; take "
            "weights of a GenerativeNet, such as chairs"
        )
    return Saved(net, _styles(card, net.styles, source), _elevations(card, source), card)


def load_forerunner(recipe: GenerationRecipe, field: str, source: str) -> Saved:
    """Load weights that a recipe needs, to begin with or as a teacher.

    Args:
        recipe: what is to be trained.
        field: of the recipe, "start" or "teachers".
        source: a value of it.

    Raises:
        WeightsError: what `load_generative` raises; or weights that may have learned from the views
            that the recipe holds out.
    """
    cure = "start=FOLDER" if field == "start" else """'teachers=["FOLDER"]'"""
    try:
        saved = load_generative(source)
    except WeightsError as error:
        first = "" if Path(source).exists() else _training(source)
        raise WeightsError(
            f"{field} of the recipe {recipe.name}: {error}; {first}name other weights with "
            f"--set {cure}"
        ) from None
    before = saved.card.get("recipe")
    held = before.get("held_out") if isinstance(before, dict) else None
    seen = [n for n in recipe.held_out if not isinstance(held, list) or n not in held]
    if seen:
        raise WeightsError(
            f"{field} of the recipe {recipe.name}: {source} may have learned from the azimuths "
            f"{seen}, which are to be held out; take weights with the same held_out, or hold out "
            "nothing: --set held_out=[]"
        )
    return saved


def _training(source: str) -> str:
    """The command that makes these weights, where it is that of a recipe in a folder of its name.

    >>> _training("runs/chairs/weights"), _training("mine")
    ('train them first (unpool train chairs --data RENDERS -o runs/chairs), or ', '')
    """
    run = Path(source).parent
    if run.name not in RECIPES:
        return ""
    return f"train them first (unpool train {run.name} --data RENDERS -o {run}), or "


def _styles(card: dict[str, Any], count: int, source: object) -> list[str]:
    """The names in a card; checked, for cards are written by hand, too."""
    styles = card.get("styles") or [f"style {i}" for i in range(count)]
    if not isinstance(styles, list) or len(styles) != count or len(set(map(str, styles))) != count:
        raise WeightsError(
            f"got styles {str(styles)[:60]} in the card of {source}; wanted {count} different "
            "names: correct card.json, or copy the weights again"
        )
    return [str(style) for style in styles]


def _elevations(card: dict[str, Any], source: object) -> tuple[float, ...]:
    elevations = card.get("elevations", (20.0, 30.0))
    degrees = elevations if isinstance(elevations, list | tuple) else ()
    if not degrees or not all(type(e) in (int, float) for e in degrees):
        raise WeightsError(
            f"got elevations {str(elevations)[:60]} in the card of {source}; wanted degrees, such "
            "as [20, 30]"
        )
    return tuple(map(float, degrees))
