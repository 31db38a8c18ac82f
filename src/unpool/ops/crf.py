"""What a dense CRF is made of: Gaussian kernels, and their filters on the pixels of an image.

H W image, N = H * W pixels, C values of each.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from unpool.errors import OptionError, ShapeError
from unpool.ops.lattice import Filters, Lattice

Normalization = Literal["none", "before", "after", "symmetric"]

NORMALIZATIONS = ("none", "before", "after", "symmetric")

SMALLEST = 1.9e-22  # about exp(-50)
"""Smaller marginals become 0: denormal numbers would slow everything down tenfold."""


class Kernel(NamedTuple):
    """A Gaussian of the distance of two pixels, and of their colors if `rgb` is given."""

    xy: float  #: deviation of the place, in pixels
    weight: float  #: of the penalty for different labels
    rgb: float | None = None  #: deviation of the color, of 255; None for places alone


class DenseCRF(NamedTuple):
    """What a dense CRF is made of, and how long it is run.

    Normalization, with n = K 1 the sum of the weights that a pixel gets from all others: "none"
    filters K q; "before" K (q / n); "after" (K q) / n; "symmetric" K (q / sqrt n) / sqrt n.
    """

    kernels: tuple[Kernel, ...]
    iterations: int = 10
    normalization: Normalization = "symmetric"
    prune: float = 1e-3  #: fraction of a pixel that dropped labels may hold at first; 0 keeps all


CRF_PRESETS = {
    "edeconvnet": DenseCRF((Kernel(3, 3), Kernel(20, 5, 3)), 10, "none"),
    "deeplab": DenseCRF((Kernel(3, 3), Kernel(49, 4, 5)), 10, "after"),
    "crfrnn": DenseCRF((Kernel(3, 3), Kernel(160, 5, 3)), 10, "after"),
    "densecrf": DenseCRF((Kernel(3, 3), Kernel(80, 10, 13)), 5, "symmetric"),
}


def crf_filter(
    crf: DenseCRF | str,
    size: tuple[int, int],
    image: Tensor | None,
    like: Tensor | None = None,
) -> Filters:
    """The sum of all kernels of a CRF on the pixels of an image, weights included.

    Args:
        crf: kernels and normalization, or the name of one of `CRF_PRESETS`.
        size: (H, W).
        image: (H, W, 3) uint8, RGB; may be None if no kernel looks at colors.
        like: a tensor that tells dtype and device; float32 on the CPU when not given.

    Returns:
        A filter of values (N, C), the pixels row by row.

    Raises:
        ShapeError: an image that is not (H, W, 3) uint8.
        OptionError: an unknown preset, or options that do not exist or do not fit.
    """
    crf = find_crf(crf)
    like = torch.empty(0) if like is None else like
    lattices, before, after = [], [], []
    for kernel in crf.kernels:
        lattice, first, last = _normalized(kernel, size, image, crf.normalization, like)
        last = like.new_ones(lattice.points) if last is None else last
        lattices.append(lattice)
        before.append(first)
        after.append(last * kernel.weight)
    return Filters(lattices, before, after)


def kernel_filter(
    kernel: Kernel,
    size: tuple[int, int],
    image: Tensor | None,
    normalization: Normalization = "after",
    like: Tensor | None = None,
) -> Filters:
    """The filter of one kernel on the pixels of an image, normalized, without its weight.

    Args:
        kernel: deviations of place and color.
        size: (H, W).
        image: (H, W, 3) uint8, RGB; may be None if the kernel does not look at colors.
        normalization: as of `DenseCRF`.
        like: a tensor that tells dtype and device; float32 on the CPU when not given.

    Returns:
        A filter of values (N, C), the pixels row by row.

    Raises:
        ShapeError: an image that is not (H, W, 3) uint8.
        OptionError: an unknown normalization.
    """
    if normalization not in NORMALIZATIONS:
        raise OptionError(
            f"got normalization {normalization!r}; it is one of {', '.join(NORMALIZATIONS)}"
        )
    like = torch.empty(0) if like is None else like
    lattice, before, after = _normalized(kernel, size, image, normalization, like)
    return Filters([lattice], [before], [after])


def features(kernel: Kernel, size: tuple[int, int], image: Tensor | None, like: Tensor) -> Tensor:
    """x, y, and the color of each pixel, divided by the deviations: (N, 2) or (N, 5).

    Args:
        kernel: deviations of place and color.
        size: (H, W).
        image: (H, W, 3) uint8, RGB; not looked at if the kernel does not.
        like: a tensor that tells dtype and device.

    Raises:
        ShapeError: an image that is not (H, W, 3) uint8.
    """
    height, width = size
    x = torch.arange(width, dtype=like.dtype, device=like.device) / kernel.xy
    y = torch.arange(height, dtype=like.dtype, device=like.device) / kernel.xy
    place = [x.expand(height, width), y[:, None].expand(height, width)]
    if kernel.rgb is None:
        return torch.stack(place, -1).flatten(0, 1)
    _require_image(image, size)
    assert image is not None
    color = image.to(like.device, like.dtype) / kernel.rgb
    return torch.cat([torch.stack(place, -1), color], -1).flatten(0, 1)


def find_crf(crf: DenseCRF | str) -> DenseCRF:
    """A CRF by the name of one of `CRF_PRESETS`, or as it is given.

    Raises:
        OptionError: an unknown preset, or options that do not exist or do not fit.
    """
    if isinstance(crf, str):
        if crf not in CRF_PRESETS:
            raise OptionError(f"got CRF preset {crf!r}; it is one of {', '.join(CRF_PRESETS)}")
        return CRF_PRESETS[crf]
    if crf.normalization not in NORMALIZATIONS:
        raise OptionError(
            f"got normalization {crf.normalization!r}; it is one of {', '.join(NORMALIZATIONS)}"
        )
    deviations = [s for k in crf.kernels for s in (k.xy, k.rgb) if s is not None]
    if not crf.kernels or not all(0 < s < torch.inf for s in deviations):
        raise OptionError(f"got kernels {crf.kernels}; wanted one or more, with deviations above 0")
    if not all(0 <= k.weight < torch.inf for k in crf.kernels):
        raise OptionError(f"got kernels {crf.kernels}; wanted finite weights of 0 or more")
    if crf.iterations < 0 or not 0 <= crf.prune < 1:
        raise OptionError(
            f"got iterations={crf.iterations}, prune={crf.prune}; wanted 0 or more iterations, "
            "and a share from 0 to less than 1"
        )
    return crf


def _normalized(
    kernel: Kernel,
    size: tuple[int, int],
    image: Tensor | None,
    normalization: Normalization,
    like: Tensor,
) -> tuple[Lattice, Tensor | None, Tensor | None]:
    """The lattice of a kernel, and the factors before and after its filter."""
    if kernel.rgb is None:
        return _of_places(kernel.xy, size, normalization, like.dtype, like.device)
    lattice = Lattice(features(kernel, size, image, like))
    return lattice, *_scales(lattice, normalization)


@lru_cache(4)
def _of_places(
    xy: float,
    size: tuple[int, int],
    normalization: Normalization,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Lattice, Tensor | None, Tensor | None]:
    """Without colors, all images of a size have the same lattice; the last few are kept."""
    with torch.inference_mode(False):  # lest they could not be used for gradients later
        like = torch.empty(0, dtype=dtype, device=device)
        lattice = Lattice(features(Kernel(xy, 1), size, None, like))
        return lattice, *_scales(lattice, normalization)


def _scales(lattice: Lattice, normalization: str) -> tuple[Tensor | None, Tensor | None]:
    """Factors before and after the filter."""
    if normalization == "none":
        return None, None
    ones = torch.ones_like(lattice.slice.weight[: lattice.points, None])
    total = lattice.filter(ones).flatten() + 1e-20
    if normalization == "symmetric":
        return total.rsqrt(), total.rsqrt()
    return (1 / total, None) if normalization == "before" else (None, 1 / total)


def _require_image(image: Tensor | None, size: tuple[int, int]) -> None:
    if image is None:
        raise ShapeError("got no image, but a kernel looks at colors; pass (H, W, 3) uint8 RGB")
    if tuple(image.shape) != (*size, 3) or image.dtype != torch.uint8:
        raise ShapeError(
            f"got an image of {tuple(image.shape)} {image.dtype}; wanted {(*size, 3)} uint8 RGB, "
            "as large as the unary: resize one to the other"
        )
