"""Convolutional sparse coding: write an image as a sum of filters, placed where needed.

The synthesis F maps sparse feature maps z to an image, F z = sum over k of w_k * z_k. Coding finds
the maps: it minimizes 0.5 ||F z - y||^2 + lam |z|_1. In place of F there may be several layers,
joined by pooling over space and features. With fixed switches, such a map is still linear.

Letters: N batch, C channels, K maps, H and W image size, k side of the filters.
"""

import math
from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unpool.errors import OptionError, ShapeError
from unpool.ops.deconv import deconv

_TINY = 1e-30  #: replaces a zero divisor: the sum of squares of a tensor of zeros


class LinearMap(NamedTuple):
    """A linear map and its adjoint: <forward(z), y> = <z, adjoint(y)> for all z and y."""

    forward: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]


def chain(*maps: LinearMap) -> LinearMap:
    """The composition of linear maps; the last is applied first.

    >>> double, shift = LinearMap(lambda x: 2 * x, lambda y: 2 * y), LinearMap(*[torch.neg] * 2)
    >>> chain(double, shift).forward(torch.tensor(3.0))
    tensor(-6.)
    """
    return LinearMap(
        lambda z: reduce(lambda x, one: one.forward(x), reversed(maps), z),
        lambda y: reduce(lambda x, one: one.adjoint(x), maps, y),
    )


def synthesis(weight: Tensor) -> LinearMap:
    """Synthesize images (N, C, H, W) from maps (N, K, H + k - 1, W + k - 1) with filters.

    All positions of the filters cover every pixel, so there are no border effects.

    Args:
        weight: filters, (K, C, k, k). The adjoint is the convolution with the same tensor.

    Zeiler, Krishnan, Taylor, Fergus 2010, section 2.

    >>> layer = synthesis(torch.randn(5, 3, 7, 7))
    >>> layer.forward(torch.randn(2, 5, 26, 36)).shape
    torch.Size([2, 3, 20, 30])
    """
    padding = weight.shape[-1] - 1
    return LinearMap(
        lambda z: deconv(z, weight, padding=padding), lambda y: F.conv2d(y, weight, padding=padding)
    )


def unpooling(switches: "Switches3") -> LinearMap:
    """Unpooling by `unpool3` with fixed switches; its adjoint is `pool_at`."""
    return LinearMap(lambda p: unpool3(p, switches), lambda z: pool_at(z, switches))


def differentiated(function: Callable[[Tensor], Tensor], like: Tensor) -> LinearMap:
    """A linear function as a `LinearMap`, whose adjoint is computed by autograd.

    Args:
        function: a linear function, for example of the filters for fixed maps.
        like: a tensor of the shape, dtype and device of the argument.

    >>> x = torch.arange(3.0)
    >>> differentiated(lambda scale: scale * x, torch.zeros(())).adjoint(torch.ones(3))
    tensor(3.)
    """
    transpose: Callable[[Tensor], tuple[Tensor]] = torch.func.vjp(function, like)[1]
    return LinearMap(function, lambda y: transpose(y)[0])


# ---- pooling over features and space -------------------------------------------------------------


class Switches3(NamedTuple):
    """The positions of the maxima of `pool3`, and the size of its input."""

    index: Tensor  # type: ignore[assignment]
    """(N, ceil(K / maps), ceil(H / kernel), ceil(W / kernel)) int64: the position in a cell."""
    size: tuple[int, int, int]  #: (K, H, W) before pooling
    kernel: int
    maps: int


def pool3(z: Tensor, kernel: int = 3, maps: int = 2) -> tuple[Tensor, Switches3]:
    """Max pooling of magnitudes over space and neighboring feature maps, with switches.

    Each cell of `maps` maps, `kernel` rows and `kernel` columns keeps its signed value of largest
    magnitude, and of equal values the first by map, row and column. Incomplete cells are padded
    with zeros.

    Args:
        z: signed maps, (N, K, H, W).
        kernel: side of a cell.
        maps: number of neighboring maps in a cell.

    Returns:
        Pooled maps, (N, ceil(K / maps), ceil(H / kernel), ceil(W / kernel)), and their switches.

    Zeiler, Taylor, Fergus 2011, section 2.2.

    >>> z = torch.tensor([[[[1.0, 0.0]], [[0.0, -3.0]]]])
    >>> pooled, switches = pool3(z, kernel=2)
    >>> pooled, switches.index
    (tensor([[[[-3.]]]]), tensor([[[[5]]]]))
    """
    if z.dim() != 4 or 0 in z.shape[1:]:
        raise ShapeError(f"got maps of {tuple(z.shape)}; wanted (N, K, H, W)")
    if kernel < 1 or maps < 1:
        raise OptionError(f"got kernel={kernel}, maps={maps}; wanted 1 or more of each")
    cells = _cells(z, kernel, maps)
    index = cells.abs().argmax(-1)
    switches = Switches3(index, (z.shape[1], z.shape[2], z.shape[3]), kernel, maps)
    return cells.gather(-1, index[..., None])[..., 0], switches


