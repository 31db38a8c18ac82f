"""DeconvNet: a trunk and its mirror image (Noh, Hong, Han 2015).

One table is read twice: forwards for the convolution network, and backwards, with unpooling for
pooling and deconvolution for convolution, for the deconvolution network.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError, require_int
from unpool.models.vgg import (
    Table,
    Trunk,
    block,
    chain,
    decode,
    initialize,
    recompute,
    trunk_argument,
)

if TYPE_CHECKING:
    from unpool.ops.switches import Switches


class DeconvNet(nn.Module):
    """The deconvolution network for semantic segmentation; the defaults are the published one.

    30 layers with parameters, batch norm and ReLU after all but the last, 251,805,653 parameters.
    Layers carry the authors' names: the state dict's keys end in `conv1_1.weight`,
    `fc6-deconv.weight`, `deconv5_1.weight`, `debn5_1.weight`, `seg-score-voc.weight` ...

    The network takes any image whose last pooled map is at least as large as that of the design
    size, and does not resize it. (The design size only sets the kernel of the code layers.)

    Args:
        classes: number of score maps, background included.
        trunk: a VGG name ("vgg11" to "vgg19") or a table of (layers, channels) rows.
        code: width of fc6 and fc7; None omits the code layers (fc6, fc7, fc6-deconv) and decodes
            the last pooled maps directly.
        size: design size in pixels, from 32 up for five stages.
        eps: of batch norm, 1e-9 as in the authors' Caffe; None omits batch norm.
        norm: "deconv" for network deconvolution in the trunk, see `Trunk`.

    Noh, Hong, Han 2015, section 3 and figure 2; layer widths from the released prototxt. For other
    engines, see `unpool.export.write.export`.

    >>> net = DeconvNet(classes=3, trunk=((1, 8), (1, 16)), code=32, size=32).eval()
    >>> net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        classes: int = 21,
        trunk: str | Table = "vgg16",
        code: int | None = 4096,
        size: int = 224,
        eps: float | None = 1e-9,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        self.trunk, self.norm = Trunk(trunk, eps, norm=norm), norm
        table = self.trunk.table
        self.classes, self.code_width, self.size, self.eps = classes, code, size, eps
        require_int("classes", classes, 2)
        require_int("size", size, 2 ** len(table))
        if code is not None:
            require_int("code", code)
        if eps is not None and not (isinstance(eps, int | float) and 0 <= eps <= 1):
            raise OptionError(f"got eps={eps!r}; wanted a number from 0 to 1, or None")
        self.side = _pooled(size, len(table))  # of the last pooled map at the design size
        # not `code`: torch.export needs that name for an attribute of its own
        self.fc = None if code is None else _code(table[-1][1], code, self.side, eps)
        self.decoder = mirror(table, eps)
        self.add_module("seg-score-voc", nn.Conv2d(table[0][1], classes, 1))
        self._initialize()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes, H, W) for images (N, 3, H, W) made by `prepare`.

        Raises a `ShapeError` if they are too small, or too few to train batch norm.
        """
        maps, switches = self.trunk(x)  # (N, 512, H / 32, W / 32) with VGG-16
        features = self.decode(maps, switches)[-1]
        return self.score(features.to(self.score.weight.dtype))  # which may stay float32

    def decode(self, maps: Tensor, switches: list["Switches"]) -> list[Tensor]:
        """The maps after each stage of the decoder, from coarse to fine (N, C, H, W).

        Args:
            maps: the trunk's last pooled maps, (N, C, h, w).
            switches: the trunk's switches, one for each stage; or only the *last* ones, to decode
                as many stages.
        """
        x = maps if self.code is None else self._encode(maps)  # (N, C, h, w), as maps
        return decode(self.decoder, x, switches, self.trunk.recomputes)

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments that build this network again, as plain values."""
        trunk = {"trunk": trunk_argument(self.trunk.table), "code": self.code_width}
        values = {"classes": self.classes, **trunk, "size": self.size, "eps": self.eps}
        return {**values, "norm": self.norm} if self.norm is not None else values

    @property
    def code(self) -> nn.Sequential | None:
        """The code layers, fc6, fc7 and fc6-deconv; None in a network without them."""
        return self.fc

    @property
    def score(self) -> nn.Conv2d:
        """The last layer, `seg-score-voc`: a 1 x 1 convolution."""
        layer = self.get_submodule("seg-score-voc")
        assert isinstance(layer, nn.Conv2d)
        return layer

    def _encode(self, maps: Tensor) -> Tensor:
        height, width = maps.shape[-2:]
        if height < self.side or width < self.side:
            raise ShapeError(
                f"got an image whose last pooled map is {height} x {width}; the code layers of "
                f"this network need {self.side} x {self.side}: enlarge the image to "
                f"{self.size} pixels, or build the network with a smaller size or code=None"
            )
        assert self.fc is not None
        values = maps.shape[0] * (height - self.side + 1) * (width - self.side + 1)
        norms = [m for m in self.fc.modules() if isinstance(m, nn.BatchNorm2d)]
        if values == 1 and any(norm.training for norm in norms):
            raise ShapeError(
                "got a single sample to train batch norm on a 1 x 1 code; pass a batch of two or "
                "more, or put the code layers into evaluation mode with net.code.eval()"
            )
        if self.trunk.recomputes:
            return recompute(self.fc, nn.Module.__call__, maps)
        return self.fc(maps)

    def _initialize(self) -> None:
        """Initialize as the authors: deconvolutions and scores Gaussian 0.01, batch norm scale 1
        and shift 0.001; trunk, fc6 and fc7 by He, to be replaced by VGG weights (`load_vgg`)."""
        initialize(self, lambda w: nn.init.normal_(w, std=0.01))
        initialize(self.trunk)
        if self.code is not None:
            for name in ("fc6", "fc7"):
                initialize(self.code.get_submodule(name))
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.constant_(layer.bias, 0.001)


def _pooled(size: int, stages: int) -> int:
    for _ in range(stages):
        size = (size + 1) // 2
    return size


def _code(channels: int, width: int, side: int, eps: float | None) -> nn.Sequential:
    """fc6, fc7 and fc6-deconv: fully connected layers on maps (C, side, side) as convolutions."""
    fc6, fc7 = nn.Conv2d(channels, width, side), nn.Conv2d(width, width, 1)
    back = nn.ConvTranspose2d(width, channels, side)
    blocks = [block(fc6, "fc6", "bnfc6", width, eps), block(fc7, "fc7", "bnfc7", width, eps)]
    return chain([*blocks, block(back, "fc6-deconv", "fc6-deconv-bn", channels, eps)])


def mirror(table: Table, eps: float | None) -> nn.ModuleList:
    """The stages of the decoder: a trunk's table read backwards, as deconvolutions.

    The last layer of a stage narrows to the width of the next. `eps` is that of batch norm.

    >>> [len(stage) for stage in mirror(((1, 4), (2, 8)), eps=None)]  # with a ReLU each
    [4, 2]
    """
    stages = nn.ModuleList()
    for stage in range(len(table), 0, -1):
        layers, width = table[stage - 1]
        below = table[max(stage - 2, 0)][1]
        blocks = []
        for layer in range(1, layers + 1):
            out = below if layer == layers else width
            deconv = nn.ConvTranspose2d(width, out, 3, padding=1)
            blocks.append(block(deconv, f"deconv{stage}_{layer}", f"debn{stage}_{layer}", out, eps))
        stages.append(chain(blocks))
    return stages
