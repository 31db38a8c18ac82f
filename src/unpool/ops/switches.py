"""Max pooling that remembers its switches, and the unpooling that uses them.

Pooling keeps the maximum of each window and a *switch*: the position of that maximum. Unpooling
writes values back to the positions given by the switches; all other positions are zero.

Letters: N batch, C channels, H W before pooling, h w after.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unpool.errors import OptionError, ShapeError, require_choice


class Switches(NamedTuple):
    """The positions of the maxima of a pooling, and the size of its input.

    The dtype of `index` says which of two equivalent forms it has:

    - int64, the *flat* form: the position `row * W + column` in the channel's H x W plane, as in
      `torch.nn.functional.max_pool2d` and in the authors' pooling masks. For any window.
    - uint8, the *phase* form: the position 0..3 (row-major) in a 2 x 2 window of stride 2. It
      takes an eighth of the memory, needs no scatter, and exports to engines without unpooling.

    Because the size is stored with the switches, odd sizes, `ceil`, padding and overlapping
    windows are undone without an `output_size` argument.

    >>> _, switches = pool(torch.rand(1, 1, 5, 7), ceil=True)
    >>> switches.phase
    Switches((1, 1, 3, 4) of maps (5, 7), disjoint, phase)
    """

    index: Tensor  # type: ignore[assignment]  #: (N, C, h, w), int64 (flat) or uint8 (phase)
    size: tuple[int, int]  #: (H, W) of the maps before pooling
    disjoint: bool = False  #: no position is in two windows (stride >= kernel)

    def __repr__(self) -> str:
        if not isinstance(self.index, Tensor):  # while torch flattens structures
            return tuple.__repr__(self)
        form = "phase" if self.index.dtype == torch.uint8 else "flat"
        windows = "disjoint" if self.disjoint else "overlapping"
        return f"Switches({tuple(self.index.shape)} of maps {self.size}, {windows}, {form})"

    @property
    def phase(self) -> "Switches":
        """The same switches in the phase form; for 2 x 2 windows of stride 2 without padding."""
        if self.index.dtype == torch.uint8:
            return self
        row, column = self.index // self.size[1], self.index % self.size[1]
        phase = self._replace(index=(row % 2 * 2 + column % 2).to(torch.uint8), disjoint=True)
        if not torch.equal(phase.flat.index, self.index):
            raise ShapeError(
                f"got switches of {tuple(self.index.shape[-2:])} windows on maps of {self.size} "
                "that lie outside their 2 x 2 cells; the phase form is for kernel 2, stride 2, "
                "padding 0: use the flat form"
            )
        return phase

    @property
    def flat(self) -> "Switches":
        """The same switches in the flat form."""
        if self.index.dtype != torch.uint8:
            return self
        h, w = self.index.shape[-2:]
        phase = self.index.long()
        row = torch.arange(h, device=phase.device).view(h, 1) * 2 + phase // 2
        column = torch.arange(w, device=phase.device) * 2 + phase % 2
        return self._replace(index=row * self.size[1] + column, disjoint=True)


def pool(
    x: Tensor,
    kernel: int = 2,
    stride: int | None = None,
    padding: int = 0,
    ceil: bool = False,
    form: Literal["flat", "phase"] = "flat",
) -> tuple[Tensor, Switches]:
    """Max pooling that also returns the switches.

    Of equal values the first in row-major order wins, as in the authors' code. Both forms of
    switches give the same values and positions, bit for bit.

    Args:
        x: maps, (N, C, H, W), any float dtype, contiguous or channels-last; N may be 0. Or uint8,
            for kernel = stride = 2 without padding, whose switches are in the phase form.
        kernel: side of the square window.
        stride: distance between windows; by default the kernel.
        padding: cells of minus infinity around the map, at most half the kernel.
        ceil: also pool windows that extend beyond the right and lower border, as Caffe does,
            rather than leaving out their cells.
        form: the form of the switches; "phase" needs kernel = stride = 2 and no padding.

    Returns:
        The maxima, (N, C, h, w), and their switches.

    Raises:
        ShapeError: x does not have four dimensions, or is smaller than the window.
        OptionError: an impossible window, or "phase" with another window.

    Zeiler, Fergus 2014, section 2.1; Noh, Hong, Han 2015, section 3.2.1.

    >>> y, switches = pool(torch.arange(16.0).view(1, 1, 4, 4))
    >>> y
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])
    >>> switches.index.flatten().tolist(), switches.size
    ([5, 7, 13, 15], (4, 4))
    """
    stride = kernel if stride is None else stride
    _require_maps(x)
    if kernel < 1 or stride < 1 or not 0 <= padding <= kernel // 2:
        raise OptionError(
            f"got kernel {kernel}, stride {stride}, padding {padding}; wanted kernel and stride "
            "from 1 up, and padding from 0 to half the kernel"
        )
    least = kernel - 2 * padding - (stride - 1 if ceil else 0)
    if any(side < max(least, 1) for side in x.shape[-2:]):
        raise ShapeError(
            f"got maps of {tuple(x.shape[-2:])} and windows of {kernel} x {kernel}; "
            "pass larger maps, more padding, or ceil=True"
        )
    size = (x.shape[-2], x.shape[-1])
    require_choice("form", form, ("flat", "phase"))
    if x.dtype == torch.uint8:
        form = "phase"
    if form == "flat":
        y, index = F.max_pool2d(x, kernel, stride, padding, 1, ceil, return_indices=True)
    elif (kernel, stride, padding) == (2, 2, 0):
        y, index = _pool_bytes(x, ceil) if x.dtype == torch.uint8 else _pool_phase(x, ceil)
    else:
        raise OptionError(
            f"got form='phase' with kernel {kernel}, stride {stride}, padding {padding}; "
            "it is for kernel 2, stride 2, padding 0: use form='flat', and floating-point maps"
        )
    return y, Switches(index, size, disjoint=stride >= kernel)


def unpool(
    y: Tensor, switches: Switches, overlap: Literal["overwrite", "sum"] = "overwrite"
) -> Tensor:
    """Put each value back at the position of its maximum; all other positions are zero.

    Args:
        y: pooled maps, (N, C, h, w), of any float dtype, or uint8 of disjoint windows.
        switches: what `pool` returned for maps of this size.
        overlap: what to do if several overlapping windows have their maximum at one position.
            "overwrite": the last window in row-major order wins, on every device, as in the
            authors' loop. "sum": the values add up; this is the exact adjoint of selecting the
            maxima, and so the gradient of `pool`. Without overlaps the two are the same.

    Returns:
        Sparse maps, (N, C, H, W), with (H, W) = switches.size, in the memory format of y.

    Raises:
        ShapeError: y does not have the shape of the switches.

    Noh, Hong, Han 2015, section 3.2.1; Zeiler, Fergus 2014, section 2.1.

    >>> y, switches = pool(torch.arange(16.0).view(1, 1, 4, 4))
    >>> unpool(y, switches)[0, 0, 3]
    tensor([ 0., 13.,  0., 15.])
    """
    _require_maps(y)
    require_choice("overlap", overlap, ("overwrite", "sum"))
    if y.shape != switches.index.shape:
        raise ShapeError(
            f"got maps of {tuple(y.shape)} but switches recorded at {tuple(switches.index.shape)}; "
            "pass the switches of the matching pool"
        )
    if y.dtype == torch.uint8:
        return _unpool_bytes(y, switches.phase)
    if switches.index.dtype == torch.uint8:
        return _unpool_phase(y, switches)
    return _unpool_flat(y, switches, overlap)


def fixed_unpool(y: Tensor, factor: int = 2) -> Tensor:
    """Put each value into the top-left cell of a block of zeros: unpooling without switches.

    Args:
        y: maps, (N, C, h, w).
        factor: side of the block.

    Returns:
        Maps of (N, C, factor * h, factor * w), in the memory format of y.

    Dosovitskiy, Springenberg, Brox 2015, section 3.2.

    >>> fixed_unpool(torch.tensor([[[[1.0, 2.0]]]]))
    tensor([[[[1., 0., 2., 0.],
              [0., 0., 0., 0.]]]])
    """
    _require_maps(y)
    if factor < 1:
        raise OptionError(f"got factor {factor}; wanted the side of a block, 1 or more")
    zero = torch.zeros_like(y)  # interleaving exports to engines without scatter
    return _interleave([y] + [zero] * (factor * factor - 1), factor)


def _pool_phase(x: Tensor, ceil: bool) -> tuple[Tensor, Tensor]:
    height, width = (side + int(ceil) for side in x.shape[-2:])
    x = _fit(x, height // 2 * 2, width // 2 * 2, -torch.inf)
    y = x[..., 0::2, 0::2]
    phase = torch.zeros_like(y, dtype=torch.uint8)
    for position, (i, j) in enumerate([(0, 1), (1, 0), (1, 1)], start=1):
        value = x[..., i::2, j::2]
        wins = (value > y) | value.isnan()  # as the native kernel: NaN wins
        y = torch.where(wins, value, y)
        phase = torch.where(wins, torch.full_like(phase, position), phase)
    return y, phase


def _unpool_flat(y: Tensor, switches: Switches, overlap: str) -> Tensor:
    index, (height, width) = switches.index, switches.size
    n, c, h, w = y.shape
    # the native kernel is twice as fast, but exports badly; without overlapping windows its result
    # cannot vary, but it is not marked deterministic
    native = not (torch.are_deterministic_algorithms_enabled() or torch.compiler.is_compiling())
    if switches.disjoint and native:
        return torch.ops.aten.max_unpool2d(y, index, [height, width])
    if _channels_last(y):  # scatter along dimension 1, so that nothing is copied
        y, index = (t.permute(0, 2, 3, 1).reshape(n, h * w, c) for t in (y, index))
        out = _scatter(y, index, 1, height * width, switches.disjoint, overlap)
        return out.view(n, height, width, c).permute(0, 3, 1, 2)
    y, index = (t.reshape(n, c, h * w) for t in (y, index))
    out = _scatter(y, index, 2, height * width, switches.disjoint, overlap)
    return out.view(n, c, height, width)


def _scatter(
    y: Tensor, index: Tensor, dim: int, positions: int, disjoint: bool, overlap: str
) -> Tensor:
    shape, windows = list(y.shape), y.shape[dim]
    shape[dim] = positions
    zeros = y.new_zeros(shape)
    if overlap == "sum":
        return zeros.scatter_add(dim, index, y)
    if disjoint:
        return zeros.scatter(dim, index, y)
    # Which of two equal positions wins a scatter is undefined: find the last window of each first.
    order = torch.arange(windows, device=y.device).view(-1, *[1] * (2 - dim)).expand_as(y)
    last = torch.full(shape, windows, dtype=torch.int64, device=y.device)
    last = last.scatter_reduce(dim, index, order, "amax", include_self=False)
    shape[dim] = 1  # index `windows` is the zero for positions without a maximum
    return torch.cat([y, y.new_zeros(shape)], dim).gather(dim, last)


def _unpool_phase(y: Tensor, switches: Switches) -> Tensor:
    height, width = switches.size
    zero = torch.zeros((), dtype=y.dtype, device=y.device)
    out = _interleave([torch.where(switches.index == cell, y, zero) for cell in range(4)], 2)
    return _fit(out, height, width)  # odd sizes: crop what `ceil` added, zero what floor left out


def _pool_bytes(x: Tensor, ceil: bool) -> tuple[Tensor, Tensor]:
    height, width = (side + int(ceil) for side in x.shape[-2:])
    x = _fit(x, height // 2 * 2, width // 2 * 2)
    cells = [x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
    upper = torch.maximum(cells[0], cells[1])
    y = torch.maximum(upper, torch.maximum(cells[2], cells[3]))
    # of integers, only comparisons of whole maps are vectorized; each counts a cell passed over
    before = [(cell < y).view(torch.uint8) for cell in (cells[0], upper, cells[2])]
    return y, before[2].mul_(before[1]).add_(before[1]).add_(before[0])


def _unpool_bytes(y: Tensor, switches: Switches) -> Tensor:
    n, c, h, w = y.shape
    layout = torch.channels_last if _channels_last(y) else torch.contiguous_format
    out = torch.empty((n, c, 2 * h, 2 * w), dtype=y.dtype, device=y.device, memory_format=layout)
    zeros = torch.zeros_like(switches.index)
    for cell in range(4):
        here = ((switches.index ^ cell) == zeros).view(torch.uint8)
        torch.mul(y, here, out=out[..., cell // 2 :: 2, cell % 2 :: 2])
    return _fit(out, *switches.size)


def _fit(x: Tensor, height: int, width: int, value: float = 0.0) -> Tensor:
    """Crop or pad at the right and lower border."""
    below, right = height - x.shape[-2], width - x.shape[-1]
    if not torch.compiler.is_compiling() and below == right == 0:
        return x  # F.pad would copy; an exported graph must handle all sizes
    return F.pad(x, (0, right, 0, below), value=value)


def _interleave(parts: list[Tensor], factor: int) -> Tensor:
    """Interleave factor * factor maps (N, C, h, w); part i is cell i of each block, row-major."""
    n, c, h, w = parts[0].shape
    if _channels_last(parts[0]):
        blocks = torch.stack([part.permute(0, 2, 3, 1) for part in parts], dim=3)
        blocks = blocks.view(n, h, w, factor, factor, c).permute(0, 1, 3, 2, 4, 5)
        return blocks.reshape(n, h * factor, w * factor, c).permute(0, 3, 1, 2)
    blocks = torch.stack(parts, dim=4).view(n, c, h, w, factor, factor)
    return blocks.permute(0, 1, 2, 4, 3, 5).reshape(n, c, h * factor, w * factor)


def _channels_last(x: Tensor) -> bool:
    """Whether x has that memory format and is not contiguous as well."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _require_maps(x: Tensor) -> None:
    if x.dim() != 4:
        raise ShapeError(
            f"got a tensor of shape {tuple(x.shape)}; maps are (N, C, H, W): "
            "add a batch dimension with x[None]"
        )