def unpool3(p: Tensor, switches: Switches3) -> Tensor:
    """Put pooled values back at their switches; all other positions are zero.

    Args:
        p: pooled maps, of the shape that `pool3` returned with these switches.

    Returns:
        Maps, (N, *switches.size).

    >>> z = torch.randn(2, 5, 8, 7)
    >>> pooled, switches = pool3(z)
    >>> torch.equal(pool3(unpool3(pooled, switches))[0], pooled)
    True
    """
    if p.shape != switches.index.shape:
        raise ShapeError(
            f"got maps of {tuple(p.shape)} but switches recorded at "
            f"{tuple(switches.index.shape)}; pass the switches of the matching pool3"
        )
    (count, height, width), kernel, maps = switches.size, switches.kernel, switches.maps
    n, g, h, w = p.shape
    cells = p.new_zeros(n, g, h, w, maps * kernel * kernel)
    cells = cells.scatter(-1, switches.index[..., None], p[..., None])
    cells = cells.view(n, g, h, w, maps, kernel, kernel).permute(0, 1, 4, 2, 5, 3, 6)
    whole = cells.reshape(n, g * maps, h * kernel, w * kernel)
    return whole[:, :count, :height, :width]


def pool_at(z: Tensor, switches: Switches3) -> Tensor:
    """Take the values at given switches, wherever the maxima are: the adjoint of `unpool3`.

    Args:
        z: maps, (N, *switches.size).

    >>> z = torch.randn(2, 5, 8, 7)
    >>> pooled, switches = pool3(z)
    >>> torch.equal(pool_at(z, switches), pooled)
    True
    """
    wanted = (switches.index.shape[0], *switches.size)
    if z.shape != wanted:
        raise ShapeError(f"got maps of {tuple(z.shape)}; these switches are of {wanted}")
    cells = _cells(z, switches.kernel, switches.maps)
    return cells.gather(-1, switches.index[..., None])[..., 0]


def _cells(z: Tensor, kernel: int, maps: int) -> Tensor:
    """Reshape maps (N, K, H, W) to cells, (N, G, h, w, maps * kernel * kernel)."""
    n, count, height, width = z.shape
    # the last cells are completed with zeros, which win only where all are zero
    spare = -count % maps, -height % kernel, -width % kernel
    z = F.pad(z, (0, spare[2], 0, spare[1], 0, spare[0]))
    g, h, w = (count + spare[0]) // maps, z.shape[2] // kernel, z.shape[3] // kernel
    cells = z.view(n, g, maps, h, kernel, w, kernel).permute(0, 1, 3, 5, 2, 4, 6)
    return cells.reshape(n, g, h, w, maps * kernel * kernel)


# ---- coding --------------------------------------------------------------------------------------


def ista(
    y: Tensor,
    operator: LinearMap,
    lam: float,
    *,
    steps: int,
    bound: float | Tensor,
    start: Tensor | None = None,
) -> Tensor:
    """Code by iterative shrinkage: a gradient step, then soft thresholding.

    Each step lowers 0.5 ||operator(z) - y||^2 + lam |z|_1, provided that `bound` is a true bound.

    Args:
        y: the signals to code, such as images (N, C, H, W).
        operator: the linear map from codes to signals.
        lam: weight of sparsity; the code is zero if it is at least the maximum of |adjoint(y)|.
        steps: number of iterations.
        bound: upper bound of the largest eigenvalue of adjoint(forward), a number or (N, 1, 1, 1),
            see `synthesis_bound` and `power_bound`. The step size is 1 / bound.
        start: the initial code, by default zero.

    Returns:
        The code z, of the shape of operator.adjoint(y).

    Daubechies, Defrise, De Mol 2004; Zeiler, Taylor, Fergus 2011, section 2.3.

    >>> identity = LinearMap(lambda z: z, lambda y: y)
    >>> ista(torch.tensor([3.0, -0.5, -2.0]), identity, 1.0, steps=1, bound=1.0)
    tensor([ 2.,  0., -1.])
    """
    z = operator.adjoint(torch.zeros_like(y)) if start is None else start
    for _ in range(steps):
        z = _descend(z, y, operator, lam, bound)
    return z


