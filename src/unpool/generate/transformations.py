"""Transformations of an image and its mask, and their encoding as inputs of the network.

The encoding has the 28 numbers of the authors' augmentation layer, of which nine are used. Each is
the coefficient itself if its identity is 0, and its logarithm if its identity is 1, so that the
identity is the zero vector.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from unpool.errors import OptionError, ShapeError

LENGTH = 28
"""Numbers in an encoded transformation."""

_INDICES = (1, 2, 3, 4, 5, 22, 23, 26, 27)  # of the nine that are used
_NAMES = (*["shift"] * 2, "angle", *["zoom"] * 2, *["saturation"] * 2, "brightness", "hue")
_LOGARITHMIC = (False, False, False, True, True, True, True, True, False)
_TRIES = 20

# eigenvectors of the colors, as published: about gray, orange to blue, and purple to green
_EIGEN = ((0.51, 0.56, 0.65), (0.79, 0.01, -0.62), (0.35, -0.83, 0.44))
# the largest possible component along each, for colors 0 to 1
_LARGEST = tuple(max(sum(v for v in row if s * v > 0) * s for s in (1, -1)) for row in _EIGEN)


class Transformation(NamedTuple):
    """A transformation of an image; the defaults are the identity.

    A pixel of the output, relative to the center, shows the input at its position rotated by
    `angle`, moved by `dx` and `dy`, and divided by the zooms. A positive `dx` therefore moves the
    image to the left, and a positive `angle` rotates it counterclockwise.

    >>> Transformation(dx=0.1).encode().count_nonzero()
    tensor(1)
    """

    dx: float = 0.0  #: fraction of the side
    dy: float = 0.0  #: fraction of the side, downwards
    angle: float = 0.0  #: radians
    zoom_x: float = 1.0
    zoom_y: float = 1.0
    saturation_1: float = 1.0  #: between orange and blue
    saturation_2: float = 1.0  #: between purple and green; equal to the other as published
    brightness: float = 1.0
    hue: float = 0.0  #: radians by which hues are rotated

    def encode(self) -> Tensor:
        """The encoding of the transformation, (28,) fp32.

        Raises:
            OptionError: a zoom, saturation or brightness that is not positive.
        """
        vector = torch.zeros(LENGTH)
        for i, name, value, log in zip(_INDICES, self._fields, self, _LOGARITHMIC, strict=True):
            if log and not value > 0:
                raise OptionError(f"got {name}={value} in a transformation; wanted more than 0")
            vector[i] = math.log(value) if log else value
        return vector

    @classmethod
    def decode(cls, vector: Tensor) -> "Transformation":
        """The transformation of an encoding (28,); its unused numbers are ignored."""
        return cls(*_coefficients(vector[None])[0].tolist())


class Ranges(NamedTuple):
    """Ranges of random transformations: the largest change in either direction.

    Those of zoom, squeeze, brightness and saturation are of logarithms. Samples are uniform.
    """

    translate: float = 0.1  #: fraction of the side
    rotate: float = 0.2  #: radians
    zoom: float = 0.3
    zoom_mean: float = 0.0
    squeeze: float = 0.1  #: stretch of one axis and shrinkage of the other
    brightness: float = 0.7
    saturation: float = 0.7
    hue: float = 1.5  #: radians


def out_of_range(vector: Tensor, ranges: Ranges) -> list[str]:
    """Describe where an encoded transformation (28,) exceeds the ranges.

    >>> out_of_range(Transformation(angle=0.5).encode(), Ranges())
    ['angle 0.5 is beyond the -0.2 to 0.2']
    """
    largest = {
        "shift": ranges.translate,
        "angle": ranges.rotate,
        "zoom": ranges.zoom + ranges.squeeze,
        "saturation": ranges.saturation,
        "brightness": ranges.brightness,
        "hue": ranges.hue,
    }
    notes = []
    for name, value in zip(_NAMES, vector[list(_INDICES)].tolist(), strict=True):
        most, middle = largest[name], ranges.zoom_mean if name == "zoom" else 0.0
        if abs(value - middle) > most + 1e-6 and value != 0:
            low, high = middle - most, middle + most
            notes.append(f"{name} {value:.2g} is beyond the {low:.2g} to {high:.2g}")
    return list(dict.fromkeys(notes))  # both axes may give the same


def spread_at(step: int, initial: float, final: float, gamma: float) -> float:
    """The factor of the ranges at a step of a training run, rising from `initial` to `final`.

    >>> spread_at(0, 0.2, 1.0, 1e-5), round(spread_at(300_000, 0.2, 1.0, 1e-5), 2)
    (0.2, 0.92)
    """
    return initial + (final - initial) * (2 / (1 + math.exp(-gamma * step)) - 1)


def random_transformations(
    count: int,
    spread: float,
    ranges: Ranges = Ranges(),  # noqa: B008  it is frozen
    inside: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample random transformations.

    Args:
        count: N.
        spread: factor of the ranges, 0 to 1; see `spread_at`.
        inside: show nothing outside the input: samples that move a corner out are rejected, and
            after 20 rejections only the colors change. Images therefore hardly ever shrink.

    Returns:
        Encodings, (N, 28).
    """

    def uniform(*shape: int) -> Tensor:
        return spread * (2 * torch.rand(*shape, generator=generator) - 1)

    move = uniform(_TRIES, count, 2) * ranges.translate
    angle = uniform(_TRIES, count, 1) * ranges.rotate
    zoom = uniform(_TRIES, count, 1) * ranges.zoom + ranges.zoom_mean
    squeeze = uniform(_TRIES, count, 1) * ranges.squeeze
    tries = torch.cat([move, angle, zoom + squeeze, zoom - squeeze], 2)
    spatial = torch.zeros(count, 5)
    for sample in reversed(tries):  # so that the first that fits wins
        fits = _inside(sample) if inside else torch.ones(count, dtype=torch.bool)
        spatial = torch.where(fits[:, None], sample, spatial)
    saturation = uniform(count, 1) * ranges.saturation
    brightness, hue = uniform(count, 1) * ranges.brightness, uniform(count, 1) * ranges.hue
    vectors = torch.zeros(count, LENGTH)
    vectors[:, list(_INDICES)] = torch.cat([spatial, saturation, saturation, brightness, hue], 1)
    return vectors


