"""Exact incremental occlusion: in every layer, only what the occluder can change is recomputed.

A convolution or pooling window covers a few pixels, so that an occluder changes a patch of each
map, which grows from layer to layer. The patches of all positions are cut out of the maps of the
unoccluded image, and go through the layer in batches of equal size. Later layers that need whole
maps, such as fully connected ones, get them. Nothing is approximated. After Nakandala et al.,
"Incremental and approximate inference for faster occlusion-based deep CNN explanations", SIGMOD
2019.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.visualize.occlusion.chain import Link
    from unpool.visualize.occlusion.window import Box

_TOGETHER = 50  # positions whose patches are in memory at a time
_HEAD = 2**26  # bytes of whole maps that go through the last layers at a time


class Line(NamedTuple):
    """The windows of a layer along one axis."""

    kernel: int
    stride: int
    pad: int  #: before the first value
    dilation: int
    outputs: int  #: number of output values

    def reached(self, start: int, stop: int) -> tuple[int, int]:
        """The range of outputs whose windows cover any of the inputs start..stop.

        >>> Line(3, 2, 0, 1, 5).reached(2, 5)
        (0, 3)
        """
        first = -((self.needed(1) - 1 - start - self.pad) // self.stride)
        return max(first, 0), min((stop - 1 + self.pad) // self.stride + 1, self.outputs)

    def needed(self, count: int) -> int:
        """The number of inputs that `count` adjacent windows cover."""
        return (count - 1) * self.stride + self.dilation * (self.kernel - 1) + 1


class _Windows(NamedTuple):
    """A layer that works on windows, and its padded input for the unoccluded image."""

    lines: tuple[Line, Line]
    run: Callable[[Tensor], Tensor]  #: the layer without its padding
    padded: Tensor  #: (C, H, W) with the padding


class _Patches(NamedTuple):
    """The changed part of the maps at some positions, all of one size."""

    maps: Tensor  #: (n, C, h, w)
    members: list[int]  #: indices of the positions
    places: list[tuple[int, int]]  #: row and column of each patch


class Incremental:
    """Computes the output of a chain of layers for an image with an occluder at many positions.

    Args:
        links: the layers, of `trace_chain`.
        image: (1, C, H, W).
        baseline: the values of the occluder, (C, H, W).
        watched: a layer, and a unit of it whose total activation is wanted.

    Raises:
        OptionError: the first layer does not work on windows, so that nothing can be saved; or the
            watched layer does not end with one of the chain.

    >>> from unpool.visualize.occlusion.chain import Link
    >>> chain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)).eval()
    >>> image = torch.rand(1, 1, 8, 8)
    >>> links = [Link(str(i), layer) for i, layer in enumerate(chain)]
    >>> run = Incremental(links, image, torch.zeros(1, 8, 8))
    >>> hidden = image.clone()
    >>> hidden[..., 2:5, 1:4] = 0
    >>> with torch.inference_mode():
    ...     torch.allclose(run([(1, 2, 4, 5)])[0], chain(hidden), atol=1e-6)
    True
    """

    def __init__(
        self,
        links: Sequence["Link"],
        image: Tensor,
        baseline: Tensor,
        watched: tuple[str, int] | None = None,
    ) -> None:
        self._baseline = baseline
        self._watched, self._unit = -1, 0
        if watched is not None:
            self._watched, self._unit = _number(links, watched[0]), watched[1]
        self._steps: list[_Windows | nn.Module] = []
        self._rest = [link.layer for link in links]
        x = image.clone(memory_format=torch.channels_last)  # layers may work in place
        with torch.inference_mode():
            while self._rest and (found := _step(self._rest[0], x)) is not None:
                step, x = found
                self._rest.pop(0)
                self._steps.append(step)
                self._watch(len(self._steps) - 1, x)
            x = self._maps = x.contiguous()
            for number, layer in enumerate(self._rest, len(self._steps)):
                x = layer(x.clone())
                self._watch(number, x)
        self.output = x  #: for the unoccluded image
        if not any(isinstance(step, _Windows) for step in self._steps):
            raise OptionError(f"nothing can be saved: the model begins with {links[0].layer}")

    @torch.inference_mode()
    def __call__(self, boxes: Sequence["Box"]) -> tuple[Tensor, Tensor | None]:
        """The outputs (P, K) for occluders at some boxes, and the totals (P,) float64 or None."""
        outputs, totals = [], []
        for start in range(0, len(boxes), step := max(_HEAD // self._maps.nbytes, 1)):
            part = boxes[start : start + step]
            maps = self._maps.repeat(len(part), 1, 1, 1)
            total = torch.full((len(part),), torch.nan, dtype=torch.float64, device=maps.device)
            for first in range(0, len(part), _TOGETHER):
                self._fill(part[first : first + _TOGETHER], *(t[first:] for t in (maps, total)))
            for number, layer in enumerate(self._rest, len(self._steps)):
                maps = layer(maps)
                if number == self._watched:
                    total.copy_(_sums(maps[:, self._unit]))
            outputs.append(maps)
            totals.append(total)
        return torch.cat(outputs), None if self._watched < 0 else torch.cat(totals)

    def _fill(self, boxes: Sequence["Box"], maps: Tensor, total: Tensor) -> None:
        """Write the patches that the occluders change into copies of the last whole maps."""
        groups = list(self._occluders(boxes))
        for number, step in enumerate(self._steps):
            if isinstance(step, _Windows):
                groups = list(_through(step, groups))
            else:
                groups = [group._replace(maps=step(group.maps)) for group in groups]
            if number == self._watched:
                self._total(groups, total[: len(boxes)])
        for group in groups:
            height, width = group.maps.shape[2:]
            for patch, member, (y, x) in zip(*group, strict=True):
                maps[member, :, y : y + height, x : x + width] = patch

    def _occluders(self, boxes: Sequence["Box"]) -> Iterator[_Patches]:
        by_size = defaultdict(list)
        for member, (x0, y0, x1, y1) in enumerate(boxes):
            by_size[y1 - y0, x1 - x0].append((member, y0, x0))
        for (height, width), items in by_size.items():
            shown = [self._baseline[:, y : y + height, x : x + width] for _, y, x in items]
            yield _Patches(torch.stack(shown), [i[0] for i in items], [i[1:] for i in items])

    def _watch(self, number: int, maps: Tensor) -> None:
        if number == self._watched:
            self._plain = maps[0, self._unit].clone()

    def _total(self, groups: Sequence[_Patches], total: Tensor) -> None:
        """The total of the unoccluded map plus the changes by the patches."""
        total.fill_(self._plain.sum(dtype=torch.float64))
        for group in groups:
            height, width = group.maps.shape[2:]
            before = [self._plain[y : y + height, x : x + width] for y, x in group.places]
            change = _sums(group.maps[:, self._unit]) - _sums(torch.stack(before))
            total[group.members] += change


def _number(links: Sequence["Link"], layer: str) -> int:
    for number, link in enumerate(links):
        if layer in (link.name, *link.aliases):
            return number
    raise OptionError(f"layer {layer!r} does not end with a layer of the chain")


def _sums(maps: Tensor) -> Tensor:
    return maps.flatten(1).sum(1, dtype=torch.float64) if maps.dim() > 1 else maps.double()


def _through(step: _Windows, groups: Sequence[_Patches]) -> Iterator[_Patches]:
    """The changed patches of a layer's output, in batches of equal size."""
    down, across = step.lines
    by_size = defaultdict(list)
    for group in groups:
        height, width = group.maps.shape[2:]
        for patch, member, (y, x) in zip(*group, strict=True):
            top, bottom = down.reached(y, y + height)
            left, right = across.reached(x, x + width)
            if top < bottom and left < right:  # a stride can skip a patch
                # of the patch, in the inputs that its windows cover
                spot = y + down.pad - top * down.stride, x + across.pad - left * across.stride
                by_size[bottom - top, right - left].append((patch, member, (top, left), spot))
    for (height, width), items in by_size.items():
        high, wide = down.needed(height), across.needed(width)
        whole, shape = step.padded, (len(items), len(step.padded), high, wide)
        where, kind = whole.device, whole.dtype
        seen = torch.empty(shape, dtype=kind, device=where, memory_format=torch.channels_last)
        for covered, (patch, _, (top, left), spot) in zip(seen, items, strict=True):
            y, x = top * down.stride, left * across.stride
            covered.copy_(whole[:, y : y + high, x : x + wide])
            _paste(covered, patch, *spot)
        yield _Patches(step.run(seen), [item[1] for item in items], [item[2] for item in items])