def fista(
    y: Tensor,
    operator: LinearMap,
    lam: float,
    *,
    steps: int,
    bound: float | Tensor,
    start: Tensor | None = None,
) -> Tensor:
    """Code as `ista` does, accelerated: each step starts from an extrapolation of the last two.

    The distance from the smallest cost falls with the inverse square of the number of steps, but
    single steps may raise the cost.

    Beck, Teboulle 2009.

    >>> filters, y = torch.randn(4, 1, 5, 5), torch.randn(1, 1, 16, 16)
    >>> code = fista(y, synthesis(filters), 2.0, steps=50, bound=synthesis_bound(filters))
    >>> code.shape
    torch.Size([1, 4, 20, 20])
    """
    z = operator.adjoint(torch.zeros_like(y)) if start is None else start
    ahead, t = z, 1.0
    for _ in range(steps):
        last, z = z, _descend(ahead, y, operator, lam, bound)
        last_t, t = t, (1 + math.sqrt(1 + 4 * t * t)) / 2
        ahead = z + (last_t - 1) / t * (z - last)
    return z


def coding_cost(y: Tensor, operator: LinearMap, z: Tensor, lam: float) -> Tensor:
    """The cost that coding minimizes, 0.5 ||operator(z) - y||^2 + lam |z|_1, a scalar."""
    return 0.5 * (operator.forward(z) - y).square().sum() + lam * z.abs().sum()


def _descend(
    z: Tensor, y: Tensor, operator: LinearMap, lam: float, bound: float | Tensor
) -> Tensor:
    z = z - operator.adjoint(operator.forward(z) - y) / bound
    threshold = torch.as_tensor(lam / bound).to(z)
    return z - z.clamp(-threshold, threshold)  # exactly zero up to the threshold


def synthesis_bound(weight: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """An upper bound of the largest eigenvalue of F^T F for the synthesis F, a scalar.

    It is the largest energy of all filters together at one frequency. For one channel, this is the
    eigenvalue for periodic images; for C channels, it is at most C times the eigenvalue.

    Args:
        weight: filters, (K, C, k, k).
        size: (H, W) of the grid of frequencies; by default the larger of 64 and 8 k.

    >>> synthesis_bound(torch.ones(2, 1, 3, 3))
    tensor(162.)
    """
    side = max(64, 8 * weight.shape[-1])
    spectrum = torch.fft.rfft2(weight, s=size or (side, side))
    return (spectrum.real.square() + spectrum.imag.square()).sum((0, 1)).amax()


def power_bound(operator: LinearMap, start: Tensor, steps: int = 8) -> Tensor:
    """An estimate of the largest eigenvalue of adjoint(forward), by power iterations, plus 5 %.

    Args:
        operator: a linear map that does not mix the samples of a batch.
        start: initial codes, (N, K, H, W), such as operator.adjoint(images).
        steps: number of iterations.

    Returns:
        (N, 1, 1, 1), above zero.

    >>> double = LinearMap(lambda z: 2 * z, lambda y: 2 * y)
    >>> power_bound(double, torch.rand(1, 2, 3, 3)).flatten()
    tensor([4.2000])
    """
    for _ in range(steps):
        start = operator.adjoint(operator.forward(start / _length(start)))
    # power iterations approach the eigenvalue from below, and with too small a bound coding
    # diverges
    return 1.05 * _length(start)


def _length(z: Tensor) -> Tensor:
    """The norm of each sample, (N, 1, 1, 1); a tiny number for zeros."""
    return z.square().sum((1, 2, 3), keepdim=True).clamp_min(_TINY).sqrt()


def conjugate_gradients(y: Tensor, operator: LinearMap, x: Tensor, steps: int) -> Tensor:
    """Lower ||operator(x) - y||^2 by conjugate gradient steps, starting from x.

    Hestenes, Stiefel 1952, on the normal equations.

    >>> square = LinearMap(lambda x: 3 * x, lambda y: 3 * y)
    >>> conjugate_gradients(torch.tensor([6.0, 9.0]), square, torch.zeros(2), 1)
    tensor([2., 3.])
    """
    residual = y - operator.forward(x)
    gradient = direction = operator.adjoint(residual)
    size = gradient.square().sum()
    for _ in range(steps):
        change = operator.forward(direction)
        step = size / change.square().sum().clamp_min(_TINY)
        x, residual = x + step * direction, residual - step * change
        gradient, last = operator.adjoint(residual), size
        size = gradient.square().sum()
        direction = gradient + size / last.clamp_min(_TINY) * direction
    return x
