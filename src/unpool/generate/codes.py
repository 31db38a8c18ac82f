"""Inputs of the generative network: styles, degrees and transformations as numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from unpool.errors import OptionError, ShapeError
from unpool.generate.transformations import Transformation

Style: TypeAlias = str | int | Mapping[Any, float] | Tensor
"""A style by its name or index; or fractions of several, {"A": 1, "B": -1, "C": 1} for A - B + C;
or fractions of all styles, (K,)."""

_ONE = (str, int, Mapping, Tensor)  # a single style


class Codes(NamedTuple):
    """The inputs of the network for N images."""

    style: Tensor  #: (N, K) one-hot, or fractions
    view: Tensor  #: (N, 4) sine and cosine of elevation and azimuth
    transformation: Tensor  #: (N, 28); zero is no change


def parse_style(text: str) -> Style:
    """Parse a style: a name or an index, or fractions of several such as "A=1,B=-1,C=1".

    Raises:
        OptionError: a fraction that is not a number.

    >>> parse_style("stool"), parse_style("stool=0.5,armchair=0.5")
    ('stool', {'stool': 0.5, 'armchair': 0.5})
    """
    if "=" not in text:
        return text
    mixture: dict[Any, float] = {}
    for part in text.split(","):
        name, _, fraction = (word.strip() for word in part.rpartition("="))
        try:
            mixture[name] = mixture.get(name, 0.0) + float(fraction)
        except ValueError:
            raise OptionError(
                f"got {part!r} in the style {text!r}; wanted NAME=FRACTION, such as A=1,B=-1,C=1"
            ) from None
    return mixture


def as_styles(style: Style | Sequence[Style]) -> list[Style]:
    """A list of styles, from one or several.

    Raises:
        OptionError: neither.
    """
    if not isinstance(style, (*_ONE, Sequence)):
        raise OptionError(
            f"got the style {style!r}; wanted a name, an index, fractions of several, or a list of "
            "these"
        )
    return [style] if isinstance(style, _ONE) else list(style)


def as_degrees(name: str, value: float | Sequence[float]) -> list[float]:
    """A list of degrees, from one number or several.

    Raises:
        OptionError: not a finite number.
    """
    try:
        degrees = [float(v) for v in ([value] if isinstance(value, str | int | float) else value)]
        if all(map(math.isfinite, degrees)):
            return degrees
    except (TypeError, ValueError):
        pass
    raise OptionError(f"got {name}={value!r}; wanted finite degrees: a number, or one per image")


def as_transformations(transformation: Any) -> list[Any]:
    """A list of transformations, from one (or its numbers) or several."""
    several = isinstance(transformation, list) and not (
        transformation and isinstance(transformation[0], int | float)
    )
    return transformation if several else [transformation]


def encode_transformation(transformation: Any, count: int) -> Tensor:
    """A transformation as the `count` numbers that the network takes; zeros for None.

    Raises:
        OptionError: numbers that are not finite.
        ShapeError: not `count` numbers.
    """
    if transformation is None:
        return torch.zeros(count)
    encoded = isinstance(transformation, Transformation)
    numbers = transformation.encode() if encoded else transformation
    vector = torch.as_tensor(numbers, dtype=torch.float32).flatten()
    if vector.shape != (count,):
        raise ShapeError(
            f"got a transformation of {tuple(vector.shape)}; this network takes {count} numbers, "
            "or a Transformation if it takes 28"
        )
    if not vector.isfinite().all():
        raise OptionError(f"got the transformation {vector.tolist()}; wanted finite numbers")
    return vector
