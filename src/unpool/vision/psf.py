"""Point spread functions (PSFs), images of a point of light: by formula, from arrays or files.

A PSF is non-negative, has sum 1, odd sides and its centroid on the center pixel, so that restored
images are neither brighter nor shifted. Changes that are necessary for this are recorded.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unpool.errors import ImageError, OptionError, ShapeError, suggest
from unpool.vision.kernels import ENERGY, FAMILIES, MAX_SIDE, Kernel, centered, cropped, offsets

_SHIFT = 0.25  # pixels by which a result may be shifted without a word


@dataclass(frozen=True)
class PSF:
    """A point spread function, ready for use."""

    kernel: Kernel  #: (h, w) or (d, h, w), odd sides, non-negative, sum 1
    name: str  #: the request, such as "motion:13,30", or the name of a file
    changes: tuple[str, ...] = ()  #: changes to the original values
    voxel: tuple[float, ...] | None = None  #: the size of a pixel along each axis, if known

    @property
    def known(self) -> bool:
        """Whether this is a PSF, and not `UNKNOWN`."""
        return (self.name, self.kernel.shape) != ("none", (1, 1))

    def to_dict(self) -> dict[str, Any]:
        """The name, the size and the changes as plain values."""
        return {"psf": self.name, "psf_size": [*self.kernel.shape], "psf_changes": [*self.changes]}


# ---- from arrays and files -----------------------------------------------------------------------


UNKNOWN = PSF(np.ones((1, 1), np.float32), "none")
"""What stands for a PSF that is not known: a point, which blurs nothing."""


def find_psf(source: Any, background: float | None = None) -> PSF:
    """Make a PSF by formula, such as "motion:13,30", from a file, or from an array.

    Args:
        source: a formula; the path of an image, a TIFF stack or a .npy file; an array; or a PSF.
            None or "none" stands for `UNKNOWN`.
        background: for files and arrays, the quantile of the values to subtract, such as 0.5.

    Raises:
        OptionError: the family is unknown, or its numbers are invalid.
        ImageError, ShapeError: a file or an array is not a PSF.

    >>> find_psf("disk:2").kernel.shape
    (5, 5)
    >>> find_psf([[0, 1, 0]]).changes, find_psf([[0, 2, 0]]).changes
    ((), ('sum 2 to 1',))
    """
    if isinstance(source, PSF):
        return source
    if source is None or str(source) == "none":
        return UNKNOWN
    if isinstance(source, str | Path):
        return _named(source, background)
    return make_psf(source, "array", background)


def _named(source: str | Path, background: float | None) -> PSF:
    family, colon, _ = str(source).partition(":")
    if family == "estimate":
        raise OptionError(
            f"got psf {str(source)!r}, which needs an image to estimate it from; name a file, or "
            "numbers such as motion:13,30"
        )
    if family not in FAMILIES or Path(source).exists():
        if not Path(source).exists() and (colon or not Path(source).suffix):
            known = suggest(family, FAMILIES)
            raise OptionError(f"got psf {str(source)!r}, neither a file nor a known PSF; {known}")
        return _read(Path(source), background)
    return parse_psf(str(source))


def parse_psf(text: str, largest: float = math.inf) -> PSF:
    """Make a PSF by formula; files are not looked for.

    Args:
        text: such as "motion:13,30".
        largest: the largest length in pixels that its numbers may state.

    Raises:
        OptionError: the family is unknown, or its numbers are invalid.

    >>> parse_psf("disk:2").kernel.shape
    (5, 5)
    """
    family, _, values = text.partition(":")
    if text == "none":
        return UNKNOWN
    if family not in FAMILIES:
        raise OptionError(f"got psf {text!r}, which is no known PSF; {suggest(family, FAMILIES)}")
    make, least, most, example = FAMILIES[family]
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError:
        numbers = []
    if not least <= len(numbers) <= most or not all(map(math.isfinite, numbers)):
        raise OptionError(f"got psf {text!r}; wanted numbers, such as {example}")
    lengths = {"gaussian": numbers[:2], "shake": numbers[1:]}.get(family, numbers[:1])
    if max(lengths, default=0) > largest:
        raise OptionError(f"got psf {text!r}; wanted lengths of {largest:g} pixels at most")
    if family == "shake":
        numbers = [int(number) for number in numbers]
    return PSF(make(*numbers), text)


def _read(path: Path, background: float | None) -> PSF:
    from unpool.vision.stacks import read_array, read_stack

    voxel, changes = None, list[str]()
    if path.suffix.lower() == ".npy":
        values = read_array(path)
    else:
        stack = read_stack(path)
        voxel = stack.voxel
        colors = [frame.colors for frame in stack.frames]
        channels = [page[..., :n] for page, n in zip(stack, colors, strict=True)]
        if any((page != page[..., :1]).any() for page in channels):
            changes.append(f"the mean of its {max(colors)} channels, which differ")
        pages = [page.mean(2) for page in channels]
        if len({page.shape for page in pages}) > 1:
            raise ImageError(f"{path}: has pages of several sizes; wanted a PSF: save it as one")
        values = np.stack(pages) if len(pages) > 1 else pages[0]
    try:
        found = make_psf(values, path.name, background)
        return replace(found, voxel=voxel, changes=(*changes, *found.changes))
    except (ImageError, ShapeError) as error:
        raise type(error)(f"{path}: {error}") from None


def make_psf(values: ArrayLike, name: str = "array", background: float | None = None) -> PSF:
    """Make a PSF from an array: subtract background, remove negatives, center, normalize.

    Args:
        values: (h, w) or (d, h, w), of any numeric type.
        name: see `PSF`.
        background: see `find_psf`.

    >>> psf = make_psf(np.eye(3))
    >>> float(psf.kernel[1, 1]).__round__(3), psf.changes
    (0.333, ('sum 3 to 1',))
    """
    kernel = np.asarray(values)
    if kernel.ndim not in (2, 3) or not kernel.size or kernel.dtype.kind not in "uifb":
        raise ShapeError(
            f"got a PSF of {kernel.shape} and {kernel.dtype}; wanted numbers (h, w) or (d, h, w)"
        )
    kernel = kernel.astype(np.float64)
    if not np.isfinite(kernel).all():
        raise ImageError("got a PSF with values that are not finite; replace them by 0")
    changes = []
    if background is not None:
        if not 0 <= background < 1:
            raise OptionError(f"got background={background}; wanted a quantile, 0 to below 1")
        level = float(np.quantile(kernel, background))
        kernel = np.maximum(kernel - level, 0)
        changes.append(f"background {level:.4g} subtracted")
    if (count := int((kernel < 0).sum())) > 0:
        kernel = np.maximum(kernel, 0)
        changes.append(f"{count} negative values set to 0")
    _require_spot(kernel, background)
    total = kernel.sum()
    kernel, moved = centered(kernel)
    if any(moved):
        by = " x ".join(f"{shift:g}" for shift in moved)
        changes.append(f"centered: the pixel at its centroid was {by} pixels from the middle")
    beside = offsets(kernel)
    if max(map(abs, beside)) > _SHIFT:
        by = " x ".join(f"{abs(rest):.1f}" for rest in beside)
        changes.append(f"its centroid lies between pixels: the result is shifted by {by} pixels")
    part = cropped(kernel, ENERGY)
    if kernel.sum() - part.sum() > 1e-6 * total:
        sides = " x ".join(map(str, part.shape))
        changes.append(f"cropped to {sides}, {part.sum() / total:.1%} of its sum")
    if abs(total - 1) > 1e-3:
        changes.append(f"sum {total:.4g} to 1")
    kernel = cropped(part, 1 - 1e-12)
    if max(kernel.shape) > MAX_SIDE:
        raise ShapeError(
            f"got a PSF of {' x '.join(map(str, kernel.shape))} pixels after cropping; wanted "
            f"{MAX_SIDE} a side at most: cut the spot out, or subtract its background"
        )
    return PSF((kernel / kernel.sum()).astype(np.float32), name, (*changes, *_doubts(kernel)))


def _border(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values on the outermost ring of the last two axes."""
    inner = np.zeros(kernel.shape, bool)
    inner[..., 1:-1, 1:-1] = True
    return kernel[~inner]