def _paste(target: Tensor, patch: Tensor, y: int, x: int) -> None:
    """Write a patch into maps (C, h, w); it may reach beyond them."""
    (height, width), (high, wide) = patch.shape[1:], target.shape[1:]
    top, bottom, left, right = max(-y, 0), min(height, high - y), max(-x, 0), min(width, wide - x)
    if top < bottom and left < right:
        target[:, y + top : y + bottom, x + left : x + right] = patch[:, top:bottom, left:right]


_POINTWISE = {
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh),
    *(nn.Softplus, nn.Hardswish, nn.Identity, nn.Dropout, nn.Dropout2d, nn.LocalResponseNorm),
}


Step = tuple[_Windows | nn.Module, Tensor]
"""A layer that can be computed patch by patch, and its output for whole maps."""


def _step(layer: nn.Module, x: Tensor) -> Step | None:
    """The step of a layer; None if it needs whole maps.

    Types are compared exactly, since a subclass may compute anything.
    """
    if x.dim() != 4 or layer._forward_hooks or layer._forward_pre_hooks:
        return None
    statistics = type(layer) is nn.BatchNorm2d and layer.running_var is not None
    if type(layer) in _POINTWISE or statistics:
        return layer, layer(x)
    if type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
        return _convolution(layer, x)
    if type(layer) is nn.MaxPool2d and not layer.return_indices:
        size, stride = layer.kernel_size, layer.stride or layer.kernel_size
        pool: nn.Module = nn.MaxPool2d(size, stride, dilation=layer.dilation)
        return _padded(layer, x, (size, stride, layer.padding, layer.dilation), -torch.inf, pool)
    # the mean must be over equally many values at the border
    if type(layer) is nn.AvgPool2d and (
        not layer.ceil_mode and (layer.count_include_pad or layer.padding in (0, (0, 0)))
    ):
        size, stride = layer.kernel_size, layer.stride
        pool = nn.AvgPool2d(size, stride, divisor_override=layer.divisor_override)
        return _padded(layer, x, (size, stride, layer.padding, 1), 0.0, pool)
    return None


