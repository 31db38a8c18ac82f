"""The decoder of a segmentation network, stage by stage: its feature maps from coarse to fine.

Unpooling puts values back where the trunk found its maxima, so that sparse maps carry the outlines
of the image; deconvolution makes them dense, and what does not belong to the class fades.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeGuard

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError
from unpool.models import CRFRNN, FCN, DeconvNet, DecoupledNet, SegNet, SegNetBasic
from unpool.vision.drawing import heat_map, to_images
from unpool.vision.figures import contact_sheet
from unpool.visualize.activations import ActivationRecorder
from unpool.visualize.class_scores import find_region, largest_classes, score_maps
from unpool.visualize.shadow import shadow_copy

if TYPE_CHECKING:
    from unpool.vision.images import Pixels

_Decoding: TypeAlias = DeconvNet | SegNet | SegNetBasic | DecoupledNet | FCN

_SIDE = 224  # of a panel, in pixels: maps of 7 x 7 to 224 x 224 are enlarged by whole factors


class DecoderMap(NamedTuple):
    """A feature map of a decoder."""

    layer: str  #: as the authors call it, such as "unpool4" or "deconv4_3"
    unit: int  #: the number of the map
    values: Tensor  #: (h, w) float32


@dataclass(frozen=True)
class DecoderTrace:
    """The result of `decode`: for each stage, a map before and a map after its own layers.

    For a DeconvNet, SegNet or DecoupledNet, these are after unpooling and after the layers of the
    decoder; a DecoupledNet has a pass for each class, whose maps are those of the image padded to a
    square. For an FCN, they are the upsampled scores of the stage before (None in the first) and
    the scores of the stage itself, cut to the part where the network adds them.
    """

    label: int  #: the class
    region: Tensor  #: (H, W) bool, where it is predicted
    stages: tuple[tuple[DecoderMap | None, DecoderMap], ...]
    scores: Tensor  #: (H, W) float32, of the class, before softmax

    def to_dict(self) -> dict[str, Any]:
        """Plain values: `unit` (the class), `fraction` of the image, mean `score`, the `maps`."""
        return {
            "unit": self.label,
            "fraction": float(self.region.float().mean()),
            "score": float(self.scores[self.region].mean()),
            "maps": [
                {
                    "layer": one.layer,
                    "unit": one.unit,
                    "size": list(one.values.shape),
                    "largest": float(one.values.max()),
                }
                for pair in self.stages
                for one in pair
                if one is not None
            ],
        }

    def figure(self, image: "Pixels", name: str = "") -> "Pixels":
        """The stages from left to right: above before, below after their own layers.

        The contrast of each map is stretched by itself; in the scores of the class, zero is
        mid-gray.

        Args:
            image: (H, W, 3) uint8, RGB, the input of the network; the figure is of this kind.
            name: of the class.
        """
        name, size = name or f"class {self.label}", self.scores.shape
        blank = np.full((*size, 3), 255, np.uint8), ""
        dimmed = np.where(self.region.numpy()[:, :, None], image, image // 5)
        before, after = zip(*self.stages, strict=True)
        above = [(image, "input"), *(_panel(one, size) if one else blank for one in before), blank]
        below = [(dimmed, f"{name}, as predicted"), *(_panel(one, size) for one in after)]
        below += [(to_images(self.scores[None], contrast="linear")[0], f"score of {name}")]
        columns = len(above)
        width = round(columns * _SIDE / (1 - (columns + 1) / 100))  # gaps are 1 % of the width
        return contact_sheet([*above, *below], columns, width)


def decode(
    model: nn.Module,
    image: Tensor,
    label: int | None = None,
    unit: int | None = None,
    *,
    names: Sequence[str] = (),
) -> DecoderTrace:
    """Follow a class through the decoder of a network.

    Of each layer the most representative map is taken: the one whose mean inside the region where
    the class is predicted exceeds its mean outside by most.

    Args:
        model: a DeconvNet, a SegNet, a DecoupledNet, or an FCN, also that of a CRF-RNN, which is
            followed without the CRF.
        image: (1, 3, H, W), preprocessed; in the paper, a square around one object.
        label: the class; the largest but 0, the background, when not given.
        unit: the map of every layer to take instead; an FCN has only one for each class.
        names: of the classes, for error messages.

    Raises:
        OptionError: another model, a class that is predicted nowhere, nothing but background, or a
            map that some layer does not have.
        ShapeError: several images, or one that the network cannot take.

    Noh, Hong, Han 2015, figure 4; the paper does not say how its maps were selected.

    >>> net = DeconvNet(2, ((1, 4), (1, 8)), None, 32)
    >>> image = torch.rand(1, 3, 32, 32)
    >>> label = int(score_maps(net, image).argmax(1)[0, 16, 16])
    >>> [(b.layer, tuple(a.values.shape)) for a, b in decode(net, image, label).stages]
    [('deconv2_1', (16, 16)), ('deconv1_1', (32, 32))]
    """
    model = model.net if isinstance(model, CRFRNN) else model
    if not has_decoder(model):
        raise OptionError(
            f"got a {type(model).__name__}, in which no decoder is known; wanted a DeconvNet, a "
            "SegNet, a DecoupledNet or an FCN: for the units of other models, use project or "
            "top_activations"
        )
    if len(image) != 1:
        raise ShapeError(f"got {len(image)} images; wanted one, (1, 3, H, W)")
    scores = score_maps(model, image)[0].float().cpu()
    labels = scores.argmax(0)
    if label is None and (label := next(iter(largest_classes(labels)), None)) is None:
        raise OptionError(
            f"{names[0] if names else 'class 0'} is all that is predicted in this image; name it "
            "as the class, pass a crop around an object, or another image"
        )
    region = find_region(labels, label, names)
    if not isinstance(model, FCN):
        stages = _stages(model, image, label, region, unit)
        return DecoderTrace(label, region, stages, scores[label])
    if unit is not None:
        raise OptionError("got a unit for an FCN, which has one map a class; name the class")
    return DecoderTrace(label, region, _score_stages(model, image, label), scores[label])


def has_decoder(model: nn.Module) -> TypeGuard[_Decoding]:
    """Whether `decode` knows the decoder of a model.

    >>> has_decoder(nn.Identity())
    False
    """
    return isinstance(model.net if isinstance(model, CRFRNN) else model, _Decoding)


@torch.no_grad()
def _stages(
    model: DeconvNet | SegNet | SegNetBasic | DecoupledNet,
    image: Tensor,
    label: int,
    region: Tensor,
    unit: int | None,
) -> tuple[tuple[DecoderMap, DecoderMap], ...]:
    net = shadow_copy(model)
    assert isinstance(net, DeconvNet | SegNet | SegNetBasic | DecoupledNet)
    seen: list[tuple[Tensor, Tensor]] = []
    for stage in net.decoder:
        stage.register_forward_hook(lambda _, given, found: seen.append((given[0], found)))
    net(image)
    row = 0
    if isinstance(net, DecoupledNet):  # a pass for all classes, and one for each; of a square
        row = int(net.shows(image)[0, : label - 1].sum()) + 1 if label else 0
        height, width = region.shape
        region = F.pad(region, (0, max(height - width, 0), 0, max(width - height, 0)))
    seen = [(x[row : row + 1], y[row : row + 1]) for x, y in seen]
    stages = []
    depth = len(net.trunk.table)
    numbers = range(depth, depth - len(seen), -1)
    for number, stage, (x, y) in zip(numbers, net.decoder, seen, strict=True):
        above = _choose(f"unpool{number}", x, region, unit)
        layers = [
            n for n, m in stage.named_children() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
        ]
        stages.append((above, _choose([f"unpool{number}", *layers][-1], y, region, unit)))
    return tuple(stages)


def _choose(layer: str, maps: Tensor, region: Tensor, unit: int | None) -> DecoderMap:
    """The given or the most representative of the maps (1, C, h, w)."""
    found = maps[0].float().cpu()
    if unit is None:
        inside = F.adaptive_avg_pool2d(region[None].float(), (found.shape[1], found.shape[2]))
        unit = int((_mean(found, inside) - _mean(found, 1 - inside)).argmax())
    if not 0 <= unit < len(found):
        raise OptionError(
            f"got unit {unit} of layer {layer!r}, which has {len(found)}; wanted 0 to "
            f"{len(found) - 1}"
        )
    return DecoderMap(layer, unit, found[unit])


def _mean(maps: Tensor, weights: Tensor) -> Tensor:
    return (maps * weights).sum((1, 2)) / weights.sum().clamp(min=1e-6)


def _score_stages(
    net: FCN, image: Tensor, label: int
) -> tuple[tuple[DecoderMap | None, DecoderMap], ...]:
    below = list(net.factors)[:-1]
    own = ["score_fr", *(f"score_pool{skip}" for skip in net.skips)]
    layers = [f"score.{name}" for name in (*own, *below)]
    with torch.no_grad():
        found = ActivationRecorder(net, layers)(image)

    def class_map(name: str) -> DecoderMap:
        return DecoderMap(name, label, found[f"score.{name}"][0, label].float().cpu())

    stages: list[tuple[DecoderMap | None, DecoderMap]] = [(None, class_map(own[0]))]
    for upsampled, name in zip(below, own[1:], strict=True):
        # the parts that overlap, cropped as an FCN crops them to add them
        a, b, offset = class_map(upsampled), class_map(name), net.offsets[name]
        cut, start = max(-offset, 0), max(offset, 0)
        x, y = a.values[cut:, cut:], b.values[start:, start:]
        rows, columns = map(min, zip(x.shape, y.shape, strict=True))
        x, y = x[:rows, :columns], y[:rows, :columns]
        stages.append((a._replace(values=x), b._replace(values=y)))
    return tuple(stages)


def _panel(one: DecoderMap, size: Sequence[int]) -> tuple["Pixels", str]:
    """A map, enlarged to (height, width), with its caption."""
    colors = heat_map(one.values.numpy(), "inferno")
    cells = cv2.resize(colors, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    height, width = one.values.shape
    return np.asarray(cells, np.uint8), f"{one.layer}, {height} x {width}, map {one.unit}"
