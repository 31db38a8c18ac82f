"""Network deconvolution: layers that whiten their input, as an alternative to batch norm.

A convolution sees patches whose pixels and channels are correlated. Network deconvolution
estimates the mean and covariance of these patches, and multiplies the filters by the inverse square
root of the covariance, so that the layer acts as if its input were uncorrelated. In evaluation it
is a plain convolution. `unpool.models.norms` adds these layers to networks.

Letters: N batch, C channels, k kernel; n samples of d values, G blocks of channels.

Ye, Evanusa, He, Mitrokhin, Goldstein, Yorke, Fermüller, Aloimonos 2020 (arXiv 1905.11926).
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError, require_int

Layer = TypeVar("Layer", bound=nn.Module)

Start = Literal["mean", "first", "identity"]
"""The start of running statistics: the mean of the first batches, until the moving average with
`momentum` is slower; a copy of those of the first batch; or zero mean and the identity."""


def inverse_root(matrix: Tensor, steps: int = 5) -> Tensor:
    """The inverse square root of symmetric positive definite matrices, by Newton-Schulz iteration.

    With few steps, small eigenvalues are amplified less than by the exact root, which regularizes;
    20 steps are exact for condition numbers up to ten thousand.

    Args:
        matrix: (..., d, d).
        steps: number of iterations.

    Returns:
        (..., d, d), symmetric up to rounding.

    Ye et al. 2020; the released `isqrt_newton_schulz_autograd`.

    >>> inverse_root(torch.diag(torch.tensor([4.0, 1.0])), steps=20)
    tensor([[0.5000, 0.0000],
            [0.0000, 1.0000]])
    """
    if matrix.dim() < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ShapeError(f"got {tuple(matrix.shape)}; wanted square matrices (..., d, d)")
    size = torch.linalg.matrix_norm(matrix, keepdim=True)  # Frobenius norm
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    # the iteration converges for eigenvalues up to 1 only
    y, z = matrix / size, identity.expand_as(matrix)
    for _ in range(steps):
        t = (3 * identity - z @ y) / 2
        y, z = y @ t, t @ z
    return z / size.sqrt()


class Whitening(nn.Module):
    """Estimate the mean and inverse root covariance of samples, and whiten with them.

    As in batch norm, training uses the statistics of the batch, and evaluation running statistics,
    which are zero and the identity before the first batch. All are in float32 or better.

    Args:
        matrices: number A of independent estimates.
        size: number d of values in a sample.
        eps: added to the variances.
        steps: number of steps of `inverse_root`.
        momentum: of the running statistics; None for their mean over all batches, 0 to keep them.
        freeze: of every `10 * freeze` training steps, only the first `freeze` update the
            statistics; the others use the running statistics.
        start: the start of the running statistics.
        centered: subtract the mean before computing the covariance.
        interleaved: of G d values, a block has every G-th, in place of d contiguous values.

    >>> whitening = Whitening(1, 2, eps=0, steps=20)
    >>> samples = torch.randn(1, 500, 2) @ torch.tensor([[2.0, 1.0], [0.0, 0.5]])
    >>> mean, root = whitening(lambda: samples)
    >>> torch.allclose(torch.cov(((samples - mean) @ root)[0].T), torch.eye(2), atol=0.01)
    True
    """

    mean: Tensor
    root: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        matrices: int,
        size: int,
        eps: float = 1e-5,
        steps: int = 5,
        momentum: float | None = 0.1,
        freeze: int | None = None,
        *,
        start: Start = "mean",
        centered: bool = True,
        interleaved: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("block", size), ("steps", steps), ("freeze", freeze or 1)):
            require_int(name, value)
        if not 0 <= eps <= 1 or not (momentum is None or 0 <= momentum <= 1):
            raise OptionError(f"got eps={eps}, momentum={momentum}; wanted numbers from 0 to 1")
        self.eps, self.steps, self.momentum, self.freeze = eps, steps, momentum, freeze
        self.start, self.centered, self.interleaved = start, centered, interleaved
        self.register_buffer("mean", torch.zeros(matrices, size))
        self.register_buffer("root", torch.eye(size).repeat(matrices, 1, 1))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, draw: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """The mean (A, d) and inverse root covariance (A, d, d) of samples (A, n, d).

        `draw` returns the samples; it is called only if they are needed.
        """
        if self.training and self.momentum != 0:
            self.num_batches_tracked += 1
        if not self.training or self._is_frozen():
            return self.mean, self.root
        # small eigenvalues, which the root amplifies most, are lost in bf16
        with _full_precision(self.mean):
            samples = draw()
            samples = samples.to(torch.promote_types(samples.dtype, torch.float32))
            count, size = samples.shape[1:]
            if not count:
                raise ShapeError("got an empty batch to train on; pass one or more samples")
            mean = samples.mean(1)
            apart = samples - mean[:, None] if self.centered else samples
            noise = self.eps * torch.eye(size, dtype=samples.dtype, device=samples.device)
            root = inverse_root(apart.transpose(1, 2) @ apart / count + noise, self.steps)
        self.update(self.mean, mean)
        self.update(self.root, root)
        return mean, root

    def filters(
        self, weight: Tensor, bias: Tensor | None, draw: Callable[[], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Combine whitening with the filters W and biases b of a layer.

        Args:
            weight: (O, ...), with G d values for each output; each of the A estimates applies to
                O / A outputs.
            bias: (O,), or None.
            draw: returns the samples, see `forward`; None for the running statistics.

        Returns:
            `W D` and `b - W D mean`, of the same shapes.
        """
        mean, root = (self.mean, self.root) if draw is None else self(draw)
        with _full_precision(weight):
            rows = weight.to(mean.dtype).reshape(len(mean), -1, weight[0].numel())
            blocks = self.split(rows) @ root[:, None]  # (A, O / A, G, d)
            shift = (blocks * mean[:, None, None]).sum((2, 3)).flatten()
            shifted = -shift if bias is None else bias - shift
            whitened = self.join(blocks).view_as(weight)
        return whitened.to(weight.dtype), shifted.to(weight.dtype)

    def split(self, values: Tensor) -> Tensor:
        """Split values (..., G d) into blocks (..., G, d)."""
        *rest, length, size = *values.shape, self.mean.shape[1]
        if self.interleaved:
            return values.reshape(*rest, size, length // size).transpose(-1, -2)
        return values.reshape(*rest, length // size, size)

    def join(self, blocks: Tensor) -> Tensor:
        """The inverse of `split`."""
        return (blocks.transpose(-1, -2) if self.interleaved else blocks).flatten(-2)

    @torch.no_grad()
    def update(self, running: Tensor, found: Tensor) -> None:
        """Move a running statistic towards that of the current batch, in place."""
        if self.momentum == 0:
            return
        part = 1 / self.num_batches_tracked.to(running.dtype)
        if self.momentum is not None and self.start != "mean":
            part = part.floor() if self.start == "first" else 0 * part  # 1 at first, or never
        running.lerp_(found.to(running.dtype), part.clamp_min(self.momentum or 0.0))

    @torch.no_grad()
    def reset_running_stats(self) -> None:
        """Reset the running statistics, as before the first batch."""
        self.num_batches_tracked.zero_()
        self.mean.zero_()
        self.root.copy_(torch.eye(self.root.shape[-1]))

    def _is_frozen(self) -> bool:
        freeze = self.freeze or 0
        return freeze > 0 and int(self.num_batches_tracked) % (10 * freeze) > freeze


class FastDeconv(nn.Conv2d):
    """A convolution that whitens its input patches; it replaces a convolution with batch norm.

    Channels are divided into G blocks. A sample consists of the k² pixels of one block, d = k² C /
    G values, and all blocks share one mean and one covariance; with `groups`, each group is a block
    with separate statistics. Patches extend over the border and include the zero padding.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in
            `nn.Conv2d`; padding must be numeric.
        block: number of channels in a block; if it does not divide the channels, the greatest
            common divisor is used. The cost of a step grows with d³: 16 is fast on a CPU.
        eps, steps, momentum: see `Whitening`.
        sampling: the statistics use every `sampling`-th patch along each axis.
        freeze: see `Whitening`; 100 for the first layer of the released networks.
        released: follow the authors' code: a block has every G-th value of all channels, not the
            values of C / G channels; and running statistics start from the identity.

    Ye et al. 2020; the released `FastDeconv`.

    >>> layer = FastDeconv(8, 4, 3, padding=1, block=4)
    >>> x = torch.randn(2, 8, 12, 12)
    >>> y = layer(x)
    >>> y.shape, torch.allclose(layer.eval()(x), layer.folded()(x))
    (torch.Size([2, 4, 12, 12]), True)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        block: int = 64,
        eps: float = 1e-5,
        steps: int = 5,
        momentum: float | None = 0.1,
        sampling: int = 3,
        freeze: int | None = None,
        released: bool = False,
    ) -> None:
        require_int("sampling", sampling)
        if isinstance(padding, str):
            raise OptionError(f"got padding={padding!r}; wanted it in numbers, such as padding=1")
        geometry: Any = (kernel_size, stride, padding, dilation, groups, bias)
        super().__init__(in_channels, out_channels, *geometry)
        self.block = _block(block, in_channels) if groups == 1 else in_channels // groups
        self.sampling = sampling
        size = math.prod(self.kernel_size) * self.block
        settings = size, eps, steps, momentum, freeze
        start: Start = "identity" if released else "mean"
        self.whitening = Whitening(groups, *settings, start=start, interleaved=released)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, O, H', W') from (N, C, H, W), as in `nn.Conv2d`."""
        parts = self.whitening.filters(self.weight, self.bias, partial(self._samples, x))
        return F.conv2d(x, *parts, self.stride, self.padding, self.dilation, self.groups)

    @torch.no_grad()
    def folded(self) -> nn.Conv2d:
        """The plain convolution that computes the same as this layer in evaluation."""
        geometry: Any = self.kernel_size, self.stride, self.padding, self.dilation, self.groups
        # without drawing random weights, which are replaced
        with torch.device("meta"):
            plain = nn.Conv2d(self.in_channels, self.out_channels, *geometry)
        return _fill(plain, *self.whitening.filters(self.weight, self.bias))

    def _samples(self, x: Tensor) -> Tensor:
        """The samples (groups, n G, d) of maps (N, C, H, W)."""
        step = tuple(stride * self.sampling for stride in self.stride)
        # `unfold` would copy all maps for patches of one pixel
        if self.kernel_size == (1, 1):
            rows = x.transpose(0, 1).flatten(1)[:, :: math.prod(step)].T  # (n, C)
        else:
            geometry: Any = self.kernel_size, self.dilation, self.padding, step
            rows = F.unfold(x, *geometry).transpose(1, 2).flatten(0, 1)  # (n, C k²)
        grouped = rows.view(len(rows), self.groups, rows.shape[1] // self.groups).transpose(0, 1)
        return self.whitening.split(grouped).flatten(1, 2)


class Delinear(nn.Linear):
    """A fully connected layer that whitens its input.

    Args:
        in_features, out_features, bias: as in `nn.Linear`.
        block: number of values in a block, see `FastDeconv`; blocks are contiguous in the released
            code, too.
        eps, steps, momentum, released: as in `FastDeconv`.

    Ye et al. 2020; the released `Delinear`.

    >>> layer = Delinear(20, 5, block=10)
    >>> layer(torch.randn(30, 20)).shape
    torch.Size([30, 5])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        block: int = 512,
        eps: float = 1e-5,
        steps: int = 5,
        momentum: float | None = 0.1,
        released: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.block = _block(block, in_features)
        settings = self.block, eps, steps, momentum
        self.whitening = Whitening(1, *settings, start="identity" if released else "mean")

    def forward(self, x: Tensor) -> Tensor:
        """Values (N, O) from (N, I)."""
        samples = partial(x.reshape, 1, -1, self.block)
        return F.linear(x, *self.whitening.filters(self.weight, self.bias, samples))

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """The plain layer that computes the same as this one in evaluation."""
        plain = nn.Linear(self.in_features, self.out_features, device="meta")
        return _fill(plain, *self.whitening.filters(self.weight, self.bias))


class ChannelDeconv(nn.Module):
    """Whiten channels, for example in front of a classifier.

    A pixel gives C / B samples of B channels each, which are C / B apart; all share one mean and
    covariance. If B does not divide C, the channels left at the end are normalized by one mean and
    variance.

    Args:
        block: number B of values in a sample.
        eps, steps, momentum: see `Whitening`.
        sampling: the statistics use one pixel in `sampling²`, if maps have at least `sampling` rows
            and columns.
        released: follow the authors' code: the mean is not subtracted before computing the
            covariance, and running statistics start as a copy of those of the first batch.

    Ye et al. 2020; the released `ChannelDeconv`.

    >>> ChannelDeconv(4)(torch.randn(2, 10, 6, 6)).shape
    torch.Size([2, 10, 6, 6])
    """

    rest_mean: Tensor
    rest_var: Tensor

    def __init__(
        self,
        block: int,
        eps: float = 1e-2,
        steps: int = 5,
        momentum: float | None = 0.1,
        sampling: int = 3,
        released: bool = False,
    ) -> None:
        super().__init__()
        require_int("sampling", sampling)
        start: Start = "first" if released else "mean"
        settings = block, eps, steps, momentum
        self.whitening = Whitening(1, *settings, start=start, centered=not released)
        self.block, self.eps, self.sampling = block, eps, sampling
        self.register_buffer("rest_mean", torch.zeros(()))
        self.register_buffer("rest_var", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Whiten (N, C, H, W) or (N, C); the shape does not change."""
        channels = x.shape[1] // self.block * self.block if x.dim() in (2, 4) else 0
        if not channels:
            wanted = f"(N, C, H, W) or (N, C) with {self.block} channels or more"
            raise ShapeError(f"got {tuple(x.shape)}; wanted {wanted}: choose a smaller block")
        step = self.sampling**2 if min(x.shape[2:], default=0) >= self.sampling else 1
        kept = x[:, :channels].transpose(0, 1)
        rows, rest = kept.reshape(self.block, -1), x[:, channels:]
        mean, root = self.whitening(lambda: rows[:, ::step].T[None])
        y = (root[0] @ (rows - mean[0, :, None])).view_as(kept).transpose(0, 1)
        return torch.cat([y, self._normalized(rest, step)], 1) if rest.numel() else y

    def _normalized(self, x: Tensor, step: int) -> Tensor:
        mean, var = self.rest_mean, self.rest_var
        if self.training:
            seen = x.flatten(1)[:, ::step]
            mean, var = seen.mean(), seen.var()
            self.whitening.update(self.rest_mean, mean)
            self.whitening.update(self.rest_var, var)
        return (x - mean) / (var + self.eps).sqrt()


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast; the meta device has none."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def _block(block: int, channels: int) -> int:
    require_int("block", block)
    return channels if block >= channels else math.gcd(block, channels)


def _fill(plain: Layer, weight: Tensor, bias: Tensor) -> Layer:
    """Assign weights to a layer on the meta device."""
    plain.weight, plain.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return plain.eval()
