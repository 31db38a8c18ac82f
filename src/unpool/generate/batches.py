"""What a network that draws learns from: rendered views, and the same changed by chance."""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unpool import distributed
from unpool.data.crops import in_turn
from unpool.errors import DataError
from unpool.generate.transformations import Ranges, random_transformations, spread_at
from unpool.models import encode_view
from unpool.recipes import GenerationRecipe
from unpool.rendering.dataset import AZIMUTHS, Chairs, read_views


class Views(NamedTuple):
    """Images of known styles from known views, all in memory."""

    images: NDArray[np.uint8]  #: (N, S, S, 4) RGBA, straight color, the mask as alpha
    styles: NDArray[np.int64]  #: (N,)
    azimuths: NDArray[np.float64]  #: (N,) degrees
    elevations: NDArray[np.float64]  #: (N,) degrees

    def take(self, chosen: NDArray[np.int64]) -> "Views":
        """Some of them, by number."""
        images, styles, azimuths, elevations = self
        return Views(images[chosen], styles[chosen], azimuths[chosen], elevations[chosen])


class Lesson(NamedTuple):
    """What one pass of the network learns from."""

    views: Views
    vectors: Tensor  #: of the transformations, (N, 28)


def load_views(
    chairs: Chairs, size: int, progress: Callable[[int, int], object] | None = None
) -> Views:
    """Read all views of a folder at one size; `progress` as of `read_views`."""
    images = read_views(chairs, size, progress=progress)
    styles, azimuths, elevations = (
        np.array([getattr(view, name) for view in chairs.views])
        for name in ("style", "azimuth", "elevation")
    )
    return Views(images, styles, azimuths, elevations)


def split_views(
    chairs: Chairs, held_out: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the views to learn from, and of those at azimuths that are held out.

    Raises:
        DataError: one of the two has none, where some are to be held out.
    """
    azimuths = {AZIMUTHS[number] for number in held_out}
    away = np.array([view.azimuth in azimuths for view in chairs.views])
    learned, held = np.flatnonzero(~away), np.flatnonzero(away)
    if not len(learned) or (held_out and not len(held)):
        raise DataError(
            f"got {chairs.root} with {len(held)} of {len(away)} views at the azimuths to hold out; "
            "wanted some of these and some others: render all azimuths, or set held_out"
        )
    return learned, held


def lessons(
    views: Views, learned: NDArray[np.int64], recipe: GenerationRecipe, size: int, start: int = 0
) -> Iterator[Lesson]:
    """Endless parts of batches; each view comes once before any comes again.

    Part n depends on nothing but n: a run resumed at n sees what the uninterrupted one saw, and the
    processes of a run see together what a single one would see.

    Args:
        views: all there are.
        learned: numbers of those to learn from.
        recipe: its batch, its seed and what it says about transformations count.
        size: N, of a part; it divides the batch.
        start: number of the first part.
    """
    ranges = Ranges(*(getattr(recipe, name) for name in Ranges._fields))
    for n in itertools.count(start + distributed.rank(), distributed.world()):
        step, part = divmod(n, recipe.batch // size)
        chance = torch.Generator().manual_seed(recipe.seed + 1_000_003 * (step + 1))
        spread = spread_at(step, *recipe.spread, recipe.gamma)
        vectors = random_transformations(recipe.batch, spread, ranges, recipe.inside, chance)
        vectors[torch.rand(recipe.batch, generator=chance) < recipe.plain] = 0
        places = range(n * size, (n + 1) * size)
        chosen = learned[[in_turn(place, len(learned), recipe.seed) for place in places]]
        yield Lesson(views.take(chosen), vectors[part * size :][:size])


def codes(views: Views, styles: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Styles (N, K) and views (N, 4) as the network takes them."""
    style = F.one_hot(torch.from_numpy(views.styles), styles).float()
    view = encode_view(torch.from_numpy(views.azimuths), torch.from_numpy(views.elevations))
    return style.to(device), view.to(device)


def as_targets(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """RGB times the mask, and the mask, (N, 4, S, S) fp32, of (N, S, S, 4) uint8."""
    x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    return torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1)
