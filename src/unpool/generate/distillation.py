"""Distillation: train a generator on the averaged output of others."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from unpool import distributed
from unpool.cards import read_card
from unpool.errors import WeightsError
from unpool.generate.evaluate import generate
from unpool.generate.generator import Generator
from unpool.recipes import RECIPES, GenerationRecipe

if TYPE_CHECKING:
    from unpool.generate.batches import ViewBatch, Views
    from unpool.models.generator import GenerativeNet


def load_teachers(
    recipe: GenerationRecipe, styles: Sequence[str], device: torch.device
) -> list["GenerativeNet"]:
    """The networks that a recipe names as teachers, in evaluation mode.

    Raises:
        WeightsError: no such weights, of another size or other styles, or that may have been
            trained on held-out views.
    """
    found = []
    for name in recipe.teachers:
        saved = load_previous(recipe, "teachers", name)
        if saved.size != recipe.size:
            got = f"got the teacher {name}, which generates {saved.size} pixels"
            cure = f"set size={saved.size}, or use another teacher"
            raise WeightsError(f"{got}; wanted {recipe.size}: {cure}")
        pairs = itertools.zip_longest(saved.styles, styles, fillvalue="nothing")
        if other := next((f"{a} in place of {b}" for a, b in pairs if a != b), None):
            wanted = f"wanted the {len(styles)} styles of the data, in their order"
            raise WeightsError(f"got the teacher {name}, which generates {other}; {wanted}")
        saved.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        found.append(saved.model.requires_grad_(False).eval())
    return found


def distill(
    stream: Iterator["ViewBatch"],
    teachers: Sequence["GenerativeNet"],
    recipe: GenerationRecipe,
    size: int,
    elevations: tuple[float, float],
    start: int = 0,
) -> Iterator["ViewBatch"]:
    """Replace the first views of every batch by the teachers' output at random azimuths.

    Styles and transformations stay. Like those of `view_batches`, parts depend only on their
    number.

    Args:
        stream: the result of `view_batches` with the same start; its images are overwritten.
        teachers: see `load_teachers`; their output is averaged.
        size: N, of a part.
        elevations: smallest and largest random elevation, degrees.
        start: number of the first part.
    """
    count = round(recipe.teacher_fraction * recipe.batch)
    for n, batch in zip(itertools.count(start + distributed.rank(), distributed.world()), stream):
        step, part = divmod(n, recipe.batch // size)
        rng = np.random.default_rng((recipe.seed, step))
        azimuths, heights = rng.uniform(0, 360, count), rng.uniform(*elevations, count)
        own = slice(part * size, (part + 1) * size)
        if number := len(azimuths[own]):
            views = batch.views
            views.azimuths[:number], views.elevations[:number] = azimuths[own], heights[own]
            taught = views.take(np.arange(number))
            views.images[:number] = average_output(teachers, taught, recipe.bf16)
        yield batch


@torch.no_grad()
def average_output(
    teachers: Sequence["GenerativeNet"], views: "Views", bf16: bool = False
) -> NDArray[np.uint8]:
    """The mean of the networks' output for some views, whose own images are ignored.

    Returns:
        (N, S, S, 4) RGBA; alpha is the mask, and the colors are divided by it, so that
        `as_targets` gives the mean colors inside the mask.
    """
    mean = torch.stack([torch.cat(generate(net, views, bf16), 1) for net in teachers]).mean(0)
    colors, mask = mean[:, :3], mean[:, 3:]
    straight = (colors / mask.clamp_min(1 / 255)).clamp_max(1)  # not premultiplied, as in files
    rgba = torch.cat([straight, mask], 1).mul(255).round().byte()
    return np.asarray(rgba.permute(0, 2, 3, 1).cpu().numpy())


def load_previous(recipe: GenerationRecipe, field: str, source: str) -> Generator:
    """Load weights that a recipe needs: `source` is a value of its field "start" or "teachers".

    Raises:
        WeightsError: as for `Generator.from_pretrained`; or weights whose training may have
            included views that the recipe holds out.
    """
    where = f"{field} of the recipe {recipe.name}"
    try:
        found = Generator.from_pretrained(source, device="cpu")
    except WeightsError as error:
        run = Path(source).parent
        known = run.name in RECIPES and not Path(source).exists()
        first = f"train the recipe {run.name} into {run} first, or " if known else ""
        cure = "start='FOLDER'" if field == "start" else 'teachers=["FOLDER"]'
        raise WeightsError(f"{where}: {error}; {first}set {cure}") from None
    unseen = read_card(source).held_out
    if seen := [n for n in recipe.held_out if n not in unseen]:
        cure = "which are to be held out; use weights with the same held_out, or set held_out=[]"
        got = f"{source} may have been trained on the azimuths {seen}"
        raise WeightsError(f"{where}: {got}, {cure}")
    return found
