"""Point spread functions by formula: (h, w) float32, odd sides, sum 1, centroid at the center.

Lengths are in pixels, angles in degrees, counterclockwise from the horizontal.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpool.errors import OptionError

Kernel = NDArray[np.float32]

ENERGY = 0.995
"""Fraction of the sum of a PSF that is kept; in PSFs from files, the rest is mostly noise."""

MAX_SIDE = 1023
"""Largest side of a PSF in pixels. Blurs of photos have about 30; wider ones cannot be undone."""

_OVERSAMPLING = 8
_BESSEL_STEPS = 256


def gaussian(sigma: float, other: float | None = None, angle: float = 0) -> Kernel:
    """A Gaussian, optionally anisotropic and rotated.

    Args:
        sigma: standard deviation in pixels, along the horizontal axis at angle 0.
        other: standard deviation along the second axis; the same by default.
        angle: degrees, counterclockwise.

    >>> gaussian(1.6).shape
    (13, 13)
    """
    other = sigma if other is None else other
    _require_positive(sigma=sigma, other=other)
    along, across = _turned(4 * max(sigma, other) - 0.5, angle)
    return _normalized(np.exp(-0.5 * ((along / sigma) ** 2 + (across / other) ** 2)))


def disk(radius: float) -> Kernel:
    """A uniform disk, the blur of a lens out of focus; the radius is in pixels.

    >>> disk(3.5).shape
    (7, 7)
    """
    _require_positive(radius=radius)
    reach = radius + 0.5 - 1e-9
    along, across = _turned(reach, 0, _OVERSAMPLING)
    return _normalized(_averaged(along**2 + across**2 <= radius**2))


def motion(length: float, angle: float = 0) -> Kernel:
    """A straight motion of the camera at constant speed.

    Args:
        length: length of the path of a point in pixels.
        angle: degrees, counterclockwise; 0 is horizontal.

    >>> motion(5).round(2).tolist()[0][:2], motion(5, 90).shape
    ([0.20000000298023224, 0.20000000298023224], (5, 1))
    """
    _require_positive(length=length)
    reach = length / 2 + 1
    along, across = _turned(reach, angle, _OVERSAMPLING)
    inside = (abs(along) <= length / 2) & (abs(across) <= 0.5)
    return _normalized(_averaged(inside))


def moffat(fwhm: float, beta: float = 3) -> Kernel:
    """A star seen through the atmosphere (Moffat 1969): (1 + (r / alpha)^2)^-beta.

    Args:
        fwhm: full width at half maximum, in pixels.
        beta: steepness of the wings, above 1; 2 to 5 for telescopes.

    >>> kernel = moffat(4)
    >>> round(float(kernel[kernel.shape[0] // 2, kernel.shape[1] // 2 + 2] / kernel.max()), 2)
    0.5
    """
    _require_positive(fwhm=fwhm, beta=beta - 1)
    alpha = fwhm / 2 / math.sqrt(2 ** (1 / beta) - 1)
    # the energy outside of r is (1 + (r / alpha)^2)^(1 - beta)
    far = math.exp(min(math.log(1 - ENERGY) / (1 - beta), 700))  # not beyond the largest number
    along, across = _turned(alpha * math.sqrt(far - 1), 0)
    return _normalized((1 + (along**2 + across**2) / alpha**2) ** -beta)


def airy(radius: float) -> Kernel:
    """A point seen through a circular aperture without aberration (Airy 1835): (2 J1(v) / v)^2.

    Args:
        radius: pixels from the center to the first dark ring: 0.61 wavelengths divided by the
            numerical aperture of a microscope, or 1.22 wavelengths times the f-number of a lens.

    >>> kernel = airy(4)
    >>> bool(kernel[kernel.shape[0] // 2, kernel.shape[1] // 2 + 4] < 1e-4 * kernel.max())
    True
    """
    _require_positive(radius=radius)
    along, across = _turned(5 * radius, 0)
    v = 3.8317059702 / radius * np.hypot(along, across)
    return _normalized(_jinc(v) ** 2)


def _jinc(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """2 J1(v) / v, by Poisson's integral: J1(v) / v is the mean of cos(v cos t) sin(t)^2."""
    t = (np.arange(_BESSEL_STEPS) + 0.5) * (math.pi / _BESSEL_STEPS)
    found = np.zeros_like(v)
    for cosine, weight in zip(np.cos(t), np.sin(t) ** 2, strict=True):
        found += weight * np.cos(v * cosine)
    return found * (2 / _BESSEL_STEPS)


def shake(seed: int, side: int = 21) -> Kernel:
    """A random camera shake: the path of a particle with inertia during the exposure.

    The path has 200 steps at unit speed; its direction drifts and sometimes reverses. It fills 35
    to 95 % of the side.

    Args:
        seed: seed of the path.
        side: side in pixels, odd.

    >>> shake(2).shape
    (21, 21)
    """
    if seed < 0 or not 1 <= side <= MAX_SIDE:
        raise OptionError(
            f"got shake:{seed},{side}; wanted a seed of 0 or more, and a side of 1 to {MAX_SIDE}"
        )
    random = np.random.default_rng(int(seed))
    inertia = random.uniform(0.7, 1)
    place, velocity = np.zeros(2), _unit(random.normal(size=2))
    path = []
    for _ in range(200):
        velocity = velocity + inertia * random.normal(0, 0.12, 2) - 0.02 * place
        if random.random() < 0.01:
            velocity = -velocity
        velocity = _unit(velocity)
        place = place + velocity
        path.append(place)
    points = np.array(path)
    extent = np.ptp(points, axis=0).max()
    points *= random.uniform(0.35, 0.95) * (side - 1) / extent
    points -= (points.max(0) + points.min(0)) / 2
    return _normalized(_splat(points, side))


def _unit(v: NDArray[np.float64]) -> NDArray[np.float64]:
    return v / max(float(np.hypot(*v)), 1e-9)


def _splat(points: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Draw points (x, y) around the center of a square, each spread over four pixels."""
    kernel = np.zeros((side, side))
    low = np.floor(points).astype(int)
    part = points - low
    for dx, dy in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = abs(1 - dx - part[:, 0]) * abs(1 - dy - part[:, 1])
        rows, columns = (low[:, 1] + dy + side // 2), (low[:, 0] + dx + side // 2)
        inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
        np.add.at(kernel, (rows[inside], columns[inside]), weight[inside])
    return kernel


def _turned(
    reach: float, angle: float, fine: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances along and across a direction, on a square around the origin, rows downward.

    The square reaches so many pixels from its center; a larger one than any PSF is refused.
    """
    if not reach <= 0.75 * MAX_SIDE:  # those that are narrow and diagonal are cropped
        wanted = f"wanted {MAX_SIDE} a side at most: scale the image down"
        raise OptionError(f"got a PSF that reaches {reach:.4g} pixels from its center; {wanted}")
    reach = math.ceil(reach)
    line = (np.arange((2 * reach + 1) * fine) + 0.5) / fine - reach - 0.5
    y, x = np.meshgrid(line, line, indexing="ij")
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return x * cosine - y * sine, x * sine + y * cosine


def _averaged(values: NDArray[Any]) -> NDArray[np.float64]:
    """Average the subpixels of each pixel."""
    fine = _OVERSAMPLING
    side = len(values) // fine
    return np.asarray(values.reshape(side, fine, side, fine).mean((1, 3)))


def _normalized(kernel: NDArray[Any]) -> Kernel:
    """Center a kernel, remove its margin of zeros, and normalize it to sum 1."""
    kernel, _ = centered(np.asarray(kernel, np.float64))
    kernel = cropped(kernel, 1 - 1e-9)
    if max(kernel.shape) > MAX_SIDE:
        got = f"got a PSF of {kernel.shape[1]} x {kernel.shape[0]} pixels"
        raise OptionError(f"{got}; wanted {MAX_SIDE} a side at most: scale the image down")
    return (kernel / kernel.sum()).astype(np.float32)


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise OptionError(f"got a PSF with {name} {value:g}; wanted a finite number above 0")


FAMILIES: Mapping[str, tuple[Callable[..., Kernel], int, int, str]] = MappingProxyType(
    {
        "gaussian": (gaussian, 1, 3, "gaussian:1.6 or gaussian:1.6,2.2,30"),
        "disk": (disk, 1, 1, "disk:3.5"),
        "motion": (motion, 1, 2, "motion:13,30"),
        "moffat": (moffat, 1, 2, "moffat:4,3"),
        "airy": (airy, 1, 1, "airy:4"),
        "shake": (shake, 1, 2, "shake:7 or shake:7,31"),
    }
)
"""PSFs by formula: the function, its smallest and largest number of arguments, an example."""


def centered(kernel: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[float]]:
    """Pad a kernel so that its centroid is on the center pixel; also return the shift."""
    total, pads, moved = kernel.sum(), [], []
    for axis, length in enumerate(kernel.shape):
        others = tuple(i for i in range(kernel.ndim) if i != axis)
        centroid = float(kernel.sum(others) @ np.arange(length) / total)
        center = math.floor(centroid + 0.5)
        reach = max(center, length - 1 - center)
        pads.append((reach - center, reach - (length - 1 - center)))
        moved.append(center - (length - 1) / 2)
    return np.pad(kernel, pads), moved


def cropped(kernel: NDArray[np.float64], energy: float) -> NDArray[np.float64]:
    """Crop to the smallest part around the center with this fraction of the sum, on each axis."""
    lost, parts = (1 - energy) / kernel.ndim, []
    for axis, length in enumerate(kernel.shape):
        others = tuple(i for i in range(kernel.ndim) if i != axis)
        line, center = kernel.sum(others), length // 2
        rings = line[center:].copy()
        rings[1:] += line[:center][::-1]
        outside = 1 - np.cumsum(rings) / rings.sum()
        reach = int(np.argmax(outside <= lost + 1e-12))
        parts.append(slice(center - reach, center + reach + 1))
    return kernel[tuple(parts)]


def offsets(kernel: NDArray[np.float64]) -> list[float]:
    """How far the centroid is from the center pixel, along each axis.

    >>> offsets(np.array([[0.0, 1.0, 1.0]]))
    [0.0, 0.5]
    """
    found = []
    for axis, length in enumerate(kernel.shape):
        others = tuple(i for i in range(kernel.ndim) if i != axis)
        place = np.arange(length) - length // 2
        found.append(float(kernel.sum(others) @ place / kernel.sum()))
    return found
