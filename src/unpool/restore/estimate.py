"""Estimate a PSF of a given family from the blurred image alone.

Images have a power spectrum of about a / f^p; a blur multiplies it by its squared transfer
function, and noise adds a constant. The estimated parameters are those under which the observed
spectrum is most likely (Whittle 1953), for the most likely a, p and noise. The spectrum of one
image does not reveal the family, and it has no phase: the direction of a shake is not found, and
wrong estimates are not detected.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unpool.errors import ImageError, OptionError, require_choice
from unpool.vision.kernels import FAMILIES
from unpool.vision.psf import PSF

_WINDOW = 256
_LEAST = 64  # smallest side in pixels
_MOST_WINDOWS = 16
_FREQUENCIES = 0.02, 0.5  # range of frequencies used, in cycles per pixel
# with p = 2 for all images, the steeper ones seem more blurred than they are
_EXPONENTS = np.arange(1.2, 3.7, 0.4)
_REFERENCE = 0.1  # frequency at which the power of the noise is stated
_NOISE = np.geomspace(1e-4, 1, 9)  # as fractions of the sharp image's

_GRIDS: Mapping[str, tuple[Sequence[float], Sequence[float]]] = {
    "gaussian": (np.arange(0.6, 5.01, 0.2).tolist(), [0.0]),
    "disk": (np.arange(1, 12.01, 0.5).tolist(), [0.0]),
    "motion": (range(3, 32, 2), range(0, 180, 15)),
}
_FINE = {"gaussian": 0.1, "disk": 0.25, "motion": 1.0}
ESTIMATED = tuple(_GRIDS)


def family_to_estimate(psf: object) -> str | None:
    """The family that a request such as "estimate:motion" names; None for any other PSF.

    Raises:
        OptionError: the family cannot be estimated.

    >>> family_to_estimate("estimate:disk"), family_to_estimate("disk:3")
    ('disk', None)
    """
    name, _, family = psf.partition(":") if isinstance(psf, str) else ("", "", "")
    if name != "estimate":
        return None
    if family not in ESTIMATED:
        wanted = ", ".join(f"estimate:{known}" for known in ESTIMATED)
        raise OptionError(f"got psf {psf!r}; wanted one of {wanted}")
    return family


def estimate_psf(gray: NDArray[np.floating], family: str, count: int = 1) -> list[PSF]:
    """The most likely PSFs of a family for an image, the best first.

    Args:
        gray: (H, W), in linear light, 64 pixels or more a side.
        family: "gaussian", "disk" or "motion".
        count: number of PSFs to return; those near a better one are left out.

    Raises:
        OptionError, ImageError: another family, or an image that is too small.

    >>> from unpool.vision.psf import find_psf
    >>> noise = np.random.default_rng(0).normal(size=(128, 128))
    >>> len(estimate_psf(noise, "disk", 3))
    3
    """
    require_choice("family", family, ESTIMATED)
    power, frequency = _spectrum(np.asarray(gray, np.float64))
    inside = (frequency > _FREQUENCIES[0]) & (frequency <= _FREQUENCIES[1])
    # logarithms in single precision take a quarter of the time
    power = np.asarray(power[inside] / power[inside].mean(), np.float32)
    relative = np.asarray(_REFERENCE / frequency[inside], np.float32)
    images = [relative ** np.float32(exponent) for exponent in _EXPONENTS]
    size = _window_of(np.asarray(gray).shape)

    def cost(values: Sequence[float]) -> float:
        kernel = FAMILIES[family][0](*values)
        blur = np.abs(np.fft.rfft2(kernel, (size, size)))[inside].astype(np.float32) ** 2
        costs = []
        for image, noise in itertools.product(images, _NOISE):
            model = blur * image + np.float32(noise)
            costs.append(np.log((power / model).mean()) + np.log(model).mean())
        return float(min(costs))

    sizes, angles = _GRIDS[family]
    costs = {values: cost(values) for values in _points(sizes, angles)}
    # wrong estimates lie at the ends of the grid, so inner minima come first
    ranked = sorted(
        (not _is_minimum(values, sizes, costs), costs[values], values) for values in costs
    )
    found: list[PSF] = []
    kept: list[tuple[float, ...]] = []
    for *_, values in ranked:
        if len(found) == count:
            break
        if all(_apart(values, other) for other in kept):
            kept.append(values)
            best = min(_around(values, family), key=cost)
            found.append(_psf(best, family))
    return found


def _points(sizes: Sequence[float], angles: Sequence[float]) -> list[tuple[float, ...]]:
    several = len(angles) > 1
    pairs = itertools.product(sizes, angles)
    return [(float(s), float(a)) if several else (float(s),) for s, a in pairs]


def _is_minimum(
    values: tuple[float, ...], sizes: Sequence[float], costs: Mapping[tuple[float, ...], float]
) -> bool:
    """Whether both neighbors in size exist and do not cost less."""
    place = list(sizes).index(values[0])
    near = [(float(size), *values[1:]) for size in sizes[max(place - 1, 0) : place + 2]]
    return len(near) == 3 and costs[values] == min(costs[other] for other in near)


def _apart(values: Sequence[float], other: Sequence[float]) -> bool:
    turn = abs(values[-1] - other[-1]) % 180 if len(values) > 1 else 0
    return abs(values[0] - other[0]) > 0.2 * other[0] or min(turn, 180 - turn) > 25


def _around(values: Sequence[float], family: str) -> Iterator[tuple[float, ...]]:
    """A finer grid around a point."""
    step = _FINE[family]
    sizes = [values[0] + shift * step for shift in (-1, 0, 1)]
    turns = [values[1] + turn for turn in (-10, -5, 0, 5, 10)] if len(values) > 1 else [0.0]
    for size, turn in itertools.product(sizes, turns):
        yield (size, turn % 180) if len(values) > 1 else (size,)


def _psf(values: Sequence[float], family: str) -> PSF:
    note = "estimated; look at the comparison, since nothing else tells whether it is right"
    text = ",".join(f"{value:g}" for value in values)
    return PSF(FAMILIES[family][0](*values), f"{family}:{text}", (note,))


def _window_of(shape: Sequence[int]) -> int:
    return min(_WINDOW, *shape)


def _spectrum(gray: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean power spectrum over windows of an image, and the frequencies, as in `rfft2`."""
    if gray.ndim != 2 or min(gray.shape) < _LEAST:
        raise ImageError(
            f"got an image of {gray.shape} to estimate a PSF from; wanted (H, W) of {_LEAST} "
            "pixels or more a side: name the PSF"
        )
    size = _window_of(gray.shape)
    # without it, the step between opposite borders would look like detail along the axes
    taper = np.hanning(size + 2)[1:-1]
    taper = np.outer(taper, taper)
    starts = [np.linspace(0, n - size, min(4, max(1, 2 * n // size - 1))) for n in gray.shape]
    places = list(itertools.product(*(line.astype(int) for line in starts)))[:_MOST_WINDOWS]
    total = np.zeros((size, size // 2 + 1))
    for y, x in places:
        part = gray[y : y + size, x : x + size]
        total += np.abs(np.fft.rfft2((part - part.mean()) * taper)) ** 2
    if not total.any():
        raise ImageError("got an image without detail; a PSF cannot be estimated: name the PSF")
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    return total / len(places), frequency
