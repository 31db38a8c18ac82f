"""Gamma: blur happens in linear light, but photos are stored with a gamma curve."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.restore.tiles import Plane


class Gamma(NamedTuple):
    """Conversions between stored values and linear light; both are odd functions."""

    decode: Callable[["Plane"], "Plane"]
    encode: Callable[["Plane"], "Plane"]

    def noise(self, light: "Plane", sigma: float) -> float:
        """The standard deviation in linear light of errors of `sigma` in stored values.

        >>> round(parse_gamma(2).noise(np.full((1, 2), 0.25, np.float32), 0.01), 4)
        0.01
        """
        stored, step = self.encode(light), np.float32(sigma)
        change = self.decode(stored + step) - self.decode(stored - step)
        return float(np.sqrt(np.mean(np.square(change)))) / 2


def _from_srgb(v: "Plane") -> "Plane":
    size = abs(v)
    light = np.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4)
    return np.copysign(light, v).astype(np.float32)


def _to_srgb(light: "Plane") -> "Plane":
    size = abs(light)
    v = np.where(size <= 0.0031308, 12.92 * size, 1.055 * size ** (1 / 2.4) - 0.055)
    return np.copysign(v, light).astype(np.float32)


def parse_gamma(gamma: str | float | None) -> Gamma:
    """The conversions for "srgb", for an exponent, or None for linear values.

    >>> round(float(parse_gamma(2.2).decode(np.float32(0.5))), 3)
    0.218
    """
    if gamma in (None, "none", 1):
        return Gamma(lambda v: v, lambda v: v)
    if gamma == "srgb":
        return Gamma(_from_srgb, _to_srgb)
    try:
        power = float(gamma or 0)
    except (TypeError, ValueError):
        power = 0
    if not 0.1 <= power <= 10:
        raise OptionError(f"got gamma={gamma!r}; wanted 'srgb', or an exponent such as 2.2")
    return Gamma(
        lambda v: (np.sign(v) * abs(v) ** power).astype(np.float32),
        lambda v: (np.sign(v) * abs(v) ** (1 / power)).astype(np.float32),
    )
