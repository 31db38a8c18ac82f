"""Training batches for the generator: rendered views with random transformations."""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unpool import Progress, distributed
from unpool.errors import DataError
from unpool.generate.transformations import Ranges, random_transformations, spread_at
from unpool.models.generator import encode_view
from unpool.rendering.dataset import AZIMUTHS, Chairs, read_views

if TYPE_CHECKING:
    from unpool.recipes.generate import GenerationRecipe


class Views(NamedTuple):
    """Rendered images with their styles and views, in memory."""

    images: NDArray[np.uint8]  #: (N, S, S, 4) RGBA, not premultiplied; alpha is the mask
    styles: NDArray[np.int64]  #: (N,)
    azimuths: NDArray[np.float64]  #: (N,) degrees
    elevations: NDArray[np.float64]  #: (N,) degrees

    def take(self, chosen: NDArray[np.int64]) -> "Views":
        """The views with the given indices."""
        images, styles, azimuths, elevations = self
        return Views(images[chosen], styles[chosen], azimuths[chosen], elevations[chosen])


class ViewBatch(NamedTuple):
    """The input of one forward pass in training."""

    views: Views
    vectors: Tensor  #: transformations, (N, 28)


def load_views(chairs: Chairs, size: int, progress: Progress | None = None) -> Views:
    """Read all views of a folder at one size in pixels."""
    show = None if progress is None else lambda done, all_: progress(done, all_, "reading views")
    images = read_views(chairs, size, progress=show)
    styles, azimuths, elevations = map(np.array, zip(*(v[:3] for v in chairs.views), strict=True))
    return Views(images, styles, azimuths, elevations)


def split_views(
    chairs: Chairs, held_out: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices of the training views, and of those at held-out azimuths.

    Raises:
        DataError: no training views, or no views at the held-out azimuths.
    """
    azimuths = {AZIMUTHS[number] for number in held_out}
    away = np.array([view.azimuth in azimuths for view in chairs.views])
    seen, unseen = np.flatnonzero(~away), np.flatnonzero(away)
    if not len(seen) or (held_out and not len(unseen)):
        got = f"{chairs.root} with {len(unseen)} of {len(away)} views at held-out azimuths"
        cure = "wanted some of these and some others: render all azimuths, or set held_out"
        raise DataError(f"got {got}; {cure}")
    return seen, unseen


def view_batches(
    views: Views, seen: NDArray[np.int64], recipe: "GenerationRecipe", size: int, start: int = 0
) -> Iterator[ViewBatch]:
    """Endless parts of batches; every view is used once before any is repeated.

    Part n depends only on n, so that a resumed run gets the same parts, and several processes
    together get the parts of a single one.

    Args:
        seen: indices of the training views.
        size: N, of a part; it divides the batch.
        start: number of the first part.
    """
    ranges = Ranges(*(getattr(recipe, name) for name in Ranges._fields))
    for n in itertools.count(start + distributed.rank(), distributed.world()):
        step, part = divmod(n, recipe.batch // size)
        # a prime factor keeps the steps of runs with neighboring seeds apart
        rng = torch.Generator().manual_seed(recipe.seed + 1_000_003 * (step + 1))
        spread = spread_at(step, *recipe.spread, recipe.gamma)
        vectors = random_transformations(recipe.batch, spread, ranges, recipe.inside, rng)
        vectors[torch.rand(recipe.batch, generator=rng) < recipe.plain] = 0
        places = range(n * size, (n + 1) * size)
        chosen = seen[[distributed.sample_index(i, len(seen), recipe.seed) for i in places]]
        yield ViewBatch(views.take(chosen), vectors[part * size :][:size])


def codes(views: Views, styles: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The network's inputs: one-hot styles (N, K), and views (N, 4)."""
    style = F.one_hot(torch.from_numpy(views.styles), styles).float()
    view = encode_view(torch.from_numpy(views.azimuths), torch.from_numpy(views.elevations))
    return style.to(device), view.to(device)


def as_targets(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Targets (N, 4, S, S) fp32, RGB times mask and mask, of images (N, S, S, 4) uint8 RGBA."""
    x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    return torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1)
