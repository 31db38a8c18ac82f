"""Networks during training, and progressive growing.

Training all five decoder stages at once from random weights needs far more images than most people
have. So the coarsest stage is trained first, under a head of its own; then one stage after the
other is added, and each *starts with what the network already predicts*: its filters carry the
coarser scores through, and its remaining channels start as the transposed filters of the trunk. The
last head is the network's own score layer; the others are dropped at the end. SegNet, whose decoder
convolves, grows like DeconvNet.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unpool.errors import OptionError
from unpool.models import CRFRNN, DeconvNet, DeepLab, Network, SegNet, trunk_table
from unpool.ops import as_convolution, unpool
from unpool.segment.networks import NETWORKS

if TYPE_CHECKING:
    from unpool.recipes.segment import SegmentationRecipe

_HEADROOM = 2.5  #: standard deviations by which a carried score is shifted above the ReLU's zero


class Learner(nn.Module):
    """A network during training, as a whole and with its own scores; changed in place."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net
        # such as the bilinear interpolation of an FCN
        self.fixed = {id(p) for p in net.parameters() if not p.requires_grad}

    def forward(
        self, x: Tensor, stages: int, dropout: float = 0.0, last: bool = False
    ) -> list[Tensor]:
        """Scores (N, classes, h, w) of every head, from coarse to fine.

        Args:
            x: images (N, 3, H, W), see `prepare`.
            stages: number of decoder stages to run; each doubles the side of the maps.
            dropout: fraction of the trunk's last maps that are set to zero in training mode.
            last: return the finest scores only.
        """
        return [self.net(x)]

    def newest(self, stages: int) -> list[nn.Module]:
        """The modules of the last of `stages` decoder stages, with those trained like it."""
        return [part for name, part in self.net.named_children() if name != "trunk"]

    def older(self, stages: int) -> list[nn.Module]:
        """The modules of the stages before it."""
        return []

    def unused(self, stages: int) -> list[nn.Module]:
        """The stages after it."""
        return []

    def grow(self, stage: int, x: Tensor) -> None:
        """Initialize stage `stage` to continue the prediction of those before it."""
        raise NotImplementedError

    def targets(self, truth: Tensor) -> Tensor:
        """The labels (N, H', W') from the first pixel on that a score stands for, of (N, H, W)."""
        return truth


class GridLearner(Learner):
    """A `DeepLab`, trained on the scores at every eighth pixel.

    The newest are the score layers: the authors train the last one ten times as fast as the others.
    """

    net: DeepLab

    def forward(
        self, x: Tensor, stages: int, dropout: float = 0.0, last: bool = False
    ) -> list[Tensor]:
        """Scores (N, classes, h, w), on the grid in training, of all pixels in evaluation."""
        return [self.net.coarse(x) if self.training else self.net(x)]

    def newest(self, stages: int) -> list[nn.Module]:
        """The score layers, and the layers before those of finer maps."""
        return [self.net.score, self.net.fine]

    def older(self, stages: int) -> list[nn.Module]:
        """fc6 and fc7."""
        return [self.net.fc]

    def targets(self, truth: Tensor) -> Tensor:
        """The labels without a first row and column that have no score."""
        return truth[:, self.net.first :, self.net.first :]


class MeanFieldLearner(Learner):
    """A `CRFRNN`, whose CRF is the newest stage, and whose FCN, without the trunk, an older one."""

    net: CRFRNN

    def newest(self, stages: int) -> list[nn.Module]:
        """The CRF."""
        return [self.net.crf]

    def older(self, stages: int) -> list[nn.Module]:
        """The layers of the FCN after its trunk."""
        return [part for name, part in self.net.net.named_children() if name != "trunk"]


