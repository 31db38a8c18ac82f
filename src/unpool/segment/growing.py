"""Networks during training: a DeconvNet with a head at every decoder stage, grown progressively.

Training all five decoder stages at once from random weights needs far more images than most people
have. So the coarsest stage is trained first, under a head of its own; then one stage after the
other is added, and each *starts with what the network already predicts*: its filters carry the
coarser scores through, and its remaining channels start as the transposed filters of the trunk. The
last head is the network's own score layer; the others are dropped at the end.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unpool.errors import OptionError
from unpool.models import FCN, DeconvNet, Network, trunk_table
from unpool.ops import unpool
from unpool.recipes.segment import SegmentationRecipe

_HEADROOM = 2.5  #: standard deviations by which a carried score is shifted above the ReLU's zero


class Learner(nn.Module):
    """A network during training, as a whole and with its own scores.

    Args:
        net: trained in place.
    """

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net
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


class GrowingLearner(Learner):
    """A `DeconvNet` with a 1 x 1 score layer after every stage of its decoder.

    Args:
        net: trained in place.
    """

    net: DeconvNet

    def __init__(self, net: DeconvNet) -> None:
        super().__init__(net)
        widths = [_deconvolutions(stage)[-1].out_channels for stage in net.decoder]
        self.heads = nn.ModuleList(nn.Conv2d(w, net.classes, 1) for w in widths[:-1])

    def head(self, stage: int) -> nn.Conv2d:
        """The score layer after decoder stage `stage`, counted from 0, the coarsest."""
        last = stage == len(self.heads)
        return self.net.score if last else self.heads[stage]  # type: ignore[return-value]

    def forward(
        self, x: Tensor, stages: int, dropout: float = 0.0, last: bool = False
    ) -> list[Tensor]:
        """Scores (N, classes, h, w) after each of the first `stages` decoder stages."""
        maps, switches = self.net.trunk(x)
        maps = F.dropout2d(maps, dropout, self.training)
        decoded = self.net.decode(maps, switches[-stages:])
        return [self.head(i)(decoded[i]) for i in range(stages - 1 if last else 0, stages)]

    def newest(self, stages: int) -> list[nn.Module]:
        """The last of the stages with its head; the code is trained with the first stage."""
        code = [self.net.code] if stages == 1 and self.net.code is not None else []
        return [self.net.decoder[stages - 1], self.head(stages - 1), *code]

    def older(self, stages: int) -> list[nn.Module]:
        """The stages before it, with their heads."""
        parts = [m for i in range(stages - 1) for m in (self.net.decoder[i], self.head(i))]
        return parts + ([self.net.code] if stages > 1 and self.net.code is not None else [])

    def unused(self, stages: int) -> list[nn.Module]:
        """The decoder's stages after it."""
        return list(self.net.decoder[stages:])

    @torch.no_grad()
    def tie(self) -> None:
        """Start every deconvolution as the transpose of its mirror image in the trunk.

        The two share their layout, so the filters are copied as they are. The last layer, whose
        mirror image has three input channels, is He-initialized.

        Zeiler, Fergus 2014, section 2.1 ("transposed versions of the same filters").
        """
        for stage, mirror in zip(self.net.decoder, reversed(self.net.trunk.stages), strict=True):
            convolutions = [m for m in mirror.children() if isinstance(m, nn.Conv2d)]
            for (deconv, _), conv in zip(_layers(stage), reversed(convolutions), strict=True):
                if deconv.weight.shape == conv.weight.shape:
                    deconv.weight.copy_(conv.weight)
                else:
                    nn.init.kaiming_normal_(deconv.weight, mode="fan_out")

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
        kernel = torch.full((3, 3), 4 / 9, device=x.device)
        smooth = torch.tensor([0.25, 0.5, 0.25], device=x.device)
        for deconv, norm in _layers(net.decoder[stage]):
            copies = max(1, min(4, deconv.out_channels // (2 * net.classes)))
            lanes = net.classes * copies
            read = carried.repeat(copies, 1)  # (lanes, C)
            deconv.weight[:, :lanes] = read.t()[:, :, None, None] * kernel
            deconv.get_parameter("bias")[:lanes] = 0
            features = deconv(features)
            variance, mean = torch.var_mean(features.float(), (0, 2, 3), correction=0)
            deviation = variance.sqrt()
            norm.get_buffer("running_mean").copy_(mean)
            norm.get_buffer("running_var").copy_(variance)
            norm.weight[:lanes] = deviation[:lanes]
            norm.bias[:lanes] = _HEADROOM * deviation[:lanes]
            lost = (mean - _HEADROOM * deviation)[:lanes]  # by batch norm
            shift = shift + lost.view(copies, -1).mean(0)
            features = _normalize(features, norm)
            carried = torch.zeros(net.classes, deconv.out_channels, device=x.device)
            for copy in range(copies):
                lane = torch.arange(net.classes)
                carried[lane, copy * net.classes + lane] = 1 / copies
            kernel = torch.outer(smooth, smooth)
        head.weight.copy_(carried[:, :, None, None])
        head.get_parameter("bias").copy_(shift)


def build(recipe: SegmentationRecipe, classes: int) -> Learner:
    """The recipe's network, with heads for its training.

    Raises:
        OptionError: more stages than the trunk has.
    """
    depth = len(trunk_table(recipe.trunk))
    for phase in recipe.phases:
        if max(phase.stages, phase.trunk_from) > depth:
            raise OptionError(
                f"got stages={phase.stages}, trunk_from={phase.trunk_from} in the phase "
                f"{phase.name!r}; this trunk has {depth} stages"
            )
    if recipe.network == "DeconvNet":
        net = DeconvNet(classes, recipe.trunk, recipe.code, recipe.size, recipe.bn_eps)
        return GrowingLearner(net)
    r = recipe
    return Learner(FCN(classes, r.trunk, r.code, r.stride, r.pad, r.window, r.dropout, r.at_once))


def _deconvolutions(stage: nn.Module) -> list[nn.ConvTranspose2d]:
    return [layer for layer in stage.children() if isinstance(layer, nn.ConvTranspose2d)]


def _layers(stage: nn.Module) -> list[tuple[nn.ConvTranspose2d, nn.BatchNorm2d]]:
    """The deconvolutions of a stage, each with its batch norm."""
    norms = [layer for layer in stage.children() if isinstance(layer, nn.BatchNorm2d)]
    return list(zip(_deconvolutions(stage), norms, strict=True))


def _normalize(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    training, norm.training = norm.training, False
    y = norm(x).relu()
    norm.training = training
    return y
