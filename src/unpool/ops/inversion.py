"""Restore images that were blurred by a known PSF: linear filters and iterative methods, by FFT.

Images and PSFs are as in `unpool.ops.blur`. An FFT treats an image as periodic, so that
opposite borders meet and cause ringing. `EDGES` lists the ways to extend the image:

- `"ramp"`: on the right and below, by the size of the PSF, with a linear ramp from the last line to
  the first; the best and smallest extension for every method here;
- `"reflect"`: on all sides, by its mirror image;
- `"zero"`: by black;
- `"none"`: not at all.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unpool.errors import OptionError, ShapeError, require_choice, require_int
from unpool.ops.blur import fast_length, outside, require_fit, require_room, transfer_function
from unpool.recipes.presets import EDGES, Edges

# ---- linear --------------------------------------------------------------------------------------


def wiener(y: Tensor, psf: Tensor, balance: float | Tensor, edges: Edges = "ramp") -> Tensor:
    """Restore images by the Wiener filter with a flat prior: conj(H) Y / (|H|^2 + balance).

    Args:
        y: blurred images, (N, C, H, W) or (N, C, D, H, W), floating-point.
        psf: (h, w), odd; see the module.
        balance: noise power over signal power; 0 gives the inverse filter.
        edges: see the module.

    Returns:
        Restored images, of the same size.

    Wiener 1949.

    >>> from unpool.ops.blur import blur
    >>> y = blur(torch.rand(1, 1, 8, 8), torch.tensor([[0.1, 0.8, 0.1]]), "periodic")
    >>> restored = wiener(y, torch.tensor([[0.1, 0.8, 0.1]]), 0.0, "none")
    >>> torch.allclose(blur(restored, torch.tensor([[0.1, 0.8, 0.1]]), "periodic"), y, atol=1e-5)
    True
    """
    grid = _Grid.of(y, psf, edges)
    return grid.restore(_regularized(grid, balance, 1.0))


def tikhonov(y: Tensor, psf: Tensor, balance: float | Tensor, edges: Edges = "ramp") -> Tensor:
    """Restore images by regularized inversion: conj(H) Y / (|H|^2 + balance |L|^2).

    L is the Laplacian: fine detail, where images have little energy, is damped most. With
    `edges="none"` this is `skimage.restoration.wiener`.

    Args:
        y, psf, edges: as in `wiener`.
        balance: the weight of the Laplacian.

    Hunt 1973; Orieux, Giovannelli, Rodet 2010, equation 1.

    >>> y = torch.rand(1, 1, 8, 8)
    >>> torch.allclose(tikhonov(y, torch.ones(1, 1), 0.0, "none"), y, atol=1e-6)
    True
    """
    grid = _Grid.of(y, psf, edges)
    return grid.restore(_regularized(grid, balance, grid.laplacian.square()))


def residuals(
    y: Tensor, psf: Tensor, steps: Sequence[int], rate: float = 1.0, edges: Edges = "ramp"
) -> Tensor:
    """Iterative residual deconvolution: x_n = rate H^T sum_{i < n} (I - rate H H^T)^i y.

    Each step adds the restored residual of the step before. All steps are linear in y, so any
    number of them costs one inverse FFT.

    Args:
        y, psf, edges: as in `wiener`.
        steps: the numbers of steps n after which to return x_n.
        rate: step size of the iteration, below 2 / max |H|^2; 1 for a PSF of sum 1.

    Returns:
        (S, N, C, H, W), one result for each of `steps`.

    Li Si-Yao et al. 2018 (arXiv 1804.06042).

    >>> y = torch.rand(1, 1, 8, 8)
    >>> residuals(y, torch.ones(1, 1), [1, 4]).shape
    torch.Size([2, 1, 1, 8, 8])
    """
    grid = _Grid.of(y, psf, edges)
    power = rate * _power(grid.otf)
    # `where` computes both branches, and one that is not finite would spoil the gradient of the
    # other
    few = power.clamp(min=torch.finfo(power.dtype).tiny, max=0.5)
    found = []
    for n in steps:
        require_int("steps", n)
        # 1 - (1 - P)^n loses precision where P is small
        gain = torch.where(
            power < 0.5,
            -torch.expm1(n * torch.log1p(-few)) / few,
            (1 - (1 - power) ** n) / power.clamp_min(0.5),
        )
        found.append(grid.restore(rate * gain * grid.otf.conj()))
    return torch.stack(found)


def _regularized(grid: "_Grid", balance: float | Tensor, prior: float | Tensor) -> Tensor:
    if not isinstance(balance, Tensor):
        _require_weight("balance", balance)
    # without regularization, it is 0 where the transfer function is
    denominator = _power(grid.otf) + balance * prior
    return grid.otf.conj() / denominator.clamp_min(torch.finfo(denominator.dtype).tiny)


# ---- iterative -----------------------------------------------------------------------------------


def total_variation(
    y: Tensor, psf: Tensor, lam: float | Tensor, steps: int = 25, edges: Edges = "ramp"
) -> Tensor:
    """Restore images with sparse gradients: minimize 1/2 |k * x - y|^2 + lam sum |grad x|.

    Solved by ADMM with penalty 10 lam; every step costs two FFTs. The gradient has a
    component for each axis, and |grad x| is its length.

    Args:
        y, psf, edges: as in `wiener`.
        lam: weight of the total variation, in the unit of y; 0 gives the inverse filter. A tensor
            (N, 1, 1, 1) above 0 has one for each image.
        steps: number of iterations; 25 are enough.

    Rudin, Osher, Fatemi 1992; Wang, Yang, Yin, Zhang 2008.

    >>> y = torch.full((1, 1, 8, 8), 0.5)
    >>> torch.allclose(total_variation(y, torch.ones(1, 1), 0.1), y, atol=1e-6)
    True
    """
    require_int("steps", steps)
    if not isinstance(lam, Tensor):
        _require_weight("lam", lam)
        if not lam:
            return wiener(y, psf, 0.0, edges)
    grid = _Grid.of(y, psf, edges)
    rho = 10 * lam
    data = grid.otf.conj() * grid.transform(grid.y)
    scale = 1 / (_power(grid.otf) + rho * grid.laplacian)
    spectrum = data * scale
    dual = y.new_zeros(())
    for _ in range(steps):
        slope = _gradient(grid.invert(spectrum), grid.axes).add_(dual)
        # the next dual variable is cut to a length of lam / rho; the rest is the sparse gradient
        length = _length(slope)
        dual = slope * (lam / rho / length.clamp_min(lam / rho))
        target = grid.transform(_gradient_adjoint(slope - 2 * dual, grid.axes))
        spectrum = target.mul_(rho).add_(data).mul_(scale)
    return grid.crop(grid.invert(spectrum))


def richardson_lucy(
    y: Tensor,
    psf: Tensor,
    steps: int = 30,
    edges: Edges = "ramp",
    *,
    start: float | None = None,
    accelerate: bool = False,
    tv: float = 0.0,
) -> Tensor:
    """Restore images of counts: the most likely non-negative image under Poisson noise.

    Each step is x <- x (k~ * (y / (k * x))), where k~ is the kernel rotated by 180 degrees. More
    steps restore finer detail, and finally amplify noise. With `edges="zero"` and `start=0.5` this
    is `skimage.restoration.richardson_lucy`.

    Args:
        y: blurred images, non-negative; see `wiener`.
        psf: non-negative, of sum 1.
        steps: number of iterations.
        edges: see the module.
        start: a constant initial image; by default y.
        accelerate: extrapolate from the last two steps, which saves about two thirds of the steps.
        tv: weight of the total variation, such as 0.002.

    Raises:
        ShapeError, OptionError: an image has values below 0, or an argument does not fit.

    Richardson 1972; Lucy 1974; Biggs, Andrews 1997 (acceleration); Dey et al. 2006 (tv).

    >>> y = torch.rand(1, 1, 8, 8)
    >>> torch.allclose(richardson_lucy(y, torch.ones(1, 1), 3), y, atol=1e-5)
    True
    """
    require_int("steps", steps)
    _require_weight("tv", tv)
    if y.numel() and (low := float(y.detach().amin())) < 0:
        raise ShapeError(
            f"got an image with values down to {low:.3g}; Richardson-Lucy restores counts, "
            "wanted 0 or more: subtract no background, or use tikhonov or total_variation"
        )
    grid = _Grid.of(y, psf, edges)
    inside = grid.mask() if edges == "zero" else None
    x = grid.y if start is None else torch.full_like(grid.y, start)
    # as in scikit-image, there is no light outside of the image
    x = x if inside is None else x * inside
    # rounding can make values near 0 negative, and their quotients huge
    limits = torch.finfo(y.dtype)
    floor = max(limits.eps * float(y.detach().amax()), limits.tiny)
    otf, turned = grid.otf, grid.otf.conj().resolve_conj()
    # the first step has no other before it from which to extrapolate
    before, change, ahead = x, torch.zeros_like(x), y.new_zeros(())
    for _ in range(steps):
        guess = (x + ahead * (x - before)).clamp_min(0) if accelerate else x
        # in place, since allocating memory costs as much as the arithmetic
        ratio = grid.y / grid.invert(grid.transform(guess).mul_(otf)).clamp_min_(floor)
        factor = grid.invert(grid.transform(ratio).mul_(turned)).clamp_min_(0)
        if tv:
            factor = factor / _smoothness(guess, grid.axes, tv)
        factor = factor if inside is None else factor.mul_(inside)
        before, x = x, guess * factor
        if accelerate:
            last, change = change, x - guess
            ahead = _extrapolation(change, last, grid.axes)
    return grid.crop(x)


def _extrapolation(change: Tensor, last: Tensor, axes: list[int]) -> Tensor:
    """How far to extrapolate along the last steps, 0 to 1 (Biggs, Andrews 1997)."""
    both, alone = ((change * last).sum(axes, keepdim=True), last.square().sum(axes, keepdim=True))
    return (both / alone.clamp_min(torch.finfo(last.dtype).tiny)).clamp(0, 1)


def _smoothness(x: Tensor, axes: list[int], tv: float) -> Tensor:
    """1 - tv div(grad x / |grad x|), by which a step of Richardson-Lucy is divided."""
    slope = _gradient(x, axes)
    length = _length(slope)
    unit = slope / length.clamp_min(torch.finfo(x.dtype).eps)
    # a large weight would make the divisor 0 or negative, and the image with it
    return (1 + tv * _gradient_adjoint(unit, axes)).clamp_min(0.1)


def _gradient(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Differences to the next pixel along each axis, periodic: (axes, *x.shape)."""
    return torch.stack([x.roll(-1, axis) - x for axis in axes])


