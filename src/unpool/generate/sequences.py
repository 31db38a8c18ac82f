"""Images in a row: views in between and beyond, morphs, and transformations by degrees."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unpool.errors import OptionError
from unpool.generate.codes import Style
from unpool.generate.generator import Generator
from unpool.generate.result import Drawn

MORPH = (1.0, 0.65, 0.57, 0.5, 0.43, 0.35, 0.0)
"""The authors' fractions of the first style: near the middle a little changes much."""


class Change(NamedTuple):
    """A direction in which an encoded transformation is varied."""

    numbers: tuple[tuple[int, float], ...]  #: places among the 28, from 0, and how much of each
    low: float  #: the authors' ends, beyond the range of the training
    high: float

    def encode(self, amount: float) -> Tensor:
        """The transformation as the network takes it, (28,)."""
        encoded = torch.zeros(28)
        for place, factor in self.numbers:
            encoded[place] = amount * factor
        return encoded


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


def combine(amounts: Sequence[tuple[str, float]]) -> Tensor:
    """Several of `CHANGES` at once, as the network takes them, (28,).

    Args:
        amounts: names, and how much of each in encoded units.

    Raises:
        OptionError: no such change.

    >>> combine([("angle", 0.2), ("translate-x", -0.1)])[[1, 3]]
    tensor([-0.1000,  0.2000])
    """
    encoded = torch.zeros(28)
    for name, amount in amounts:
        encoded += _find(name).encode(amount)
    return encoded


def interpolate(
    generator: Generator,
    style: Style,
    azimuths: tuple[float, float] = (0.0, 0.0),
    elevations: tuple[float, float] = (20.0, 20.0),
    count: int = 7,
) -> list[Drawn]:
    """Draw views from one to another, both included; between or beyond those of the training.

    Args:
        generator: draws.
        style: as of `Generator.view`.
        azimuths: the first and the last in degrees; from 350 to 370 is the short way, 350 to 10
            the long one.
        elevations: likewise.
        count: how many images, from 2.

    Raises:
        OptionError: no such style, or fewer than two images.

    Dosovitskiy, Springenberg, Brox 2015, section "Interpolation between viewpoints".
    """
    _require_two(count)
    places = [i / (count - 1) for i in range(count)]
    around = [azimuths[0] + t * (azimuths[1] - azimuths[0]) for t in places]
    above = [elevations[0] + t * (elevations[1] - elevations[0]) for t in places]
    return generator.draw(style, around, above)


def turn(
    generator: Generator, style: Style, elevation: float = 20.0, count: int = 62
) -> list[Drawn]:
    """Draw an object turning once, the last image just before the first comes again.

    Raises:
        OptionError: no such style, or fewer than two images.
    """
    _require_two(count)
    return generator.draw(style, [360 * i / count for i in range(count)], elevation)


def morph(
    generator: Generator,
    first: Style,
    last: Style,
    shares: Sequence[float] = MORPH,
    *,
    azimuth: float = 301.0,
    elevation: float = 20.0,
) -> list[Drawn]:
    """Draw mixtures of two styles.

    Args:
        generator: draws.
        first: a style, as of `Generator.view`.
        last: another.
        shares: of the first, one an image; the last has the rest. 1 and 0 are the styles
            themselves.
        azimuth: the view; by default the authors'.
        elevation: likewise.

    Raises:
        OptionError: no such style.

    Dosovitskiy, Springenberg, Brox 2015, section "Interpolation between styles".
    """
    ends = generator.code(first), generator.code(last)
    mixed = [share * ends[0] + (1 - share) * ends[1] for share in shares]
    return generator.draw(mixed, azimuth, elevation)


def ramp(count: int) -> list[float]:
    """Shares for a smooth animation: from 1 to 0, slow where the authors' steps are small.

    Half of the images lie between .65 and .35, where most of the morph happens, and between
    those the share falls evenly.

    Raises:
        OptionError: fewer than two.

    >>> [round(share, 3) for share in ramp(5)]
    [1.0, 0.65, 0.5, 0.35, 0.0]
    """
    _require_two(count)
    shares = np.interp(np.linspace(0, 1, count), (0, 0.25, 0.75, 1), (1, 0.65, 0.35, 0))
    return [float(share) for share in shares]


def transform(
    generator: Generator,
    style: Style,
    change: str,
    count: int = 7,
    *,
    ends: tuple[float, float] | None = None,
    azimuth: float = 301.0,
    elevation: float = 20.0,
) -> list[Drawn]:
    """Draw a transformation by degrees, beyond what was trained.

    Args:
        generator: draws.
        style: as of `Generator.view`.
        change: one of `CHANGES`.
        count: how many images, from 2.
        ends: the first and last amount in encoded units; the authors' when not given.
        azimuth: the view.
        elevation: likewise.

    Raises:
        OptionError: no such style or change, or fewer than two images.

    Dosovitskiy, Springenberg, Brox 2015, figure of the transformations.
    """
    amounts = degrees(change, count, ends)
    encoded = [_find(change).encode(amount) for amount in amounts]
    return generator.draw(style, azimuth, elevation, encoded)


def degrees(change: str, count: int, ends: tuple[float, float] | None = None) -> list[float]:
    """The amounts that `transform` draws, in encoded units.

    Raises:
        OptionError: no such change, fewer than two amounts, or ends that are not finite.

    >>> degrees("angle", 3)
    [-0.5, 0.0, 0.5]
    """
    _require_two(count)
    low, high = ends or (_find(change).low, _find(change).high)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise OptionError(f"got {change} from {low} to {high}; wanted finite numbers")
    return [low + (high - low) * i / (count - 1) for i in range(count)]


def _find(change: str) -> Change:
    if change not in CHANGES:
        raise OptionError(f"got the change {change!r}; it is one of {', '.join(CHANGES)}")
    return CHANGES[change]


def _require_two(count: int) -> None:
    if count < 2:
        raise OptionError(f"got {count} images; wanted two or more")
