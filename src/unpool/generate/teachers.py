"""Views that trained networks draw together, from which another one learns."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from unpool import parallel
from unpool.errors import WeightsError
from unpool.generate.lessons import Lesson, Views
from unpool.generate.likeness import draw
from unpool.models import GenerativeNet, load_generative
from unpool.recipes import Generation

__all__ = ["draw_together", "load_teachers", "taught"]


def load_teachers(
    recipe: Generation, styles: Sequence[str], device: torch.device
) -> list[GenerativeNet]:
    """The networks that a recipe names as teachers, in evaluation mode.

    Raises:
        WeightsError: no such weights, or of a network that draws something else.
    """
    found = []
    for name in recipe.teachers:
        net, card = load_generative(name)
        if list(card.get("styles", [])) != list(styles) or net.size != recipe.size:
            raise WeightsError(
                f"got the teacher {name}, which draws {net.styles} styles at {net.size} pixels; "
                f"wanted the {len(styles)} styles of the data, in their order, at {recipe.size}: "
                "train it on the same data"
            )
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        found.append(net.requires_grad_(False).eval())
    return found


def taught(
    stream: Iterator[Lesson],
    teachers: Sequence[GenerativeNet],
    recipe: Generation,
    elevations: tuple[float, float],
    start: int = 0,
) -> Iterator[Lesson]:
    """Lessons in which teachers draw the first views of each part, at azimuths between the true.

    The styles stay. As those of `lessons`, the parts depend on nothing but their number.

    Args:
        stream: what `lessons` gives, from the same part on; its pictures are written over.
        teachers: of `load_teachers`; their mean is drawn.
        recipe: its `taught`, its seed and its arithmetic count.
        elevations: the least and the greatest, degrees.
        start: number of the first part.
    """
    for n, lesson in zip(itertools.count(start + parallel.rank(), parallel.world()), stream):
        chance = np.random.default_rng((recipe.seed, n))
        views = lesson.views
        count = round(recipe.taught * len(views.styles))
        views.azimuths[:count] = chance.uniform(0, 360, count)
        views.elevations[:count] = chance.uniform(*elevations, count)
        if count:
            asked = views.take(np.arange(count))
            views.pictures[:count] = draw_together(teachers, asked, recipe.bf16)
        yield lesson


@torch.no_grad()
def draw_together(
    teachers: Sequence[GenerativeNet], views: Views, bf16: bool = False
) -> NDArray[np.uint8]:
    """The mean of what several networks draw of views, whose own pictures do not count.

    Returns:
        (N, S, S, 4) RGBA, straight color, the mask as alpha, as `Views` have them.
    """
    drawings = torch.stack([torch.cat(draw(net, views, bf16), 1) for net in teachers])
    mean = drawings.mean(0)
    colors, mask = mean[:, :3], mean[:, 3:]
    straight = (colors / mask.clamp_min(1 / 255)).clamp_max(1)  # drawn colors are times the mask
    rgba = torch.cat([straight, mask], 1).mul(255).round().byte()
    return np.asarray(rgba.permute(0, 2, 3, 1).cpu().numpy())