def _length(slope: Tensor) -> Tensor:
    """The length of gradients, with a finite derivative where they are 0."""
    return slope.square().sum(0).add_(torch.finfo(slope.dtype).tiny).sqrt()


def _gradient_adjoint(slope: Tensor, axes: Sequence[int]) -> Tensor:
    parts = [s.roll(1, axis) - s for s, axis in zip(slope, axes, strict=True)]
    return torch.stack(parts).sum(0)


# ---- noise ---------------------------------------------------------------------------------------


def noise_level(y: Tensor) -> Tensor:
    """Estimate the standard deviation of white noise in each channel, (N, C).

    This is 1.4826 times the median absolute diagonal detail of 2 x 2 pixels (the Haar wavelet),
    which in images, and especially in blurred ones, is mostly noise. For volumes (N, C, D, H, W),
    the median is over all slices.

    Donoho, Johnstone 1994.

    >>> _ = torch.manual_seed(0)
    >>> round(noise_level(0.5 + 0.01 * torch.randn(1, 1, 256, 256)).item(), 3)
    0.01
    """
    if y.dim() < 4 or min(y.shape[-2:]) < 2:
        got = f"got images of {tuple(y.shape)}"
        raise ShapeError(f"{got}; wanted (N, C, H, W), of 2 x 2 pixels or more")
    height, width = (n - n % 2 for n in y.shape[-2:])
    even = y[..., :height, :width]
    a, b = even[..., ::2, ::2], even[..., ::2, 1::2]
    c, d = even[..., 1::2, ::2], even[..., 1::2, 1::2]
    return 1.4826 * ((a - b - c + d) / 2).abs().flatten(2).median(2).values


