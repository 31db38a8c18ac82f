"""Transformations of an image and its mask, as a vector that a network is told.

The vector has the 28 numbers of the authors' augmentation layer, of which nine are in use. Each is
the coefficient itself where that is 0 for no change, and its logarithm where it is 1; so that no
transformation is the zero vector.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from unpool.errors import OptionError, ShapeError

LENGTH = 28
"""Numbers of an encoded transformation."""

_PLACES = (1, 2, 3, 4, 5, 22, 23, 26, 27)  #: of the nine that are in use, from 0
_NAMES = (
    "shift",
    "shift",
    "angle",
    "zoom",
    "zoom",
    "saturation",
    "saturation",
    "brightness",
    "hue",
)
_LOGARITHMIC = (False, False, False, True, True, True, True, True, False)
_TRIES = 20

_EIGEN = ((0.51, 0.56, 0.65), (0.79, 0.01, -0.62), (0.35, -0.83, 0.44))  #: of colors, as published
_LARGEST = tuple(max(sum(v for v in row if s * v > 0) * s for s in (1, -1)) for row in _EIGEN)


class Transformation(NamedTuple):
    """What is done to an image; the defaults do nothing.

    A place of the new image, seen from the center, is turned by `angle`, moved by `dx` and `dy`,
    and divided by the zooms: there lies what is shown at it. A positive `dx` therefore moves the
    image to the left, and a positive `angle` turns it counterclockwise.

    >>> Transformation(dx=0.1).encode().count_nonzero()
    tensor(1)
    """

    dx: float = 0.0  #: part of the side
    dy: float = 0.0  #: part of the side, downwards
    angle: float = 0.0  #: radians
    zoom_x: float = 1.0
    zoom_y: float = 1.0
    saturation_1: float = 1.0  #: of the colors between orange and blue
    saturation_2: float = 1.0  #: of those between purple and green; equal to the other as published
    brightness: float = 1.0
    hue: float = 0.0  #: radians by which colors are turned

    def encode(self) -> Tensor:
        """The vector of the transformation, (28,) fp32.

        Raises:
            OptionError: a zoom, saturation or brightness that is not above 0.
        """
        for name, value, log in zip(self._fields, self, _LOGARITHMIC, strict=True):
            if log and not value > 0:
                raise OptionError(f"got {name}={value} in a transformation; wanted more than 0")
        values = [math.log(v) if log else v for v, log in zip(self, _LOGARITHMIC, strict=True)]
        vector = torch.zeros(LENGTH)
        vector[list(_PLACES)] = torch.tensor(values)
        return vector

    @classmethod
    def decode(cls, vector: Tensor) -> "Transformation":
        """The transformation of a vector (28,); its other numbers are passed over."""
        return cls(*_coefficients(vector[None])[0].tolist())


class Ranges(NamedTuple):
    """From what transformations are drawn, uniformly; each is a largest change, + or -.

    Those of zoom, squeeze, brightness and saturation are of logarithms.
    """

    translate: float = 0.1  #: part of the side
    rotate: float = 0.2  #: radians
    zoom: float = 0.3
    zoom_mean: float = 0.0
    squeeze: float = 0.1  #: stretches one axis and shrinks the other
    brightness: float = 0.7
    saturation: float = 0.7
    hue: float = 1.5  #: radians


def beyond(vector: Tensor, ranges: Ranges) -> list[str]:
    """What of an encoded transformation (28,) `draw_transformations` never draws, in words.

    >>> beyond(Transformation(angle=0.5).encode(), Ranges())
    ['angle 0.5 is beyond the -0.2 to 0.2']
    """
    zooms = ranges.zoom + ranges.squeeze
    largest = (
        *[ranges.translate] * 2,
        ranges.rotate,
        *[zooms] * 2,
        *[ranges.saturation] * 2,
        ranges.brightness,
        ranges.hue,
    )
    told: dict[str, None] = {}
    for i, (name, most) in enumerate(zip(_NAMES, largest, strict=True)):
        middle, value = ranges.zoom_mean if name == "zoom" else 0.0, float(vector[_PLACES[i]])
        if abs(value - middle) > most + 1e-6 and value != 0:
            told[f"{name} {value:.2g} is beyond the {middle - most:.2g} to {middle + most:.2g}"] = (
                None
            )
    return list(told)


def spread_at(step: int, initial: float, final: float, gamma: float) -> float:
    """How far the ranges reach at a step of a training run: from `initial` slowly to `final`.

    >>> spread_at(0, 0.2, 1.0, 1e-5), round(spread_at(300_000, 0.2, 1.0, 1e-5), 2)
    (0.2, 0.92)
    """
    return initial + (final - initial) * (2 / (1 + math.exp(-gamma * step)) - 1)


def draw_transformations(
    count: int,
    spread: float,
    ranges: Ranges = Ranges(),  # noqa: B008  it is frozen
    inside: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw random transformations.

    Args:
        count: N.
        spread: factor of the ranges, 0 to 1; see `spread_at`.
        ranges: from which is drawn.
        inside: nothing may be shown that lies outside the old image: what moves a corner out is
            drawn again, up to 20 times; then the place is not changed, but colors are. Images are
            therefore hardly ever made smaller.
        generator: of chance.

    Returns:
        Their vectors, (N, 28).
    """

    def uniform(*shape: int) -> Tensor:
        return spread * (2 * torch.rand(*shape, generator=generator) - 1)

    move = uniform(_TRIES, count, 2) * ranges.translate
    angle = uniform(_TRIES, count, 1) * ranges.rotate
    zoom = uniform(_TRIES, count, 1) * ranges.zoom + ranges.zoom_mean
    squeeze = uniform(_TRIES, count, 1) * ranges.squeeze
    tries = torch.cat([move, angle, zoom + squeeze, zoom - squeeze], 2)
    place = torch.zeros(count, 5)
    for one in reversed(tries):  # the first that fits counts
        fits = _inside(one) if inside else torch.ones(count, dtype=torch.bool)
        place = torch.where(fits[:, None], one, place)
    saturation = uniform(count, 1) * ranges.saturation
    brightness, hue = uniform(count, 1) * ranges.brightness, uniform(count, 1) * ranges.hue
    vectors = torch.zeros(count, LENGTH)
    live = torch.cat([place, saturation, saturation, brightness, hue], 1)
    vectors[:, list(_PLACES)] = live
    return vectors


