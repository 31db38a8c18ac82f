"""The table of restoration methods: how each runs, and its best parameter for a noise level.

Images are tensors (N, C, H, W) or (N, C, D, H, W), whose brightest parts are about 1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from torch import Tensor

from unpool.cards import list_pretrained
from unpool.errors import OptionError, require_choice
from unpool.ops.inversion import richardson_lucy, tikhonov, total_variation, wiener
from unpool.recipes.presets import RESTORATIONS, Edges

Run: TypeAlias = Callable[[Tensor, Tensor, float, Edges], Tensor]
"""Restores an image, given the PSF, the parameter and how to extend the borders."""


class Method(NamedTuple):
    """A row of the table."""

    run: Run | None  #: None: a network, see `unpool.restore.networks`
    parameter: str  #: the name of its parameter; of networks, there is none
    curve: Sequence[tuple[float, float]]
    """Points of noise level, as a fraction of the brightest parts, and best parameter."""
    memory: int  #: measured bytes per pixel of a channel
    counts: bool = False  #: whether it needs non-negative values
    weights: str = ""  #: the name of the weights that ship with the package

    def value_for(self, sigma: float) -> float:
        """The parameter for a noise level, log-linear between the points of the curve.

        Networks are given the noise level itself.

        >>> METHODS["tv"].value_for(0.0) == METHODS["tv"].curve[0][1]
        True
        """
        if not self.curve:
            return sigma
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


# curves fitted on 5 photos blurred by shakes and Gaussians; memory measured
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
        "given": Method(None, "", (), 500, weights="deblur-given"),
        "blind": Method(None, "", (), 320, weights="deblur-blind"),
    }
)
"""All methods, by name; the last two are networks, with a PSF and without."""

GIVEN_NOISE = 0.0005
"""The lowest noise at which `given` was compared with `tv` in validation, and better."""

GIVEN_SIDE = 41
"""The largest PSF, in pixels, for which it was."""

_FOR_VALUE = MappingProxyType({"balance": "tikhonov", "lam": "tv", "steps": "rl"})


class Facts(NamedTuple):
    """What the choice of a method depends on."""

    volume: bool = False  #: whether the image is a volume
    counts: bool = True  #: whether all values are non-negative
    sigma: float = 0.0  #: the noise, as a fraction of the brightest parts
    psf_side: int = 1  #: the longest side of the PSF in pixels; 0 if there is no PSF
    values: Sequence[str] = ()  #: names of the parameters that are set
    no_photo: str = ""  #: what says that the image is no photo; see `Frame.no_photo`
    ours: bool = True  #: whether a network would be the one that ships with the package


def choose(method: str, facts: Facts) -> tuple[str, str]:
    """Choose the method to use; also return the reason.

    Args:
        method: a name of `METHODS`, or "auto".
        facts: about the image.

    Raises:
        OptionError: the method does not fit them.

    >>> choose("tv", Facts())
    ('tv', 'as asked for')
    """
    require_choice("method", method, RESTORATIONS)
    name, reason = (method, "as asked for") if method != "auto" else _best(facts)
    if method == "given" and facts.ours and (limit := _limit(facts)):
        reason = f"{reason}, but {limit}: tv may be better"
    if METHODS[name].run is None and facts.volume:
        raise OptionError(f"got a volume for method {name!r}, a network for images; choose another")
    if name == "blind" and facts.psf_side:
        raise OptionError("got a PSF for method 'blind', which takes none; set psf='none'")
    if name != "blind" and not facts.psf_side:
        raise OptionError(f"got no PSF for method {name!r}; name one, such as psf='motion:13,30'")
    return name, reason


def shipped_for(method: str) -> list[str]:
    """The names of the weights in the package that a method, or "auto", may load.

    >>> shipped_for("tv"), shipped_for("auto")
    ([], ['deblur-given'])
    """
    names = METHODS if method == "auto" else (method,)
    return [METHODS[name].weights for name in names if METHODS[name].weights in list_pretrained()]


def _best(facts: Facts) -> tuple[str, str]:
    """The method for "auto", and the reason."""
    if not facts.psf_side:
        if METHODS["blind"].weights not in list_pretrained():
            raise OptionError(
                "got no PSF, and no weights of a blind network ship with this version; name the "
                "PSF, estimate it (psf='estimate:motion'), or train a network by the recipe "
                "deblur-blind and pass its weights"
            )
        return "blind", "auto: there is no PSF"
    for parameter in facts.values:
        return _FOR_VALUE[parameter], f"auto: the method for {parameter}"
    if facts.volume:
        if facts.counts:
            return "rl-fast", "auto: for volumes, values stay above 0"
        return "tikhonov", "auto: for volumes with values below 0"
    if METHODS["given"].weights not in list_pretrained():
        return "tv", "auto: the best of the methods without training on images"
    if limit := _limit(facts):
        return "tv", f"auto: {limit}"
    return "given", "auto: the best for images with a known PSF"


def _limit(facts: Facts) -> str:
    """Why the network "given" of the package is not for an image; "" if it is."""
    if facts.psf_side > GIVEN_SIDE:
        return f"the network is for PSFs up to {GIVEN_SIDE} pixels"
    if facts.sigma < GIVEN_NOISE:
        return f"the network is for a noise of {GIVEN_NOISE} or more"
    if facts.no_photo:
        return f"the network was trained on photos, and {facts.no_photo}"
    return ""


def require_noise(noise: float) -> float:
    """Validate a level of noise; raises an `OptionError`."""
    if not (is_number(noise) and 0 <= noise < math.inf):
        raise OptionError(f"got noise={noise!r}; wanted a fraction of the largest value, or None")
    return noise


def is_number(value: object) -> bool:
    """Whether a value is a real number, of Python or NumPy.

    >>> is_number(2.5), is_number("auto"), is_number(True)
    (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def require_value(parameter: str, value: float) -> float:
    """Validate the parameter of a method; raises an `OptionError`."""
    if not is_number(value):
        raise OptionError(f"got {parameter}={value!r}; wanted a number")
    if parameter == "steps":
        if not 1 <= value <= 10_000 or value != int(value):
            raise OptionError(f"got steps={value}; wanted a whole number, 1 to 10000")
    elif not 0 <= value < math.inf:
        raise OptionError(f"got {parameter}={value}; wanted a finite number of 0 or more")
    return value