# ---- the periodic grid ---------------------------------------------------------------------------


class _Grid(NamedTuple):
    """An image on a periodic grid, the transfer function of the PSF, and its squared Laplacian."""

    y: Tensor  #: the image with extended borders
    otf: Tensor  #: transfer function of the PSF, as from `rfftn`
    laplacian: Tensor  #: transfer function of the Laplacian, 4 - 2 cos u - 2 cos v
    before: tuple[int, ...]  #: pixels in front of the image, along each axis
    size: tuple[int, ...]  #: size of the image

    @classmethod
    def of(cls, y: Tensor, psf: Tensor, edges: str) -> "_Grid":
        """Extend an image by one of `EDGES`."""
        sides = require_fit(y, psf)
        require_choice("edges", edges, EDGES)
        size, before = tuple(y.shape[2:]), [0] * len(sides)
        for i, side in enumerate(sides):
            match edges:
                case "ramp":
                    # a ramp has no step that rings, so one PSF is enough; the rest makes the FFT
                    # fast
                    y = _ramp(y, i + 2, fast_length(size[i] + side) - size[i])
                case "reflect":
                    before[i] = side
                    after = fast_length(size[i] + 2 * before[i]) - size[i] - before[i]
                    place = outside(y, size[i], before[i], "reflect", after)
                    y = y.index_select(i + 2, place)
                case "zero":
                    # half a PSF: light of one border does not reach the opposite one
                    more = fast_length(size[i] + side // 2) - size[i]
                    y = F.pad(y, [0, 0] * (len(sides) - 1 - i) + [0, more])
        require_room(y.shape[2:], sides)
        return cls(y, transfer_function(psf, y.shape[2:]), _laplacian(y), tuple(before), size)

    @property
    def axes(self) -> list[int]:
        return list(range(2, self.y.dim()))

    def transform(self, x: Tensor) -> Tensor:
        return torch.fft.rfftn(x, dim=self.axes)

    def invert(self, spectrum: Tensor) -> Tensor:
        return torch.fft.irfftn(spectrum, self.y.shape[2:], self.axes)

    def restore(self, transfer: Tensor) -> Tensor:
        """Apply a linear filter, and crop the image."""
        return self.crop(self.invert(self.transform(self.y) * transfer))

    def crop(self, x: Tensor) -> Tensor:
        """Crop a grid to the image."""
        for axis, (start, length) in enumerate(zip(self.before, self.size, strict=True), 2):
            x = x.narrow(axis, start, length)
        return x

    def mask(self) -> Tensor:
        """1 on the image, 0 around it."""
        mask = torch.zeros_like(self.y)
        self.crop(mask).fill_(1)
        return mask


def _ramp(y: Tensor, axis: int, more: int) -> Tensor:
    """Add pixels at the end of an axis, a linear ramp from the last to the first."""
    first, last = y.narrow(axis, 0, 1), y.narrow(axis, y.shape[axis] - 1, 1)
    weight = torch.arange(1, more + 1, dtype=y.dtype, device=y.device) / (more + 1)
    weight = weight.reshape([more if i == axis else 1 for i in range(y.dim())])
    return torch.cat([y, last + (first - last) * weight], axis)


def _laplacian(y: Tensor) -> Tensor:
    total = y.new_zeros(())
    sizes = y.shape[2:]
    for i, n in enumerate(sizes):
        count = n if i < len(sizes) - 1 else n // 2 + 1
        # 2 - 2 cos of a low frequency has no digits left in single precision
        place = torch.arange(count, dtype=torch.float64, device=y.device)
        wave = (2 - 2 * torch.cos(2 * math.pi / n * place)).to(y.dtype)
        total = total + wave.reshape([-1] + [1] * (len(sizes) - 1 - i))
    return total


def _power(otf: Tensor) -> Tensor:
    return otf.real.square() + otf.imag.square()


def _require_weight(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise OptionError(f"got {name}={value}; wanted a finite number of 0 or more")