def transform(images: Tensor, vectors: Tensor) -> Tensor:
    """Apply transformations to images and masks.

    Space: see `Transformation`; values are interpolated bilinearly, and zero outside. Color, of RGB
    alone: in the basis of the published eigenvectors the second and third component are turned by
    `hue` and scaled by the saturations, whereby the length of the vector stays, and that is scaled
    by `brightness`.

    Args:
        images: (N, 4, S, S) fp32, 0 to 1: RGB times the mask, and the mask.
        vectors: (N, 28), on the same device.

    Returns:
        (N, 4, S, S): the same of the changed image; no channel is above its mask.

    Raises:
        ShapeError: other shapes.

    The authors' data augmentation layer. It measures components by the largest of a batch; here
    that is the largest there can be, so that an image does not depend on its batch.
    """
    if images.dim() != 4 or images.shape[1] != 4 or vectors.shape != (len(images), LENGTH):
        raise ShapeError(
            f"got images of {tuple(images.shape)} and vectors of {tuple(vectors.shape)}; "
            f"wanted (N, 4, S, S) and (N, {LENGTH})"
        )
    live = _coefficients(vectors)
    grid = F.affine_grid(_matrices(live), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, align_corners=False)
    rgb, mask = moved[:, :3], moved[:, 3:]
    changed = _recolor(rgb, live[:, 5:])
    return torch.cat([torch.minimum(changed.clamp_min(0), mask), mask], 1)


def _coefficients(vectors: Tensor) -> Tensor:
    """The nine numbers of each vector, (N, 9), as in `Transformation`."""
    live = vectors[:, list(_PLACES)]
    return torch.where(torch.tensor(_LOGARITHMIC, device=live.device), live.exp(), live)


def _matrices(live: Tensor) -> Tensor:
    """Where a place of the new image lies in the old one, (N, 2, 3); sides are -1 to 1."""
    dx, dy, angle, zoom_x, zoom_y = live[:, :5].unbind(1)
    cos, sin = angle.cos(), angle.sin()
    rows = (
        torch.stack([cos, -sin, 2 * dx], 1) / zoom_x[:, None],
        torch.stack([sin, cos, 2 * dy], 1) / zoom_y[:, None],
    )
    return torch.stack(rows, 1)


def _inside(place: Tensor) -> Tensor:
    """Whether all four corners lie in the old image, for (N, 5) encoded."""
    live = torch.cat([place[:, :3], place[:, 3:].exp()], 1)
    corners = torch.tensor([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)]).T
    return (_matrices(live) @ corners).abs().flatten(1).amax(1) <= 1


def _recolor(rgb: Tensor, live: Tensor) -> Tensor:
    """Colors (N, 3, S, S) changed by two saturations, brightness and hue (N, 4); not yet cut."""
    basis = rgb.new_tensor(_EIGEN)
    first, second, brightness, hue = (v[:, None, None] for v in live.unbind(1))
    e0, e1, e2 = torch.einsum("ij,njhw->nihw", basis, rgb).unbind(1)
    a, b = e1 / _LARGEST[1], e2 / _LARGEST[2]
    e1 = (hue.cos() * a - hue.sin() * b) * _LARGEST[1]
    e2 = (hue.sin() * a + hue.cos() * b) * _LARGEST[2]
    length = _norm(e0, e1, e2)
    e1, e2 = e1 * first, e2 * second
    scale = brightness * length / _norm(e0, e1, e2).clamp_min(1e-6)
    eigen = torch.stack([e0 * scale, e1 * scale, e2 * scale], 1)
    return torch.einsum("ij,njhw->nihw", torch.linalg.inv(basis), eigen)


def _norm(*parts: Tensor) -> Tensor:
    return torch.stack(parts).square().sum(0).sqrt()
