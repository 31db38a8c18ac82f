"""Blur: convolution with a point spread function (PSF), and its adjoint.

The model is y = k * x + n with a true convolution: the kernel is rotated by 180 degrees, unlike in
`conv2d`. The origin of the PSF is its center, so its sides are odd.

Letters: N batch, C channels; images are (N, C, H, W), volumes (N, C, D, H, W). A PSF
has the dimensions of the image, (h, w) or (d, h, w). Different PSFs for images or channels are
(N, C, h, w), where N or C is 1 if they share a PSF.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from unpool.errors import ShapeError, require_choice

Borders: TypeAlias = Literal["reflect", "zero", "periodic", "valid"]
BORDERS = ("reflect", "zero", "periodic", "valid")


def blur(x: Tensor, psf: Tensor, border: Borders = "reflect") -> Tensor:
    """Convolve images with a PSF.

    Args:
        x: (N, C, H, W) or (N, C, D, H, W), floating-point.
        psf: (h, w), odd; see the module.
        border: what lies outside of the image: its mirror image, zeros, or its opposite side;
            `"valid"` omits the pixels that would need it, (h - 1, w - 1) in total.

    >>> x = torch.zeros(1, 1, 4, 4)
    >>> x[..., 1, 1] = 1
    >>> blur(x, torch.tensor([[0.2, 0.3, 0.5]]))[0, 0, 1].abs().round(decimals=3)
    tensor([0.2000, 0.3000, 0.5000, 0.0000])
    """
    sides = require_fit(x, psf)
    require_choice("border", border, BORDERS)
    if border != "valid":
        for axis, side in enumerate(sides, 2):
            x = _extend(x, axis, side // 2, border)
    size = x.shape[2:]
    require_room(size, sides)
    found = _convolve(x, psf, size)
    for axis, side in enumerate(sides, 2):
        found = found.narrow(axis, side - 1, size[axis - 2] - side + 1)
    return found


def blur_adjoint(y: Tensor, psf: Tensor, border: Borders = "reflect") -> Tensor:
    """The adjoint of `blur`: `(blur(x, psf) * y).sum() == (x * blur_adjoint(y, psf)).sum()`.

    Args:
        y: a blurred image, or a difference of blurred images; smaller if the border is "valid".
        psf, border: as in `blur`.

    >>> y = torch.zeros(1, 1, 4, 4)
    >>> y[..., 1, 1] = 1
    >>> blur_adjoint(y, torch.tensor([[0.2, 0.3, 0.5]]), "zero")[0, 0, 1].abs().round(decimals=3)
    tensor([0.5000, 0.3000, 0.2000, 0.0000])
    """
    sides = require_fit(y, psf)
    require_choice("border", border, BORDERS)
    axes = range(2, y.dim())
    size = [n + side - 1 for n, side in zip(y.shape[2:], sides, strict=True)]
    found = _convolve(y, psf.flip([axis - y.dim() for axis in axes]), size)
    if border != "valid":
        for axis, side in zip(axes, sides, strict=True):
            found = _fold(found, axis, side // 2, border)
    return found


def _convolve(x: Tensor, psf: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` values of the full convolution, or the periodic one of that size."""
    axes = list(range(2, x.dim()))
    # what wraps around reaches the first side - 1 values only, and `blur` cuts those off
    fast = [fast_length(n) for n in size]
    ends = [axis - x.dim() for axis in axes]
    product = torch.fft.rfftn(x, fast, axes) * torch.fft.rfftn(psf, fast, ends)
    found = torch.fft.irfftn(product, fast, axes)
    for axis, n in zip(axes, size, strict=True):
        found = found.narrow(axis, 0, n)
    return found


def _extend(x: Tensor, axis: int, reach: int, border: str) -> Tensor:
    if border == "zero":
        pad = [0, 0] * (x.dim() - 1 - axis) + [reach, reach]
        return F.pad(x, pad)
    return x.index_select(axis, outside(x, x.shape[axis], reach, border))


def _fold(x: Tensor, axis: int, reach: int, border: str) -> Tensor:
    """The transpose of `_extend`."""
    inside = x.shape[axis] - 2 * reach
    if border == "zero":
        return x.narrow(axis, reach, inside)
    shape = [inside if i == axis else n for i, n in enumerate(x.shape)]
    return x.new_zeros(shape).index_add(axis, outside(x, inside, reach, border), x)


def outside(x: Tensor, length: int, reach: int, border: str, after: int | None = None) -> Tensor:
    """The positions, 0 to length - 1, that positions from -reach to length + after map to."""
    after = reach if after is None else after
    place = torch.arange(-reach, length + after, device=x.device)
    if border == "periodic":
        return place % length
    # the pixel at the border is repeated; a PSF may reach beyond the image, and back
    place = place % (2 * length)
    return torch.minimum(place, 2 * length - 1 - place)


def transfer_function(psf: Tensor, size: Sequence[int]) -> Tensor:
    """The transfer function of a PSF whose center is the origin."""
    dims = len(size)
    sides = psf.shape[-dims:]
    pad = [p for n, side in zip(size, sides, strict=True) for p in (n - side, 0)][::-1]
    ends = list(range(-dims, 0))
    # with its corner as the origin, a PSF would shift the image by half its size
    centered = F.pad(psf, pad).roll([-(side // 2) for side in sides], ends)
    return torch.fft.rfftn(centered, dim=ends)


def fast_length(n: int) -> int:
    """The next larger length without prime factors above 5, for which the FFT is fast.

    >>> fast_length(1031)
    1080
    """
    while True:
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 1


def require_fit(x: Tensor, psf: Tensor) -> tuple[int, ...]:
    """The sides of a PSF; raises a `ShapeError` if it does not fit the images."""
    dims = x.dim() - 2
    if dims not in (2, 3) or x.dtype not in (torch.float32, torch.float64) or not x.numel():
        got = f"got images of {tuple(x.shape)} and {x.dtype}".replace("torch.", "")
        raise ShapeError(
            f"{got}; wanted (N, C, H, W) or (N, C, D, H, W), float32 or float64: pass x.float(), "
            "and a single image as x[None, None]"
        )
    shared = psf.dim() == dims
    own = psf.dim() == dims + 2 and all(psf.shape[i] in (1, x.shape[i]) for i in (0, 1))
    if not (shared or own) or psf.dtype != x.dtype:
        got = f"got a PSF of {tuple(psf.shape)} and {psf.dtype} for images of {tuple(x.shape)}"
        wanted = "(h, w) or (N, C, h, w)" if dims == 2 else "(d, h, w) or (N, C, d, h, w)"
        raise ShapeError(f"{got} and {x.dtype}; wanted {wanted} of the same type")
    sides = tuple(psf.shape[-dims:])
    if not all(side % 2 for side in sides):
        got = f"got a PSF of {' x '.join(map(str, sides))}"
        raise ShapeError(
            f"{got}; wanted odd sides, so that a pixel is the center: add a row or column of zeros"
        )
    return sides


def require_room(size: Sequence[int], sides: Sequence[int]) -> None:
    """Raise a `ShapeError` if a PSF is larger than the image."""
    if any(n < side for n, side in zip(size, sides, strict=True)):
        got = f"got a PSF of {tuple(sides)} for images of {tuple(size)}"
        raise ShapeError(f"{got}; wanted a smaller one: crop it, or choose edges='ramp'")
