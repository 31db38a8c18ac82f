"""What a network is compared with: views that were never seen, made from those that were."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.errors import OptionError, ShapeError
from unpool.generate.codes import Style
from unpool.generate.generator import Generator
from unpool.generate.result import clipped
from unpool.rendering.dataset import Chairs, View
from unpool.vision.figures import mosaic

Array = NDArray[np.float32]


class Comparison(NamedTuple):
    """Held-out views, drawn by a network and made by baselines; each image is (S, S, 4)."""

    views: list[int]  #: numbers among `Chairs.views`
    truth: Array  #: (V, S, S, 4) RGB inside the mask, and the mask
    images: dict[str, Array]  #: by way: "network", "blending", "nearest"; likewise

    def mse(self, *, inside: bool = False) -> dict[str, float]:
        """The mean over the views of `errors`, by way."""
        each = {way: errors(p, self.truth, inside=inside) for way, p in self.images.items()}
        return {way: float(found.mean()) for way, found in each.items()}

    def better(self) -> dict[str, float]:
        """The fraction of the views on which the network's error is lower than that of a way."""
        each = {way: errors(p, self.truth) for way, p in self.images.items()}
        network = each.pop("network")
        return {way: float((network < found).mean()) for way, found in each.items()}

    def sheet(self, most: int = 8) -> NDArray[np.uint8]:
        """Some views on white, a column each: the truth, and below it each way; (H, W, 3) RGB."""
        chosen = np.linspace(0, len(self.views) - 1, min(most, len(self.views))).astype(int)
        tiles = np.concatenate([p[chosen] for p in (self.truth, *self.images.values())])
        on_white = (tiles[..., :3] + 1 - tiles[..., 3:]).clip(0, 1)
        return mosaic(np.rint(on_white * 255).astype(np.uint8), len(chosen))


def premultiplied(images: NDArray[np.uint8]) -> Array:
    """RGBA of 0 to 255 as RGB inside the mask, and the mask, both of 0 to 1: what networks learn.

    Args:
        images: (N, S, S, 4) uint8.

    Returns:
        (N, S, S, 4) float32.

    >>> premultiplied(np.array([[[[255, 0, 0, 51]]]], np.uint8)).round(2).tolist()
    [[[[0.20000000298023224, 0.0, 0.0, 0.20000000298023224]]]]
    """
    values: Array = images.astype(np.float32) / np.float32(255)
    values[..., :3] *= values[..., 3:]
    return values


def draw_views(
    generator: Generator,
    styles: Sequence[Style],
    azimuths: Sequence[float],
    elevations: Sequence[float],
) -> Array:
    """Draw views as they are compared: as of `premultiplied`, and no color above its mask."""
    codes, _ = generator.codes(styles, azimuths, elevations)
    drawn = clipped(*generator.compute(codes)).permute(0, 2, 3, 1).numpy()
    drawn[..., :3] = np.minimum(drawn[..., :3], drawn[..., 3:])  # beyond it, little was learned
    return np.ascontiguousarray(drawn)


def errors(images: Array, truth: Array, *, inside: bool = False) -> Array:
    """The mean squared error of each image, over pixels and colors; colors inside the mask.

    Args:
        images: (N, S, S, 4), as of `premultiplied`.
        truth: likewise.
        inside: only over pixels whose true mask is a half or more.

    Returns:
        (N,) float32; 0 where no pixel counts.

    Raises:
        ShapeError: arrays of differing shapes.
    """
    if images.shape != truth.shape or truth.ndim != 4:
        raise ShapeError(f"got {images.shape} and {truth.shape}; wanted both (N, S, S, 4)")
    squares = ((images - truth)[..., :3] ** 2).mean(3)
    counted = (truth[..., 3] >= 0.5) | (not inside)
    sums = (squares * counted).sum((1, 2))
    return np.asarray(sums / np.maximum(counted.sum((1, 2)), 1), np.float32)


def nearest_view(azimuths: Sequence[float], azimuth: float) -> int:
    """Which of the views that were seen is nearest; of two as near, the first.

    >>> nearest_view([0.0, 90.0, 350.0], 340.0)
    2
    """
    distances = [abs((a - azimuth + 180) % 360 - 180) for a in azimuths]
    return int(np.argmin(np.round(distances, 6)))


