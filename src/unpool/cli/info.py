"""`unpool info`: versions, weights, recipes, devices, and the card of weights."""

import contextlib
from typing import TYPE_CHECKING, Any

import click

import unpool
from unpool.cards import list_pretrained, read_card
from unpool.cli import console
from unpool.cli.options import JSON

if TYPE_CHECKING:
    from unpool.recipes import Recipe


@click.command()
@click.option("--weights", metavar="NAME|FOLDER", help="Show the card of these weights instead.")
@click.option("--devices", is_flag=True, help="Also list the devices; slower.")
@JSON
def info(weights: str | None, devices: bool, as_json: bool) -> None:
    """Show versions, weights and recipes, or the card of weights.

    Text shows rounded figures and no palettes; --json prints complete cards.

    \b
    Example: unpool info --weights objects
    """
    from unpool.recipes import RECIPES

    if weights is not None:
        facts = read_card(weights).to_dict()
    else:
        facts = _versions()
        if devices:
            facts |= _devices()
        elif not as_json:
            facts["devices"] = "shown with --devices"
        cards = {name: read_card(name) for name in list_pretrained()}
        facts["weights"] = {
            name: {"figures": card.figures, "license": card.license} for name, card in cards.items()
        }
        trained = {name: _trained(recipe) for name, recipe in RECIPES.items()}
        facts["recipes"] = list(RECIPES) if as_json else trained
    if as_json:
        console.print_json(facts)
    elif weights is not None:
        console.print_card(facts)
    else:
        facts["weights"] = console.in_percent(facts["weights"])
        console.print_facts(facts)


def _trained(recipe: "Recipe") -> str:
    """What a recipe trains: the kind, and the network if the recipe chooses one."""
    network = getattr(recipe, "network", None)
    return f"{recipe.kind}, {network}" if network else recipe.kind


def _versions() -> dict[str, Any]:
    """The installed versions, read without importing the packages."""
    import platform
    from importlib import metadata

    versions = {"unpool": unpool.__version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "opencv-contrib-python-headless", "pillow"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name.partition("-")[0]] = metadata.version(name)
    return versions | {"machine": platform.machine()}


def _devices() -> dict[str, Any]:
    """The devices. This imports torch, which takes a second or two."""
    import torch

    from unpool.devices import bf16_pays

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return {
        "threads": torch.get_num_threads(),
        "devices": devices,
        "bf16": [device for device in devices if bf16_pays(torch.device(device))],
    }
