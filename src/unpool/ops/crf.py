"""Dense CRFs as Gaussian kernels, and the filters that they are on the pixels of an image.

Letters: H W image, N = H * W pixels, C values per pixel.
"""

from functools import lru_cache

import torch
from torch import Tensor

from unpool.errors import OptionError, ShapeError, require_choice, require_type
from unpool.ops.lattice import Filters, Lattice
from unpool.recipes.presets import CRF_PRESETS as CRF_PRESETS  # the room offers these, too
from unpool.recipes.presets import NORMALIZATIONS, Normalization
from unpool.recipes.presets import DenseCRF as DenseCRF
from unpool.recipes.presets import Kernel as Kernel

SMALLEST = 1.9e-22  # about exp(-50)
"""Smaller marginals become 0: denormal numbers would slow everything down tenfold."""


def crf_filter(
    crf: DenseCRF | str, size: tuple[int, int], image: Tensor | None, like: Tensor | None = None
) -> Filters:
    """The filter of a CRF on the pixels of an image: the weighted sum of its kernels.

    Args:
        crf: kernels and normalization, or the name of one of `CRF_PRESETS`.
        size: (H, W).
        image: (H, W, 3) uint8, RGB; may be None if no kernel uses colors. Or floating-point
            colors of the same scale, in any order and from any origin, as a network takes them.
        like: a tensor with the dtype and device to use; by default float32 on the CPU.

    Returns:
        A filter of values (N, C), with pixels in row-major order.

    >>> filters = crf_filter("deeplab", (4, 6), torch.zeros(4, 6, 3, dtype=torch.uint8))
    >>> filters(torch.full((24, 2), 0.5)).shape
    torch.Size([24, 2])
    """
    crf, like = find_crf(crf), torch.empty(0) if like is None else like
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

    The arguments, and the filter returned, are as of `crf_filter`.

    >>> smooth = kernel_filter(Kernel(xy=3, weight=1), (4, 6), None)
    >>> torch.allclose(smooth(torch.ones(24, 1)), torch.ones(24, 1))  # a weighted mean
    True
    """
    require_choice("normalization", normalization, NORMALIZATIONS)
    like = torch.empty(0) if like is None else like
    lattice, before, after = _normalized(kernel, size, image, normalization, like)
    return Filters([lattice], [before], [after])


def features(kernel: Kernel, size: tuple[int, int], image: Tensor | None, like: Tensor) -> Tensor:
    """Position (x, y) and color of each pixel, divided by the deviations: (N, 2) or (N, 5).

    Raises a `ShapeError` if colors are used and the image is not (H, W, 3), uint8 or floating.
    """
    y, x = (torch.arange(n, dtype=like.dtype, device=like.device) / kernel.xy for n in size)
    position = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)  # (H, W, 2)
    if kernel.rgb is None:
        return position.flatten(0, 1)
    if image is None:
        raise ShapeError("got no image, but a kernel uses colors; pass (H, W, 3) uint8 RGB")
    known = image.dtype == torch.uint8 or image.is_floating_point()
    if tuple(image.shape) != (*size, 3) or not known:
        raise ShapeError(
            f"got an image of {tuple(image.shape)} {image.dtype}; wanted {(*size, 3)} uint8 RGB, "
            "as large as the unary: resize one to the other"
        )
    color = image.to(like.device, like.dtype) / kernel.rgb
    return torch.cat([position, color], -1).flatten(0, 1)


def find_crf(crf: DenseCRF | str) -> DenseCRF:
    """Look up a CRF by its name in `CRF_PRESETS`, or check one; raises an `OptionError`."""
    if isinstance(crf, str):
        require_choice("CRF preset", crf, CRF_PRESETS)
        return CRF_PRESETS[crf]
    require_type("crf", crf, DenseCRF, f"a DenseCRF, or one of {', '.join(CRF_PRESETS)}")
    require_choice("normalization", crf.normalization, NORMALIZATIONS)
    deviations = [s for k in crf.kernels for s in (k.xy, k.rgb) if s is not None]
    if not crf.kernels or not all(0 < s < torch.inf for s in deviations):
        raise OptionError(f"got kernels {crf.kernels}; wanted one or more, with deviations above 0")
    if not all(0 <= k.weight < torch.inf for k in crf.kernels):
        raise OptionError(f"got kernels {crf.kernels}; wanted finite weights of 0 or more")
    if crf.iterations < 0 or not 0 <= crf.prune < 1:
        raise OptionError(
            f"got iterations={crf.iterations}, prune={crf.prune}; wanted 0 or more iterations, "
            "and prune from 0 to below 1"
        )
    if crf.clip is not None and not 0 < crf.clip <= 1:
        raise OptionError(f"got clip={crf.clip}; wanted more than 0 and at most 1, or None")
    return crf


def _normalized(
    kernel: Kernel,
    size: tuple[int, int],
    image: Tensor | None,
    normalization: Normalization,
    like: Tensor,
) -> tuple[Lattice, Tensor | None, Tensor | None]:
    """The lattice of a kernel, and the factors to multiply with before and after it."""
    if kernel.rgb is None:
        return _of_positions(kernel.xy, size, normalization, like.dtype, like.device)
    lattice = Lattice(features(kernel, size, image, like))
    return lattice, *_scales(lattice, normalization)


@lru_cache(4)
def _of_positions(
    xy: float,
    size: tuple[int, int],
    normalization: Normalization,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Lattice, Tensor | None, Tensor | None]:
    """All images of a size have the same lattice without colors; the last few are cached."""
    with torch.inference_mode(False):  # inference tensors could not be used for gradients later
        like = torch.empty(0, dtype=dtype, device=device)
        lattice = Lattice(features(Kernel(xy, 1), size, None, like))
        return lattice, *_scales(lattice, normalization)


def _scales(lattice: Lattice, normalization: str) -> tuple[Tensor | None, Tensor | None]:
    if normalization == "none":
        return None, None
    ones = torch.ones_like(lattice.slice.weight[: lattice.points, None])
    # the constant of the authors' code
    total = lattice.filter(ones).flatten() + 1e-20
    if normalization == "symmetric":
        return total.rsqrt(), total.rsqrt()
    return (1 / total, None) if normalization == "before" else (None, 1 / total)