def transform_images(images: Tensor, vectors: Tensor) -> Tensor:
    """Apply transformations to images and masks.

    Spatial: see `Transformation`; bilinear interpolation, zero outside. Color, on RGB alone: in the
    basis of the published eigenvectors, the second and third component are rotated by `hue` and
    scaled by the saturations at constant length of the vector, which is then scaled by
    `brightness`.

    Args:
        images: (N, 4, S, S) fp32, 0 to 1: RGB times the mask, and the mask.
        vectors: encodings, (N, 28), on the same device.

    Returns:
        (N, 4, S, S): likewise; no color exceeds its mask.

    Raises:
        ShapeError: other shapes.

    As the authors' data augmentation layer, which normalizes components by the largest of a batch;
    here it is the largest possible value, so that an image does not depend on its batch.
    """
    if images.dim() != 4 or images.shape[1] != 4 or vectors.shape != (len(images), LENGTH):
        got = f"images of {tuple(images.shape)} and vectors of {tuple(vectors.shape)}"
        raise ShapeError(f"got {got}; wanted (N, 4, S, S) and (N, {LENGTH})")
    used = _coefficients(vectors)
    grid = F.affine_grid(_matrices(used), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, align_corners=False)
    mask, changed = moved[:, 3:], _recolor(moved[:, :3], used[:, 5:])
    return torch.cat([torch.minimum(changed.clamp_min(0), mask), mask], 1)


def _coefficients(vectors: Tensor) -> Tensor:
    """The nine coefficients of each encoding, (N, 9), in the order of `Transformation`."""
    used = vectors[:, list(_INDICES)]
    return torch.where(torch.tensor(_LOGARITHMIC, device=used.device), used.exp(), used)


def _matrices(used: Tensor) -> Tensor:
    """Affine matrices from output to input positions, (N, 2, 3); sides are -1 to 1."""
    dx, dy, angle, zoom_x, zoom_y = used[:, :5].unbind(1)
    cos, sin = angle.cos(), angle.sin()
    first = torch.stack([cos, -sin, 2 * dx], 1) / zoom_x[:, None]
    second = torch.stack([sin, cos, 2 * dy], 1) / zoom_y[:, None]
    return torch.stack([first, second], 1)


def _inside(spatial: Tensor) -> Tensor:
    """Whether all four output corners lie in the input, for encodings (N, 5)."""
    used = torch.cat([spatial[:, :3], spatial[:, 3:].exp()], 1)
    corners = torch.tensor([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)]).T
    return (_matrices(used) @ corners).abs().flatten(1).amax(1) <= 1


def _recolor(rgb: Tensor, used: Tensor) -> Tensor:
    """Colors (N, 3, S, S) after two saturations, brightness and hue (N, 4); not yet clipped."""
    basis = rgb.new_tensor(_EIGEN)
    first, second, brightness, hue = (v[:, None, None] for v in used.unbind(1))
    e0, e1, e2 = torch.einsum("ij,njhw->nihw", basis, rgb).unbind(1)
    a, b = e1 / _LARGEST[1], e2 / _LARGEST[2]
    e1 = (hue.cos() * a - hue.sin() * b) * _LARGEST[1]
    e2 = (hue.sin() * a + hue.cos() * b) * _LARGEST[2]
    length = _norm(e0, e1, e2)  # kept by the saturations, so that they do not change brightness
    e1, e2 = e1 * first, e2 * second
    scale = brightness * length / _norm(e0, e1, e2).clamp_min(1e-6)
    eigen = torch.stack([e0 * scale, e1 * scale, e2 * scale], 1)
    return torch.einsum("ij,njhw->nihw", torch.linalg.inv(basis), eigen)


def _norm(*parts: Tensor) -> Tensor:
    return torch.stack(parts).square().sum(0).sqrt()
