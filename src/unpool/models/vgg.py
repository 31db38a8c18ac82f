"""VGG as tables, and the trunk built from a table: convolutions and pooling with switches.

Simonyan, Zisserman 2015, table 1, configurations A, B, D and E.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from operator import index
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unpool.errors import OptionError, ShapeError, require_choice
from unpool.limits import MAX_LAYERS, MAX_STAGES
from unpool.models.norms import deconvolve
from unpool.ops.switches import Switches, pool, unpool
from unpool.ops.whitening import Whitening

Result = TypeVar("Result")
Table = tuple[tuple[int, int], ...]
"""One row per stage: the number of 3 x 3 convolutions, and their channels."""

TRUNKS: dict[str, Table] = {
    "vgg11": ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),
    "vgg13": ((2, 64), (2, 128), (2, 256), (2, 512), (2, 512)),
    "vgg16": ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),
    "vgg19": ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)),
}

MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
"""The ImageNet mean that the authors subtract: blue, green, red, for pixels 0..255."""


def prepare(images: Tensor, mean: tuple[float, float, float] = MEAN_BGR) -> Tensor:
    """Convert images to network input: BGR, minus the mean, not scaled.

    Args:
        images: (N, H, W, 3) uint8, RGB; a `ShapeError` otherwise, for example for values 0..1.
        mean: blue, green, red, in 0..255.

    Returns:
        (N, 3, H, W) float32 in channels-last layout, BGR.

    >>> prepare(torch.zeros(1, 2, 2, 3, dtype=torch.uint8))[0, :, 0, 0]
    tensor([-104.0070, -116.6688, -122.6789])
    """
    if images.dim() != 4 or images.shape[3] != 3 or images.dtype != torch.uint8:
        raise ShapeError(
            f"got images of {tuple(images.shape)} {images.dtype}; wanted (N, H, W, 3) uint8 RGB: "
            "stack images of one size, with values 0..255"
        )
    bgr = images.flip(-1).float() - torch.tensor(mean, device=images.device)
    return bgr.permute(0, 3, 1, 2)


def trunk_table(trunk: str | Table) -> Table:
    """Look up a trunk table by its name, or check one that is given; raises an `OptionError`."""
    if isinstance(trunk, str):
        require_choice("trunk", trunk, TRUNKS)
        return TRUNKS[trunk]
    try:
        table = tuple((index(layers), index(channels)) for layers, channels in trunk)
    except (TypeError, ValueError):  # not pairs, or not of integers
        table = ()
    deep = len(table) > MAX_STAGES or sum(layers for layers, _ in table) > MAX_LAYERS
    if deep or not table or min(min(row) for row in table) < 1:
        raise OptionError(
            f"got the trunk table {str(trunk)[:60]}; each row is (layers, channels), from 1 up, at "
            f"most {MAX_STAGES} rows and {MAX_LAYERS} layers"
        )
    return table


def trunk_argument(table: Table) -> str | list[list[int]]:
    """The name of a known table, else its rows: a plain value that `trunk_table` takes.

    >>> trunk_argument(TRUNKS["vgg16"]), trunk_argument(((1, 4),))
    ('vgg16', [[1, 4]])
    """
    names = (name for name, known in TRUNKS.items() if known == table)
    return next(names, [list(row) for row in table])


def block(
    layer: nn.Module, name: str, norm: str, channels: int, eps: float | None
) -> nn.Sequential:
    """A convolution or deconvolution, batch norm (unless eps is None), and ReLU."""
    parts: OrderedDict[str, nn.Module] = OrderedDict([(name, layer)])
    if eps is not None:
        parts[norm] = nn.BatchNorm2d(channels, eps=eps)
    parts[f"relu-{name}"] = nn.ReLU(inplace=True)
    return nn.Sequential(parts)


def code_layers(fc6: nn.Conv2d, dropout: float) -> nn.Sequential:
    """The fully connected layers of VGG as convolutions: `fc6`, and fc7, 1 x 1 and as wide; each
    with ReLU and dropout."""
    fc7 = nn.Conv2d(fc6.out_channels, fc6.out_channels, 1)
    layers = OrderedDict[str, nn.Module]()
    for i, layer in ((6, fc6), (7, fc7)):
        layers[f"fc{i}"], layers[f"relu{i}"] = layer, nn.ReLU(inplace=True)
        layers[f"drop{i}"] = nn.Dropout(dropout)
    return nn.Sequential(layers)


def decode(
    stages: Iterable[nn.Module], x: Tensor, switches: list[Switches], recomputes: bool = False
) -> list[Tensor]:
    """The maps (N, C, H, W) after each stage of a decoder, each of which begins with unpooling.

    Args:
        stages: of the decoder, from coarse to fine.
        x: the maps to begin with, (N, C, h, w).
        switches: of the trunk, from fine to coarse; as many stages are decoded.
        recomputes: recompute maps for the gradient, see `Trunk.checkpointing`.
    """
    out = []
    for stage, s in zip(stages, reversed(switches), strict=False):
        if recomputes:
            x = recompute(stage, partial(_unpool, s.size, s.disjoint), x, s.index)
        else:
            x = stage(unpool(x, s))  # (N, C, h, w) -> (N, C', 2 * h, 2 * w)
        out.append(x)
    return out


def _unpool(
    size: tuple[int, int], disjoint: bool, stage: nn.Module, x: Tensor, index: Tensor
) -> Tensor:
    return stage(unpool(x, Switches(index, size, disjoint).flat))  # the flat form is faster


def chain(blocks: list[nn.Sequential]) -> nn.Sequential:
    """Concatenate blocks into one flat `nn.Sequential`, so that layer names follow the stage."""
    return nn.Sequential(OrderedDict(item for part in blocks for item in part.named_children()))


class Trunk(nn.Module):
    """The convolution stages of a VGG network, each followed by pooling that keeps switches.

    Layers are named as in the papers: `stages.0.conv1_1`, `stages.0.bn1_1`, ...

    Args:
        table: the trunk's name ("vgg16") or its table.
        eps: of the batch norm after every convolution; None for no batch norm.
        channels: number of input channels.
        pad: zero padding of the input; by default its size stays, FCN uses 100.
        kernel: side of the filters, odd; 7 in SegNet-Basic.
        norm: "deconv" for network deconvolution (`FastDeconv`), in place of batch norm.

    >>> trunk = Trunk("vgg16")
    >>> maps, switches = trunk(torch.zeros(1, 3, 64, 64))
    >>> maps.shape, [s.size for s in switches]
    (torch.Size([1, 512, 2, 2]), [(64, 64), (32, 32), (16, 16), (8, 8), (4, 4)])
    """

    checkpointing = False
    """Gradient checkpointing: keep only the input of each stage, and recompute its maps for the
    gradient. The whole network follows this setting. Gradients and statistics stay the same."""

    form: Literal["flat", "phase"] = "flat"
    """The form of the switches, see `Switches`; "phase" is for engines without unpooling."""

    def __init__(
        self,
        table: str | Table = "vgg16",
        eps: float | None = 1e-9,
        channels: int = 3,
        pad: int | None = None,
        kernel: int = 3,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        if norm is not None:
            require_choice("norm", norm, ["deconv"])
            eps = 1e-5  # of a batch norm that is replaced
        keep = kernel // 2
        pad = keep if pad is None else pad
        self.table, self.channels = trunk_table(table), channels
        self.least = max(1, 2 ** len(self.table) - 2 * (pad - keep))  #: side of the input
        self.stages = nn.ModuleList()
        for stage, (layers, width) in enumerate(self.table, start=1):
            blocks = []
            for layer in range(1, layers + 1):
                padding = pad if stage == layer == 1 else keep
                conv = nn.Conv2d(channels, width, kernel, padding=padding)
                blocks.append(block(conv, f"conv{stage}_{layer}", f"bn{stage}_{layer}", width, eps))
                channels = width
            self.stages.append(chain(blocks))
        if norm is not None:
            deconvolve(self.stages)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Switches]]:
        """The pooled maps (N, C, h, w) of the last stage, and the switches of all stages in order.

        Raises a `ShapeError` if the images (N, 3, H, W), made by `prepare`, are smaller than one
        cell of the last map.
        """
        self.require_size(x)
        switches = []
        for stage in self.stages:  # (N, C, H, W) -> (N, C', H / 2, W / 2)
            if self.recomputes:
                x, s = recompute(stage, _pool, x)
                switches.append(s.phase)  # an eighth of the memory
            else:
                x, s = _pool(stage, x, self.form)
                switches.append(s)
        return x, switches

    def pooled(self, x: Tensor) -> list[Tensor]:
        """The pooled maps (N, C, h, w) of all stages in order, without switches; as `forward`."""
        self.require_size(x)
        maps = []
        for stage in self.stages:
            x = recompute(stage, _max_pool, x) if self.recomputes else _max_pool(stage, x)
            maps.append(x)
        return maps

    @property
    def recomputes(self) -> bool:
        """Whether maps are now recomputed for the gradient."""
        return self.checkpointing and torch.is_grad_enabled()

    def require_size(self, x: Tensor) -> None:
        """Raise a `ShapeError` for input that the trunk cannot process."""
        fits = x.dim() == 4 and x.shape[1] == self.channels
        if not fits or any(side < self.least for side in x.shape[-2:]):
            raise ShapeError(
                f"got input of shape {tuple(x.shape)}; this trunk takes (N, {self.channels}, H, W) "
                f"with H and W from {self.least} up: enlarge the image, or use a trunk of fewer "
                "stages"
            )


def recompute(part: nn.Module, apply: Callable[..., Result], *inputs: Tensor) -> Result:
    """Compute `apply(part, *inputs)` with gradient checkpointing: maps are recomputed in backward.

    Dropout drops the same values both times; batch norm in `part` updates its statistics once.

    Chen, Xu, Zhang, Guestrin 2016 (arXiv 1604.06174), section 4.
    """
    first = True

    def run(*inputs: Tensor) -> Result:
        nonlocal first
        with nullcontext() if first else _no_statistics(part):
            first = False
            return apply(part, *inputs)

    return checkpoint(run, *inputs, use_reentrant=False)


@contextmanager
def _no_statistics(part: nn.Module) -> Iterator[None]:
    """Let normalization use batch statistics as in training, but not update its running ones."""
    norms = [m for m in part.modules() if isinstance(m, nn.BatchNorm2d | Whitening)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            # maps are computed twice, but they are of one batch
            norm.momentum = 0.0
            if isinstance(norm, nn.BatchNorm2d):
                norm.num_batches_tracked = None
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _pool(
    stage: nn.Module, x: Tensor, form: Literal["flat", "phase"] = "flat"
) -> tuple[Tensor, Switches]:
    return pool(stage(x), ceil=True, form=form)  # Caffe rounds up; even sizes do not differ


def _max_pool(stage: nn.Module, x: Tensor) -> Tensor:
    x = stage(x)
    if x.is_floating_point():
        return F.max_pool2d(x, 2, ceil_mode=True)
    return pool(x, ceil=True)[0]  # torch does not pool integers


def initialize(
    module: nn.Module, fill: Callable[[Tensor], object] = nn.init.kaiming_normal_
) -> None:
    """Fill the weights of convolutions and deconvolutions in place, by default as He et al. 2015;
    zero the biases."""
    for layer in module.modules():
        # on the meta device there is nothing to fill, but PyTorch takes seconds
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and not layer.weight.is_meta:
            fill(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
