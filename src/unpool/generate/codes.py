"""What a network draws from, and how it is said: styles, degrees and transformations as numbers."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from unpool.errors import OptionError, ShapeError
from unpool.generate.transformations import Transformation

Style: TypeAlias = str | int | Mapping[Any, float] | Tensor
"""A style by its name or number; or fractions of several, {"A": 1, "B": -1, "C": 1} for A - B + C;
or fractions of all, (K,)."""

_ONE = (str, int, Mapping, Tensor)  # a style, rather than several


class Codes(NamedTuple):
    """What a network draws N images from."""

    style: Tensor  #: (N, K) one-hot, or shares
    view: Tensor  #: (N, 4) sine and cosine of elevation and azimuth
    transformation: Tensor  #: (N, 28); zero is no change


def parse_style(text: str) -> Style:
    """A style as it is typed: a name or a number, or shares such as A=1,B=-1,C=1.

    Raises:
        OptionError: a share that is no number.

    >>> parse_style("stool"), parse_style("stool=0.5,armchair=0.5")
    ('stool', {'stool': 0.5, 'armchair': 0.5})
    """
    if "=" not in text:
        return text
    shares: dict[Any, float] = {}
    for part in text.split(","):
        name, _, share = (text.strip() for text in part.rpartition("="))
        try:
            shares[name] = shares.get(name, 0.0) + float(share)
        except ValueError:
            raise OptionError(
                f"got {part!r} in the style {text!r}; wanted NAME=SHARE, such as A=1,B=-1,C=1"
            ) from None
    return shares


def nearest(name: str, styles: Sequence[str]) -> str:
    """Names like it: those with its words, then others spelled much like it; the nearest first."""
    words = [w for w in name.casefold().replace("-", "_").split("_") if len(w) > 2]
    shared = [s for s in styles if words and all(w in s.casefold() for w in words)]
    near = difflib.get_close_matches(name, shared, 3, 0)
    near += [s for s in difflib.get_close_matches(name, styles, 6, 0.5) if s not in near]
    near = near[:3]
    told = f"the nearest are {', '.join(near)}; " if near else ""
    return f"{told}unpool generate list shows all {len(styles)}"


def as_styles(style: Style | Sequence[Style]) -> list[Style]:
    """A list of styles; one alone may come as it is.

    Raises:
        OptionError: neither.
    """
    if not isinstance(style, (*_ONE, Sequence)):
        raise OptionError(
            f"got the style {style!r}; wanted a name, a number, fractions of several, or a list of "
            "such"
        )
    return [style] if isinstance(style, _ONE) else list(style)


def as_degrees(name: str, value: float | Sequence[float]) -> list[float]:
    """A list of degrees; one alone may come as a number.

    Raises:
        OptionError: what is no finite number.
    """
    try:
        found = [float(v) for v in ([value] if isinstance(value, str | int | float) else value)]
        if all(map(math.isfinite, found)):
            return found
    except (TypeError, ValueError):
        pass
    raise OptionError(f"got {name} {value!r}; wanted finite degrees: a number, or one an image")


def as_changes(changes: Any) -> list[Any]:
    """A list of transformations; one alone may come as its numbers."""
    several = isinstance(changes, list) and not (changes and isinstance(changes[0], int | float))
    return changes if several else [changes]


def encoded(change: Any, count: int) -> Tensor:
    """The numbers of a transformation, as many as the network takes; zeros for None.

    Raises:
        OptionError: numbers that are not finite.
        ShapeError: another count of them.
    """
    if change is None:
        return torch.zeros(count)
    numbers = change.encode() if isinstance(change, Transformation) else change
    vector = torch.as_tensor(numbers, dtype=torch.float32).flatten()
    if vector.shape != (count,):
        raise ShapeError(
            f"got a transformation of {tuple(vector.shape)}; this network takes {count} numbers, "
            "or with 28 a Transformation"
        )
    if not vector.isfinite().all():
        raise OptionError(f"got the transformation {vector.tolist()}; wanted finite numbers")
    return vector
