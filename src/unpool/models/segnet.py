"""SegNet: a trunk and a decoder of convolutions, joined by switches (Badrinarayanan et al. 2017).

The trunk's table is read backwards, as in DeconvNet, but there is no code, the decoder convolves
instead of deconvolving, and its last layer gives the scores. With dropout the network is Bayesian
SegNet: several predictions with dropout left on say how sure it is.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unpool.errors import OptionError, require_int, require_type
from unpool.models.vgg import Table, Trunk, block, chain, decode, initialize, trunk_argument

if TYPE_CHECKING:
    from unpool.ops.switches import Switches


class SegNet(nn.Module):
    """SegNet for any number of classes; the defaults are the published network for CamVid.

    29,449,355 parameters with 11 classes. Layers carry the authors' names: the state dict's keys
    end in `conv1_1.weight`, `bn1_1.weight`, `conv5_3_D.weight`, `bn5_3_D.weight` ...; their
    `conv1_1_D` is `score`. The released networks take images that are not centered:
    `prepare(images, mean=(0, 0, 0))`.

    Args:
        classes: number of score maps; void has none.
        trunk: a VGG name ("vgg11" to "vgg19") or a table of (layers, channels) rows.
        eps: of batch norm; None omits batch norm.
        dropout: of single values, 0.5 in Bayesian SegNet: after the three deepest poolings, and
            after the three deepest stages of the decoder. Each pooling takes its switches before.
        dropout_everywhere: dropout before every pooling, so that switches vary, too, after the
            last one, and after every stage of the decoder, as in the network released for VOC.
        wide_head: one more layer before the scores, as in the Bayesian network released for
            CamVid, of 29,486,411 parameters: `conv1_1_D` has as many maps as `conv1_2_D`.
        norm: "deconv" for network deconvolution in the trunk, see `Trunk`.

    Badrinarayanan, Kendall, Cipolla 2017 (arXiv 1511.00561), section 3 and figure 2; Kendall,
    Badrinarayanan, Cipolla 2015 (arXiv 1511.02680), section 3; layers from the released prototxts.

    >>> net = SegNet(3, trunk=((1, 8), (2, 16))).eval()
    >>> net(torch.zeros(2, 3, 45, 30)).shape
    torch.Size([2, 3, 45, 30])
    """

    size: int | None = None
    """There is no design size; the network takes images of any size."""

    fc: nn.Sequential | None = None
    """There are no code layers."""

    def __init__(
        self,
        classes: int = 11,
        trunk: str | Table = "vgg16",
        eps: float | None = 1e-9,
        dropout: float = 0.0,
        dropout_everywhere: bool = False,
        wide_head: bool = False,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        self.trunk, self.norm = Trunk(trunk, eps, norm=norm), norm
        self.classes, self.eps, self.dropout = classes, eps, dropout
        self.dropout_everywhere, self.wide_head = dropout_everywhere, wide_head
        _require(classes, dropout)
        table = self.trunk.table
        everywhere = dropout_everywhere and dropout > 0
        deep = range(1 if everywhere else max(len(table) - 2, 1), len(table) + 1)
        deep = deep if dropout else range(0)
        for stage, part in enumerate(self.trunk.stages, start=1):
            after = {f"drop{stage}": nn.Dropout(dropout)} if everywhere else {}
            before = stage - 1 in deep and not everywhere
            first = {f"drop{stage - 1}": nn.Dropout(dropout)} if before else {}
            if first or after:
                parts = OrderedDict({**first, **dict(part.named_children()), **after})
                self.trunk.stages[stage - 1] = nn.Sequential(parts)
        self.drop = nn.Dropout(dropout)  # of the last pooled maps
        self.decoder = nn.ModuleList()
        for stage in range(len(table), 0, -1):
            layers, width = table[stage - 1]
            below = table[max(stage - 2, 0)][1]
            blocks = []
            for layer in range(layers, 0 if stage > 1 or wide_head else 1, -1):
                out = below if layer == 1 else width
                name = f"{stage}_{layer}_D"
                conv = nn.Conv2d(width, out, 3, padding=1)
                blocks.append(block(conv, f"conv{name}", f"bn{name}", out, eps))
            if stage in deep and stage > 1:
                blocks.append(nn.Sequential(OrderedDict({f"drop{stage}_D": nn.Dropout(dropout)})))
            self.decoder.append(chain(blocks))
        self.score = nn.Conv2d(table[0][1], classes, 3, padding=1)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes, H, W) for images (N, 3, H, W) made by `prepare`.

        Raises a `ShapeError` for images that are too small.
        """
        maps, switches = self.trunk(x)  # (N, 512, H / 32, W / 32) with VGG-16
        y = self.decode(maps, switches)[-1]
        return self.score(y.to(self.score.weight.dtype))  # which may stay float32

    def decode(self, maps: Tensor, switches: list["Switches"]) -> list[Tensor]:
        """The maps after each stage of the decoder, as `DeconvNet.decode`."""
        return decode(self.decoder, self.drop(maps), switches, self.trunk.recomputes)

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments that build this network again, as plain values."""
        values = {
            "classes": self.classes,
            "trunk": trunk_argument(self.trunk.table),
            "eps": self.eps,
            "dropout": self.dropout,
            "dropout_everywhere": self.dropout_everywhere,
            "wide_head": self.wide_head,
        }
        return {**values, "norm": self.norm} if self.norm is not None else values


class SegNetBasic(nn.Module):
    """SegNet-Basic: four wide convolutions, and four in the decoder, which have no ReLU.

    1,416,587 parameters with 11 classes. Images are normalized by their brightness ("LRN"), so they
    must not be centered: `prepare(images, mean=(0, 0, 0))`. Layers of the trunk are named as in
    `Trunk`, those of the decoder `conv_decode4`, `conv_decode4_bn` ... as by the authors.

    Args:
        classes: number of score maps; void has none.
        width: maps of each layer.
        kernel: side of the filters, odd.
        stages: of the trunk, and of the decoder.
        eps: of batch norm; None omits batch norm.
        dropout: of single values, 0.5 in Bayesian SegNet-Basic: after the two deepest poolings, and
            after the two deepest layers of the decoder.
        norm: "deconv" for network deconvolution in the trunk, see `Trunk`.

    Badrinarayanan, Kendall, Cipolla 2017 (arXiv 1511.00561), section 3.1; layers from the released
    prototxts.

    >>> net = SegNetBasic(3, width=4).eval()
    >>> net(torch.zeros(2, 3, 45, 30)).shape
    torch.Size([2, 3, 45, 30])
    """

    size: int | None = None
    """There is no design size; the network takes images of any size."""

    fc: nn.Sequential | None = None
    """There are no code layers."""

    def __init__(
        self,
        classes: int = 11,
        width: int = 64,
        kernel: int = 7,
        stages: int = 4,
        eps: float | None = 1e-9,
        dropout: float = 0.0,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        _require(classes, dropout)
        for name, value in (("width", width), ("kernel", kernel), ("stages", stages)):
            require_int(name, value)
        if kernel % 2 == 0 or kernel > _WIDEST:
            raise OptionError(f"got kernel={kernel}; wanted an odd number up to {_WIDEST}")
        self.trunk, self.norm = Trunk(((1, width),) * stages, eps, kernel=kernel, norm=norm), norm
        self.classes, self.width, self.kernel = classes, width, kernel
        self.eps, self.dropout = eps, dropout
        deep = range(max(stages - 1, 1), stages + 1) if dropout else range(0)
        for stage in range(2, stages + 1):
            if stage - 1 in deep:
                first = {f"drop{stage - 1}": nn.Dropout(dropout)}
                own = dict(self.trunk.stages[stage - 1].named_children())
                self.trunk.stages[stage - 1] = nn.Sequential(OrderedDict({**first, **own}))
        self.drop = nn.Dropout(dropout)  # of the last pooled maps
        self.decoder = nn.ModuleList()
        for stage in range(stages, 0, -1):
            name = f"conv_decode{stage}"
            layers = OrderedDict[str, nn.Module]()
            layers[name] = nn.Conv2d(width, width, kernel, padding=kernel // 2)
            if eps is not None:
                layers[f"{name}_bn"] = nn.BatchNorm2d(width, eps=eps)
            if stage in deep:
                layers[f"drop{stage}_D"] = nn.Dropout(dropout)
            self.decoder.append(nn.Sequential(layers))
        self.score = nn.Conv2d(width, classes, 1)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes, H, W) for images (N, 3, H, W), BGR, 0 to 255.

        Raises a `ShapeError` for images that are too small.
        """
        maps, switches = self.trunk(brightness_norm(x))  # (N, 64, H / 16, W / 16)
        y = self.decode(maps, switches)[-1]
        return self.score(y.to(self.score.weight.dtype))  # which may stay float32

    def decode(self, maps: Tensor, switches: list["Switches"]) -> list[Tensor]:
        """The maps after each stage of the decoder, as `DeconvNet.decode`."""
        return decode(self.decoder, self.drop(maps), switches, self.trunk.recomputes)

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments that build this network again, as plain values."""
        values = {
            "classes": self.classes,
            "width": self.width,
            "kernel": self.kernel,
            "stages": len(self.trunk.table),
            "eps": self.eps,
            "dropout": self.dropout,
        }
        return {**values, "norm": self.norm} if self.norm is not None else values


def brightness_norm(x: Tensor) -> Tensor:
    """Divide the three channels of each pixel by what they sum up to, x / (1 + 2e-5 Σ x²)^0.75.

    This is local response normalization over five channels, with the released parameters. It
    compresses brightness; pixels from 0 to 1 would stay as they are.

    Args:
        x: images (N, 3, H, W), 0 to 255.

    Krizhevsky, Sutskever, Hinton 2012, section 3.3.

    >>> brightness_norm(torch.full((1, 3, 1, 1), 128.0)).flatten()
    tensor([76.5969, 76.5969, 76.5969])
    """
    # the sum of three squares of 255 is beyond float16, and has three digits in bf16
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    return (exact / (1 + 2e-5 * exact.square().sum(1, keepdim=True)) ** 0.75).to(x.dtype)


_WIDEST = 31  #: side of a filter


def _require(classes: int, dropout: float) -> None:
    require_int("classes", classes, 2)
    require_type("dropout", dropout, int | float, "a number from 0 to below 1")
    if not 0 <= dropout < 1:
        raise OptionError(f"got dropout={dropout}; wanted a number from 0 to below 1")


def _initialize(net: nn.Module) -> None:
    """Initialize as the authors: filters by He, batch norm with scale 1 and shift 0.001."""
    initialize(net)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.bias, 0.001)