def blend(images: Array, azimuths: Sequence[float], azimuth: float) -> Array:
    """Blend the two views on either side, pixel by pixel, each by how near it is.

    Args:
        images: (N, S, S, 4) of the views that were seen, as of `premultiplied`.
        azimuths: theirs, in degrees, in any order.
        azimuth: that of the view to make.

    Returns:
        (S, S, 4).

    Raises:
        OptionError: no views.

    >>> seen = np.stack([np.zeros((1, 1, 4)), np.ones((1, 1, 4))]).astype(np.float32)
    >>> blend(seen, [0.0, 40.0], 10.0)[0, 0, 0]
    np.float32(0.25)
    """
    if not len(azimuths):
        raise OptionError("got no views to blend; wanted one or more of the same elevation")
    after = [(a - azimuth) % 360 for a in azimuths]
    right = int(np.argmin(after))
    if after[right] < 1e-6:
        return np.asarray(images[right])
    before = [(azimuth - a) % 360 for a in azimuths]
    left = int(np.argmin(before))
    share = before[left] / (before[left] + after[right])
    return np.asarray((1 - share) * images[left] + share * images[right], np.float32)


def baselines(
    chairs: Chairs, images: NDArray[np.uint8], seen: Sequence[int], wanted: Sequence[int]
) -> dict[str, Array]:
    """Views made without a network, from those of the same style and elevation that were seen.

    Args:
        chairs: the folder.
        images: all its views, (N, S, S, 4) uint8, as of `read_views`.
        seen: numbers of the views that may be used.
        wanted: numbers of the views to make.

    Returns:
        "blending", the two neighbors blended by `blend`, and "nearest", the nearest view; each
        (V, S, S, 4), as of `premultiplied`.

    Raises:
        OptionError: a view of which no other of the same style and elevation was seen.
    """
    blended, nearest = [], []
    for number in wanted:
        view = chairs.views[number]
        of_it = [i for i in seen if _alike(chairs.views[i], view)]
        around, known = [chairs.views[i].azimuth for i in of_it], premultiplied(images[of_it])
        blended.append(blend(known, around, view.azimuth))
        nearest.append(known[nearest_view(around, view.azimuth)])
    return {"blending": np.stack(blended), "nearest": np.stack(nearest)}


def compare_views(
    generator: Generator, chairs: Chairs, images: NDArray[np.uint8], held_out: Sequence[int]
) -> Comparison:
    """Draw views that were not seen in training, and make them from the seen ones by baselines.

    Both see the same: of the same style and elevation, all views that are not held out.

    Args:
        generator: a network whose styles have the names of the folders.
        chairs: the folder.
        images: all its views, (N, S, S, 4) uint8, as of `read_views` at the generator's size.
        held_out: numbers of views that the network has not seen.

    Returns:
        The network's views beside the blending of the two neighbors and the nearest view.

    Raises:
        OptionError: no views held out, or a style that the network does not know.
        ShapeError: images of another number or size.

    Dosovitskiy, Springenberg, Brox 2015, section on interpolation between viewpoints.
    """
    wanted = (len(chairs.views), generator.size, generator.size, 4)
    if images.shape != wanted:
        raise ShapeError(f"got images of {images.shape}; wanted {wanted}")
    if not held_out:
        raise OptionError("got no views held out; name those that the network has not seen")
    hidden = set(held_out)
    seen = [i for i in range(len(chairs.views)) if i not in hidden]
    made = baselines(chairs, images, seen, held_out)
    chosen = [chairs.views[i] for i in held_out]
    styles = [chairs.styles[view.style] for view in chosen]
    around, above = [v.azimuth for v in chosen], [v.elevation for v in chosen]
    ways = {"network": draw_views(generator, styles, around, above), **made}
    return Comparison(list(held_out), premultiplied(images[list(held_out)]), ways)


def _alike(view: View, other: View) -> bool:
    return (view.style, view.elevation) == (other.style, other.elevation)
