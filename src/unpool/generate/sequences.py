"""Sequences of generated images: interpolated views, morphs, graded transformations."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from unpool.errors import OptionError, suggest
from unpool.generate.transformations import LENGTH

if TYPE_CHECKING:
    from unpool.generate.generator import Generator, Style
    from unpool.generate.result import GeneratedImage

T = TypeVar("T")

MORPH_FRACTIONS = (1.0, 0.65, 0.57, 0.5, 0.43, 0.35, 0.0)
"""The authors' fractions of the first style: near the middle, small steps change much."""


class Change(NamedTuple):
    """A direction of change of encoded transformations, and its range."""

    factors: tuple[tuple[int, float], ...]  #: indices among the 28 numbers, and a factor for each
    low: float  #: the authors' range, which exceeds that of training
    high: float


_LOG_ZOOM, _LOG_STRETCH = math.log(1.8), math.log(1.5)

CHANGES = {
    "translate-x": Change(((1, 1),), -0.2, 0.2),
    "translate-y": Change(((2, 1),), -0.2, 0.2),
    "angle": Change(((3, 1),), -0.5, 0.5),
    "zoom": Change(((4, 1), (5, 1)), 0.0, _LOG_ZOOM),
    "stretch": Change(((4, 1), (5, -1)), _LOG_STRETCH, -_LOG_STRETCH),
    "saturation": Change(((22, 1), (23, 1)), -5.0, 5.0),
    "brightness": Change(((26, 1),), -2.0, 2.0),
    "hue": Change(((27, 1),), -3.0, 3.0),
}
"""The authors' transformations, in encoded units: fractions of the side, radians, logarithms."""


def encode_changes(amounts: Sequence[tuple[str, float]]) -> Tensor | None:
    """The sum of several `CHANGES`, in encoded units, as the network takes it, (28,).

    None for no changes, which fits networks that take another number of values, too.

    >>> encode_changes([("angle", 0.2), ("translate-x", -0.1)])[[1, 3]]
    tensor([-0.1000,  0.2000])
    """
    if not amounts:
        return None
    encoded = torch.zeros(LENGTH)
    for name, amount in amounts:
        for index, factor in _find(name).factors:
            encoded[index] += amount * factor
    return encoded


def interpolate(
    generator: "Generator",
    style: "Style",
    azimuths: tuple[float, float] = (0.0, 0.0),
    elevations: tuple[float, float] = (20.0, 20.0),
    count: int = 7,
    *,
    transformation: Any = None,
) -> list["GeneratedImage"]:
    """Generate `count` views from one to another, both included.

    Args:
        azimuths: of the first and the last view, in degrees: 350 to 370 is the short way, 350 to 10
            the long one.
        elevations: likewise; they may lie between or beyond those of training.
        transformation: of all views, see `Generator.view`.

    Raises:
        OptionError: no such style, or fewer than two images.

    Dosovitskiy, Springenberg & Brox 2015, section "Interpolation between viewpoints".
    """
    _require_two(count)
    around, above = (
        [first + i / (count - 1) * (last - first) for i in range(count)]
        for first, last in (azimuths, elevations)
    )
    return generator.generate(style, around, above, transformation)


def turntable(
    generator: "Generator",
    style: "Style",
    elevation: float = 20.0,
    count: int = 62,
    *,
    transformation: Any = None,
) -> list["GeneratedImage"]:
    """Generate one full turn of an object, to be looped: the first view is not repeated."""
    _require_two(count)
    azimuths = [360 * i / count for i in range(count)]
    return generator.generate(style, azimuths, elevation, transformation)


def morph(
    generator: "Generator",
    first: "Style",
    last: "Style",
    fractions: Sequence[float] = MORPH_FRACTIONS,
    *,
    azimuth: float = 301.0,
    elevation: float = 20.0,
    transformation: Any = None,
) -> list["GeneratedImage"]:
    """Generate mixtures of two styles.

    Args:
        fractions: of the first style, one per image; the rest is the last style.
        azimuth, elevation: of the view, in degrees; the authors' by default.
        transformation: of all images, see `Generator.view`.

    Raises:
        OptionError: no such style.

    Dosovitskiy, Springenberg & Brox 2015, section "Interpolation between styles".
    """
    ends = generator.style_code(first), generator.style_code(last)
    mixed = [fraction * ends[0] + (1 - fraction) * ends[1] for fraction in fractions]
    return generator.generate(mixed, azimuth, elevation, transformation)


def there_and_back(images: list[T]) -> list[T]:
    """The images forward and then backward, so that they loop; neither end is repeated.

    >>> there_and_back([1, 2, 3])
    [1, 2, 3, 2]
    """
    return images + images[-2:0:-1]


def morph_fractions(count: int) -> list[float]:
    """Fractions for a smooth animated morph: from 1 to 0, slow where the authors' steps are small.

    Half of the images lie between .65 and .35, where most of the morph happens; between those, the
    fraction falls linearly.

    >>> [round(fraction, 3) for fraction in morph_fractions(5)]
    [1.0, 0.65, 0.5, 0.35, 0.0]
    """
    _require_two(count)
    fractions = np.interp(np.linspace(0, 1, count), (0, 0.25, 0.75, 1), (1, 0.65, 0.35, 0))
    return [float(fraction) for fraction in fractions]


def vary(
    generator: "Generator",
    style: "Style",
    change: str,
    count: int = 7,
    *,
    ends: tuple[float, float] | None = None,
    azimuth: float = 301.0,
    elevation: float = 20.0,
) -> list["GeneratedImage"]:
    """Generate one transformation in growing amounts, beyond the range of training.

    Args:
        change: one of `CHANGES`.
        ends: the first and last amount in encoded units; the authors' by default.

    Raises:
        OptionError: no such style or change, or fewer than two images.

    Dosovitskiy, Springenberg & Brox 2015, figure of the transformations.
    """
    encoded = [encode_changes([(change, amount)]) for amount in amounts(change, count, ends)]
    return generator.generate(style, azimuth, elevation, encoded)


def amounts(change: str, count: int, ends: tuple[float, float] | None = None) -> list[float]:
    """The amounts that `vary` uses, in encoded units.

    >>> amounts("angle", 3)
    [-0.5, 0.0, 0.5]
    """
    _require_two(count)
    low, high = ends or (_find(change).low, _find(change).high)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise OptionError(f"got {change} from {low} to {high}; wanted finite numbers")
    return [low + (high - low) * i / (count - 1) for i in range(count)]


def _find(change: str) -> Change:
    if change not in CHANGES:
        raise OptionError(f"got the change {change!r}; {suggest(change, CHANGES)}")
    return CHANGES[change]


def _require_two(count: int) -> None:
    if count < 2:
        raise OptionError(f"got count={count}; wanted 2 images or more")