def _require_spot(kernel: NDArray[np.float64], background: float | None) -> None:
    if not kernel.any():
        cure = "subtract less background" if background is not None else "check the file"
        raise ImageError(f"got a PSF without a value above 0; {cure}")
    inside = kernel[..., 1:-1, 1:-1]
    dark = float(_border(kernel).min())
    if inside.size and inside.mean() < dark and inside.min() < 0.98 * dark:
        raise ImageError(
            "got a PSF that is darker inside than on its border; wanted a bright spot on black: "
            "invert it"
        )


def _doubts(kernel: NDArray[np.float64]) -> list[str]:
    """Describe an apparent background, which would act as blur over the whole image."""
    border, top = float(np.median(_border(kernel))), float(kernel.max())
    if min(kernel.shape[-2:]) < 7 or border < 0.02 * top:
        return []
    return [f"its border is {border / top:.0%} of its peak: if that is background, subtract it"]


# ---- a look at one -------------------------------------------------------------------------------


def transfer(psf: PSF, size: int = 256) -> NDArray[np.float64]:
    """The gain of a 2-D PSF at each spatial frequency, (size, size), frequency 0 in the middle.

    >>> float(transfer(find_psf("disk:3")).max().round(3))
    1.0
    """
    kernel = psf.kernel if psf.kernel.ndim == 2 else psf.kernel.sum(0)
    size = max(size, *kernel.shape)
    return np.asarray(np.fft.fftshift(np.abs(np.fft.fft2(kernel, (size, size)))))


def describe(psf: PSF) -> dict[str, Any]:
    """Measure a PSF: its width along each axis, its peak, and its smallest gain.

    >>> round(describe(find_psf("gaussian:1.6"))["deviation"][0], 2)
    1.6
    """
    kernel = psf.kernel.astype(np.float64)
    deviation = []
    for axis, length in enumerate(kernel.shape):
        others = tuple(i for i in range(kernel.ndim) if i != axis)
        line, place = kernel.sum(others), np.arange(length) - length // 2
        deviation.append(float(np.sqrt(line @ place**2 - (line @ place) ** 2)))
    return {
        **psf.to_dict(),
        "peak": float(kernel.max()),
        "deviation": deviation,
        "lowest_transfer": float(transfer(psf).min()),
    }