class GrowingLearner(Learner):
    """A `DeconvNet` or `SegNet` with a 1 x 1 score layer after every other stage of its decoder."""

    net: DeconvNet | SegNet

    def __init__(self, net: DeconvNet | SegNet) -> None:
        super().__init__(net)
        widths = [_layers(stage)[-1][0].out_channels for stage in net.decoder[:-1]]
        self.heads = nn.ModuleList(nn.Conv2d(w, net.classes, 1) for w in widths)

    def head(self, stage: int) -> nn.Conv2d:
        """The score layer after decoder stage `stage`, counted from 0, the coarsest."""
        last = stage == len(self.heads)
        return self.net.score if last else self.heads[stage]  # type: ignore[return-value]

    def forward(
        self, x: Tensor, stages: int, dropout: float = 0.0, last: bool = False
    ) -> list[Tensor]:
        """Scores (N, classes, h, w) after each of the first `stages` decoder stages."""
        maps, switches = self.net.trunk(x)
        if isinstance(self.net, DeconvNet):  # SegNet has dropout of its own
            maps = F.dropout2d(maps, dropout, self.training)
        decoded = self.net.decode(maps, switches[-stages:])
        return [self.head(i)(decoded[i]) for i in range(stages - 1 if last else 0, stages)]

    def newest(self, stages: int) -> list[nn.Module]:
        """The last of the stages with its head; the code is trained with the first stage."""
        code = [self.net.fc] if stages == 1 and self.net.fc is not None else []
        return [self.net.decoder[stages - 1], self.head(stages - 1), *code]

    def older(self, stages: int) -> list[nn.Module]:
        """The stages before it, with their heads."""
        parts = [m for i in range(stages - 1) for m in (self.net.decoder[i], self.head(i))]
        return parts + ([self.net.fc] if stages > 1 and self.net.fc is not None else [])

    def unused(self, stages: int) -> list[nn.Module]:
        """The decoder's stages after it."""
        return list(self.net.decoder[stages:])

    @torch.no_grad()
    def tie(self) -> None:
        """Start every layer of the decoder as the transpose of its mirror image in the trunk.

        A deconvolution shares its layout, so the filters are copied as they are; those of a
        convolution are turned. The last layer, whose mirror image has three input channels, is
        He-initialized.

        Zeiler, Fergus 2014, section 2.1 ("transposed versions of the same filters").
        """
        for stage, mirror in zip(self.net.decoder, reversed(self.net.trunk.stages), strict=True):
            convolutions = [m for m in mirror.children() if isinstance(m, nn.Conv2d)]
            # the last stage of a SegNet ends with its scores, a layer earlier
            for (layer, _), conv in zip(_layers(stage), reversed(convolutions), strict=False):
                convolves = isinstance(layer, nn.Conv2d)
                filters = as_convolution(conv.weight) if convolves else conv.weight
                if layer.weight.shape == filters.shape:
                    layer.weight.copy_(filters)
                else:
                    # filters of deconvolutions are (I, O, k, k): what PyTorch calls fan-out enters
                    # them
                    nn.init.kaiming_normal_(layer.weight, mode="fan_in" if convolves else "fan_out")

    @torch.no_grad()
    def grow(self, stage: int, x: Tensor) -> None:
        """Initialize decoder stage `stage` to pass on the scores before it.

        Its first layer computes the coarser head's scores and spreads each over the 3 x 3 window
        (of which unpooling has filled 9/4 places on average); the others pass them on, slightly
        smoothed; batch norm shifts them above the ReLU's zero, and the stage's own head reads them
        off. Up to four channels carry each class, since each is unpooled to other places.

        Args:
            stage: from 1, the second-coarsest.
            x: images (N, 3, H, W) on which the carried scores are measured.
        """
        net, coarser, head = self.net, self.head(stage - 1), self.head(stage)
        maps, switches = net.trunk(x)
        switches = switches[-stage - 1 :]
        features = unpool(net.decode(maps, switches[1:])[-1], switches[0])
        carried = coarser.weight[:, :, 0, 0]  # (K, C): reads the scores off the maps
        shift: Tensor = coarser.get_parameter("bias")  # (K,): their bias
        # unpooling fills a quarter of the map: nine taps of 4/9 keep the mean
        kernel = torch.full((3, 3), 4 / 9, device=x.device)
        smooth = torch.tensor([0.25, 0.5, 0.25], device=x.device)
        for layer, norm in _layers(net.decoder[stage]):
            copies = max(1, min(4, layer.out_channels // (2 * net.classes)))
            lanes = net.classes * copies
            read = carried.repeat(copies, 1)  # (lanes, C)
            weight = layer.weight if isinstance(layer, nn.Conv2d) else layer.weight.transpose(0, 1)
            weight[:lanes] = read[:, :, None, None] * kernel
            layer.get_parameter("bias")[:lanes] = 0
            features = layer(features)
            variance, mean = torch.var_mean(features.float(), (0, 2, 3), correction=0)
            deviation = variance.sqrt()
            norm.get_buffer("running_mean").copy_(mean)
            norm.get_buffer("running_var").copy_(variance)
            norm.weight[:lanes] = deviation[:lanes]
            norm.bias[:lanes] = _HEADROOM * deviation[:lanes]
            lost = (mean - _HEADROOM * deviation)[:lanes]  # by batch norm
            shift = shift + lost.view(copies, -1).mean(0)
            features = _normalize(features, norm)
            carried = torch.zeros(net.classes, layer.out_channels, device=x.device)
            for copy in range(copies):
                lane = torch.arange(net.classes)
                carried[lane, copy * net.classes + lane] = 1 / copies
            kernel = torch.outer(smooth, smooth)
        taps = carried[:, :, None, None]
        head.weight.copy_(taps if head.kernel_size == (1, 1) else taps * kernel)
        head.get_parameter("bias").copy_(shift)


def build(recipe: "SegmentationRecipe", classes: int) -> Learner:
    """The recipe's network, with heads for its training."""
    depth = len(trunk_table(recipe.trunk))
    for i, phase in enumerate(recipe.phases):
        if max(phase.stages, phase.trunk_from) > depth:
            raise OptionError(
                f"got phases.{i}.stages={phase.stages} and phases.{i}.trunk_from="
                f"{phase.trunk_from} (the phase {phase.name!r}); this trunk has {depth} stages"
            )
    net = NETWORKS[recipe.network](recipe, classes)
    if isinstance(net, DeconvNet | SegNet):
        grown = net.decoder[recipe.phases[0].stages : max(p.stages for p in recipe.phases)]
        widths = [layer.out_channels for stage in grown for layer, _ in _layers(stage)]
        if widths and min(widths) < classes:
            raise OptionError(
                f"got {classes} classes, whose scores a new stage of {min(widths)} channels cannot "
                "carry; train all stages from the first phase on, "
                f"phases.0.stages={len(net.decoder)}, or take a wider trunk"
            )
    return LEARNERS.get(type(net), Learner)(net)


LEARNERS: dict[type[Network], Callable[[Any], Learner]] = {
    DeconvNet: GrowingLearner,
    SegNet: GrowingLearner,
    DeepLab: GridLearner,
    CRFRNN: MeanFieldLearner,
}
"""What trains a network that is not trained as a whole, on its own scores."""


def _layers(stage: nn.Module) -> list[tuple[nn.Conv2d | nn.ConvTranspose2d, nn.BatchNorm2d]]:
    """The convolutions or deconvolutions of a stage, each with its batch norm."""
    layers = [m for m in stage.children() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    norms = [m for m in stage.children() if isinstance(m, nn.BatchNorm2d)]
    return list(zip(layers, norms, strict=True))


def _normalize(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    training, norm.training = norm.training, False
    y = norm(x).relu()
    norm.training = training
    return y
