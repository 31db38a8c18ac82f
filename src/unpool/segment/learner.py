"""Networks during training: progressive growing, and the initial weights.

Training all five decoder stages at once from random weights needs far more images than most people
have. So the coarsest stage is trained first, under a head of its own; then one stage after the
other is added, and each *starts with what the network already predicts*: its filters carry the
coarser scores through, and its remaining channels start as the transposed filters of the trunk. The
last head is the network's own score layer; the others are dropped at the end. SegNet, whose decoder
convolves, grows like DeconvNet.
"""

from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unpool.cards import Card
from unpool.errors import OptionError, WeightsError
from unpool.models import (
    CRFRNN,
    FCN,
    DeconvNet,
    DeepLab,
    Network,
    SegNet,
    from_pretrained,
    load_vgg,
    trunk_table,
)
from unpool.models.fast import fold
from unpool.ops import as_convolution, unpool
from unpool.segment.networks import NETWORKS
from unpool.training.run import load_state, save_state

if TYPE_CHECKING:
    from unpool.recipes.segment import SegmentationRecipe

_HEADROOM = 2.5  #: standard deviations by which a carried score is shifted above the ReLU's zero


class Learner(nn.Module):
    """A network during training, as a whole and with its own scores; changed in place."""

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
    for phase in recipe.phases:
        if max(phase.stages, phase.trunk_from) > depth:
            raise OptionError(
                f"got stages={phase.stages}, trunk_from={phase.trunk_from} in the phase "
                f"{phase.name!r}; this trunk has {depth} stages"
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


# ---- initial weights -----------------------------------------------------------------------------


class WarmStart(NamedTuple):
    """The initial weights as far as the end of a run needs them."""

    card: Card | None  #: their card; None without a warm start
    tensors: dict[str, Tensor]  #: by name; empty without weight averaging


def warm_start(
    learner: Learner,
    recipe: "SegmentationRecipe",
    classes: list[str],
    trunk_weights: str | Path | None,
    trunk_inputs: str,
) -> WarmStart:
    """Load the initial weights into a new network.

    Args:
        learner: its network is changed.
        recipe: its `start`, if it has one.
        classes: names by class id, of the data.
        trunk_weights: VGG weights for the trunk, or a folder for `trunk_of`.
        trunk_inputs: their preprocessing, see `load_vgg`.

    Raises:
        OptionError, WeightsError: weights that do not fit, cannot be averaged, or cannot be read.
    """
    start = WarmStart(None, {})
    if recipe.start is not None:
        trained, card = from_pretrained(recipe.start)
        transfer_weights(learner.net, trained)
        start = WarmStart(card, {})
        if recipe.average_with_start:
            if trunk_weights is not None:
                raise OptionError(
                    "got weights for the trunk, but the result is averaged with those of start; "
                    "leave trunk_weights out, or set average_with_start=0"
                )
            _require_alike(learner.net, trained, card.classes or [], classes)
            start = WarmStart(card, trained.state_dict())
    if trunk_weights is not None:
        if Path(trunk_weights).is_dir():
            load_vgg(learner.net, trunk_of(trunk_weights))
        else:
            load_vgg(learner.net, trunk_weights, trunk_inputs)
        if recipe.tied and isinstance(learner, GrowingLearner):
            learner.tie()
    return start


def trunk_of(folder: str | Path) -> dict[str, Tensor]:
    """The convolutions of a saved network's trunk as those of VGG, with batch norm folded.

    Raises a `WeightsError` unless the network segments.
    """
    net, card = from_pretrained(folder)
    if not isinstance(net, Network):
        raise WeightsError(
            f"got {folder}, weights of a {card.architecture}; wanted those of a DeconvNet or an "
            "FCN, or a file of VGG weights"
        )
    layers = [layer for layer in fold(net).trunk.modules() if isinstance(layer, nn.Conv2d)]
    return {
        f"features.{i}.{name}": value.detach()
        for i, layer in enumerate(layers)
        for name, value in layer.state_dict().items()
    }


def store_start(path: Path, start: WarmStart) -> None:
    """Store the initial weights in the run folder, for `read_start`."""
    if start.card is not None:
        save_state(path, {"model": start.tensors, "card": start.card.to_dict()})


def read_start(path: Path, recipe: "SegmentationRecipe", net: Network) -> WarmStart:
    """The initial weights of a resumed run, as `store_start` wrote them."""
    if recipe.start is None:
        return WarmStart(None, {})
    cure = "put back a copy, or start a new run in another folder"
    if not path.exists():
        raise WeightsError(f"{path} is missing, the initial weights of the run; {cure}")
    state = load_state(path)
    wanted = _shapes(net.state_dict()) if recipe.average_with_start else {}
    if "card" not in state or _shapes(state["model"]) != wanted:
        raise WeightsError(f"{path} does not hold the initial weights of the run; {cure}")
    return WarmStart(Card.from_dict(state["card"], path), state["model"])


def transfer_weights(net: Network, trained: object) -> None:
    """Copy the tensors of a trained network that have the same names and shapes.

    Score layers of other classes stay as they are; another network or trunk is refused. An FCN
    starts that of a `CRFRNN`.
    """
    if isinstance(net, CRFRNN) and isinstance(trained, FCN):
        net = net.net
    if not isinstance(trained, type(net)):
        theirs, ours = type(trained).__name__, type(net).__name__
        raise OptionError(
            f"got {theirs} weights to start from, and a recipe that trains a network {ours}; set "
            f"start to {ours} weights"
        )
    if net.trunk.table != trained.trunk.table:
        raise OptionError("got weights to start from with another trunk; set trunk to theirs")
    own, other = net.state_dict(), trained.state_dict()
    fits = {k: v for k, v in other.items() if k in own and own[k].shape == v.shape}
    net.load_state_dict(fits, strict=False)


@torch.no_grad()
def average_weights(net: Network, other: dict[str, Tensor], fraction: float) -> None:
    """Interpolate a network's tensors with those of another one.

    When one network was fine-tuned from the other, the loss between them is often lower than at
    either. Wortsman et al. 2022, "Robust fine-tuning of zero-shot models".

    Args:
        net: changed in place.
        other: tensors by name, of the same architecture and the same classes in the same order.
        fraction: 0..1, the weight of `other`.
    """
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(other[name].to(tensor), fraction)


def _require_alike(net: Network, trained: Network, names: list[str], classes: list[str]) -> None:
    """Refuse to average networks of other classes or architectures."""
    for i, (theirs, ours) in enumerate(zip_longest(names, classes, fillvalue="not named")):
        if theirs != ours:
            raise OptionError(
                f"got weights to start from whose class {i} is {theirs}, and data whose class {i} "
                f"is {ours}; averaging needs the same classes in the same order: write the same "
                "names into the weights' card or the data's classes.txt, or set "
                "average_with_start=0"
            )
    if _shapes(net.state_dict()) != _shapes(trained.state_dict()):
        raise OptionError(
            "got weights to start from of another architecture, which cannot be averaged; set "
            "average_with_start=0"
        )


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
