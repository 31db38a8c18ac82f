"""Views that trained networks draw together, from which another one learns."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unpool import distributed
from unpool.cards import read_card
from unpool.errors import WeightsError
from unpool.generate.batches import Lesson, Views
from unpool.generate.evaluate import generate
from unpool.generate.generator import Generator
from unpool.models.generator import GenerativeNet
from unpool.recipes import RECIPES, GenerationRecipe


def load_teachers(
    recipe: GenerationRecipe, styles: Sequence[str], device: torch.device
) -> list[GenerativeNet]:
    """The networks that a recipe names as teachers, in evaluation mode.

    Raises:
        WeightsError: no such weights, of a network that draws something else, or that may have
            learned from views that are to be held out.
    """
    found = []
    for name in recipe.teachers:
        saved = load_previous(recipe, "teachers", name)
        if saved.size != recipe.size:
            raise WeightsError(
                f"got the teacher {name}, which draws {saved.size} pixels; wanted "
                f"{recipe.size}: set size={saved.size}, or take another"
            )
        pairs = itertools.zip_longest(saved.styles, styles, fillvalue="nothing")
        if other := next((f"{a} in place of {b}" for a, b in pairs if a != b), None):
            raise WeightsError(
                f"got the teacher {name}, which draws {other}; wanted the {len(styles)} styles of "
                "the data, in their order: train it on the same data"
            )
        saved.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        found.append(saved.model.requires_grad_(False).eval())
    return found


def taught(
    stream: Iterator[Lesson],
    teachers: Sequence[GenerativeNet],
    recipe: GenerationRecipe,
    size: int,
    elevations: tuple[float, float],
    start: int = 0,
) -> Iterator[Lesson]:
    """Lessons in which teachers draw the first views of each batch, at azimuths all around.

    The styles stay, and so do the transformations. As those of `lessons`, the parts depend on
    nothing but their number, and together are what a whole batch is.

    Args:
        stream: what `lessons` gives, from the same part on; its images are written over.
        teachers: of `load_teachers`; their mean is drawn.
        recipe: its fraction of the teachers, its batch, its seed and its arithmetic count.
        size: N, of a part.
        elevations: the least and the greatest to be drawn, degrees.
        start: number of the first part.
    """
    count = round(recipe.teachers_fraction * recipe.batch)
    for n, lesson in zip(itertools.count(start + distributed.rank(), distributed.world()), stream):
        step, part = divmod(n, recipe.batch // size)
        chance = np.random.default_rng((recipe.seed, step))
        azimuths, heights = chance.uniform(0, 360, count), chance.uniform(*elevations, count)
        drawn = slice(part * size, (part + 1) * size)
        if number := len(azimuths[drawn]):
            views = lesson.views
            views.azimuths[:number], views.elevations[:number] = azimuths[drawn], heights[drawn]
            asked = views.take(np.arange(number))
            views.images[:number] = draw_together(teachers, asked, recipe.bf16)
        yield lesson


@torch.no_grad()
def draw_together(
    teachers: Sequence[GenerativeNet], views: Views, bf16: bool = False
) -> NDArray[np.uint8]:
    """The mean of what several networks draw of views, whose own images do not count.

    Returns:
        (N, S, S, 4) RGBA: the mask as alpha, and colors of which `as_targets` makes the drawn ones
        again, cut to the mask.
    """
    drawings = torch.stack([torch.cat(generate(net, views, bf16), 1) for net in teachers])
    mean = drawings.mean(0)
    colors, mask = mean[:, :3], mean[:, 3:]
    straight = (colors / mask.clamp_min(1 / 255)).clamp_max(1)
    rgba = torch.cat([straight, mask], 1).mul(255).round().byte()
    return np.asarray(rgba.permute(0, 2, 3, 1).cpu().numpy())


def load_previous(recipe: GenerationRecipe, field: str, source: str) -> Generator:
    """Load weights that a recipe needs, for a warm start or as a teacher.

    Args:
        recipe: of the training run.
        field: "start" or "teachers".
        source: a value of this field.

    Raises:
        WeightsError: as for `Generator.from_pretrained`; or weights whose training may have
            included views that the recipe holds out.
    """
    try:
        found = Generator.from_pretrained(source, device="cpu")
    except WeightsError as error:
        run = Path(source).parent
        known = run.name in RECIPES and not Path(source).exists()
        first = f"train the recipe {run.name} into {run} first, or " if known else ""
        cure = "start='FOLDER'" if field == "start" else 'teachers=["FOLDER"]'
        raise WeightsError(
            f"{field} of the recipe {recipe.name}: {error}; {first}set {cure}"
        ) from None
    before = read_card(source).get("recipe")
    held = before.get("held_out") if isinstance(before, dict) else None
    seen = [n for n in recipe.held_out if not isinstance(held, list) or n not in held]
    if seen:
        raise WeightsError(
            f"{field} of the recipe {recipe.name}: {source} may have been trained on the azimuths "
            f"{seen}, which are to be held out; use weights with the same held_out, or set "
            "held_out=[]"
        )
    return found
