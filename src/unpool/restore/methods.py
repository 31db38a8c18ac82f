"""The table of restoration methods: how each runs, and its best parameter for a noise level.

Images are tensors (N, C, H, W) or (N, C, D, H, W), whose brightest parts are about 1.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from torch import Tensor

from unpool.errors import OptionError, require_choice
from unpool.ops.inversion import Edges, richardson_lucy, tikhonov, total_variation, wiener

Run: TypeAlias = Callable[[Tensor, Tensor, float, Edges], Tensor]
"""Restores an image, given the PSF, the parameter and how to extend the borders."""


class Method(NamedTuple):
    """A row of the table."""

    run: Run
    parameter: str  #: the name of its parameter
    curve: Sequence[tuple[float, float]]
    """Points of noise level, as a fraction of the brightest parts, and best parameter."""
    memory: int  #: measured bytes per pixel of a channel
    counts: bool = False  #: whether it needs non-negative values

    def value_for(self, sigma: float) -> float:
        """The parameter for a noise level, log-linear between the points of the curve.

        >>> METHODS["tv"].value_for(0.0) == METHODS["tv"].curve[0][1]
        True
        """
        (low, first), *others = self.curve
        if sigma <= low:
            return first
        for high, second in others:
            if sigma <= high:
                part = math.log(sigma / low) / math.log(high / low)
                found = first * (second / first) ** part
                return round(found) if self.parameter == "steps" else found
            low, first = high, second
        return first


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "wiener": Method(wiener, "balance", ((0.002, 2.5e-3), (0.01, 1.8e-2), (0.03, 4e-2)), 20),
        "tikhonov": Method(tikhonov, "balance", ((0.002, 4.6e-4), (0.01, 1.4e-2), (0.03, 0.1)), 20),
        "tv": Method(
            lambda y, psf, value, edges: total_variation(y, psf, value, edges=edges),
            "lam",
            ((0.002, 8e-5), (0.01, 9.5e-4), (0.03, 4e-3)),
            120,
        ),
        "rl": Method(
            lambda y, psf, value, edges: richardson_lucy(y, psf, int(value), edges),
            "steps",
            ((0.002, 300), (0.01, 30), (0.03, 8)),
            60,
            counts=True,
        ),
        "rl-fast": Method(
            lambda y, psf, value, edges: richardson_lucy(
                y, psf, int(value), edges, accelerate=True
            ),
            "steps",
            ((0.002, 40), (0.01, 10), (0.03, 4)),
            65,
            counts=True,
        ),
    }
)
"""All methods, by name; a trained network would be another row."""

CHOICES = ("auto", *METHODS)


_FOR_VALUE = MappingProxyType({"balance": "tikhonov", "lam": "tv", "steps": "rl"})


def choose(
    method: str, *, volume: bool, counts: bool, given: Iterable[str] = ()
) -> tuple[str, str]:
    """Choose the method to use; also return the reason.

    Args:
        method: a name of `METHODS`, or "auto".
        volume: whether the image is a volume.
        counts: whether all values are non-negative.
        given: the names of the parameters that are given, at most one.

    >>> choose("auto", volume=False, counts=True, given=["steps"])
    ('rl', 'auto: the method for steps')
    >>> choose("tv", volume=False, counts=True)
    ('tv', 'as asked for')
    """
    require_choice("method", method, CHOICES)
    if method != "auto":
        return method, "as asked for"
    for parameter in given:
        return _FOR_VALUE[parameter], f"auto: the method for {parameter}"
    if not volume:
        return "tv", "auto: the best of the methods without training on images"
    if counts:
        return "rl-fast", "auto: for volumes, values stay above 0"
    return "tikhonov", "auto: for volumes with values below 0"


def require_value(parameter: str, value: float) -> float:
    """Validate the parameter of a method; raises an `OptionError`."""
    if parameter == "steps":
        if value != int(value) or not 1 <= value <= 10_000:
            raise OptionError(f"got steps={value}; wanted a whole number, 1 to 10000")
    elif not 0 <= value < math.inf:
        raise OptionError(f"got {parameter}={value}; wanted a finite number of 0 or more")
    return value