def _convolution(layer: nn.Conv2d, x: Tensor) -> Step:
    pad: str | tuple[int, ...] = layer.padding
    if isinstance(pad, str):  # "same" pads an odd value at the end
        spans = [d * (k - 1) for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
        pad = tuple(span // 2 if layer.padding == "same" else 0 for span in spans)
    weight = layer.weight.detach().contiguous(memory_format=torch.channels_last)

    def run(seen: Tensor) -> Tensor:
        return F.conv2d(seen, weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)

    return _padded(layer, x, (layer.kernel_size, layer.stride, pad, layer.dilation), 0.0, run)


def _padded(
    layer: nn.Module,
    x: Tensor,
    options: Sequence[Any],
    fill: float,
    run: Callable[[Tensor], Tensor],
) -> Step:
    """The step of a layer with this kernel, stride, padding and dilation."""
    y = layer(x)
    pairs = [(v, v) if isinstance(v, int) else v for v in options]
    rows, columns = (Line(*numbers) for numbers in zip(*pairs, y.shape[2:], strict=True))
    margins = []
    for line, n in zip((columns, rows), (x.shape[3], x.shape[2]), strict=True):
        margins += [line.pad, max(line.needed(line.outputs) - line.pad - n, 0)]
    padded = F.pad(x, margins, value=fill).contiguous(memory_format=torch.channels_last)
    return _Windows((rows, columns), run, padded[0]), y
