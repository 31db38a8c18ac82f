"""How a segmentation network draws: the maps of its decoder, stage by stage, from coarse to fine.

Unpooling puts values back to where the trunk had found its maxima, so that sparse maps carry the
outline of the very image; deconvolution makes them dense, and what is not of the class fades.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError
from unpool.models import FCN, DeconvNet
from unpool.ops import unpool
from unpool.vision.drawing import heat_map, to_images
from unpool.vision.figures import contact_sheet
from unpool.vision.images import Pixels
from unpool.visualize.activations import ActivationRecorder
from unpool.visualize.class_scores import find_region, score_maps
from unpool.visualize.shadow import shadow_copy

_SIDE = 224  # of a panel: maps of 7 to 224 cells are enlarged a whole number of times


class DecoderMap(NamedTuple):
    """A map of a decoder."""

    layer: str  #: as the authors call it, such as "unpool4" or "deconv4_3"
    unit: int  #: which of the maps there
    values: Tensor  #: (h, w) float32


@dataclass(frozen=True)
class DecoderTrace:
    """What `decode` gives: of each stage one map before, and one after its own layers."""

    label: int  #: the class that this is about
    region: Tensor  #: (H, W) bool, where it is predicted
    stages: tuple[tuple[DecoderMap | None, DecoderMap], ...]
    """DeconvNet: after unpooling, and after deconvolution. FCN: the scores of the stage before,
    enlarged, which the first does not have; and those of the stage's own maps; of both what the
    network adds, without what reaches beyond the other."""
    scores: Tensor  #: (H, W) float32, of the class, before softmax

    def to_dict(self) -> dict[str, Any]:
        """What the figure shows, as plain values."""
        shown = [one for pair in self.stages for one in pair if one is not None]
        return {
            "unit": self.label,
            "share": float(self.region.float().mean()),
            "score": float(self.scores[self.region].mean()),
            "maps": [
                {
                    "layer": one.layer,
                    "unit": one.unit,
                    "size": list(one.values.shape),
                    "largest": float(one.values.max()),
                }
                for one in shown
            ],
        }

    def figure(self, image: Pixels, name: str = "") -> Pixels:
        """The maps from left to right: above before, below after the layers of a stage.

        Args:
            image: (H, W, 3) uint8, RGB, what the network saw.
            name: of the class.

        Returns:
            (height, width, 3) uint8. Each map has a contrast of its own, dark where it is lowest;
            of the scores, zero is mid-gray.
        """
        name, size = name or f"class {self.label}", self.scores.shape
        blank = np.full((*size, 3), 255, np.uint8), ""
        dimmed = np.where(self.region.numpy()[:, :, None], image, image // 5)
        above = [(image, "input"), *(_panel(pair[0], size) for pair in self.stages), blank]
        below = [(dimmed, f"{name}, as predicted")]
        below += [_panel(pair[1], size) for pair in self.stages]
        below += [(to_images(self.scores[None], contrast="linear")[0], f"score of {name}")]
        columns = len(above)
        width = round(columns * _SIDE / (1 - (columns + 1) / 100))  # the gaps are a hundredth of it
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

    Of each stage the most representative map is taken: the one that is stronger inside the region
    where the class is predicted than outside by most, by the means over both.

    Args:
        model: a DeconvNet or an FCN. It stays as it is, and runs as in evaluation mode.
        image: (1, 3, H, W), as the network takes it; in the paper, a square about one object.
        label: the class; the largest but 0, the background, when not given.
        unit: the number of the map to show of every layer, instead; an FCN has but one a class.
        names: of the classes, for messages.

    Returns:
        The maps, on the CPU.

    Raises:
        OptionError: another model, a class that is predicted nowhere, nothing but background, or a
            map that some layer does not have.
        ShapeError: several images, or one that the network cannot take.

    Noh, Hong, Han 2015, figure 4. How its maps were selected is not given.

    >>> net = DeconvNet(2, ((1, 4), (1, 8)), None, 32)
    >>> image = torch.rand(1, 3, 32, 32)
    >>> label = int(score_maps(net, image).argmax(1)[0, 16, 16])
    >>> [(b.layer, tuple(a.values.shape)) for a, b in decode(net, image, label).stages]
    [('deconv2_1', (16, 16)), ('deconv1_1', (32, 32))]
    """
    if not isinstance(model, DeconvNet | FCN):
        raise OptionError(
            f"got a {type(model).__name__}, in which no decoder is known; wanted a DeconvNet or an "
            "FCN: see what units of other models do with project and top"
        )
    if len(image) != 1:
        raise ShapeError(f"got {len(image)} images; wanted one, (1, 3, H, W)")
    scores = score_maps(model, image)[0].float().cpu()
    labels = scores.argmax(0)
    if label is None:
        label = _largest(labels, names)
    region = find_region(labels, label, names)
    if isinstance(model, FCN):
        if unit is not None:
            raise OptionError("got a unit for an FCN, which has one map a class; name the class")
        stages = _score_stages(model, image, label)
    else:
        stages = _stages(model, image, region, unit)
    return DecoderTrace(label, region, stages, scores[label])


def _largest(labels: Tensor, names: Sequence[str]) -> int:
    count = labels.flatten().bincount()
    count[0] = 0
    if not count.any():
        name = names[0] if names else "class 0"
        raise OptionError(
            f"{name} is all that is predicted in this image; name it as the class, give a crop "
            "about an object, or another image"
        )
    return int(count.argmax())


@torch.no_grad()
def _stages(
    model: DeconvNet, image: Tensor, region: Tensor, unit: int | None
) -> tuple[tuple[DecoderMap, DecoderMap], ...]:
    net = shadow_copy(model)
    assert isinstance(net, DeconvNet)
    maps, switches = net.trunk(image)
    decoded = net.decode(maps, switches)
    before = [maps if net.code is None else net.code(maps), *decoded[:-1]]
    table, stages = net.trunk.table, []
    for number, x, s, y in zip(
        range(len(table), 0, -1), before, reversed(switches), decoded, strict=True
    ):
        last = f"deconv{number}_{table[number - 1][0]}"
        above = _chosen(f"unpool{number}", unpool(x, s), region, unit)
        stages.append((above, _chosen(last, y, region, unit)))
    return tuple(stages)


def _chosen(layer: str, maps: Tensor, region: Tensor, unit: int | None) -> DecoderMap:
    """The most representative of the maps (1, C, h, w), or the one named."""
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
    below = [None, *list(net.factors)[:-1]]
    own = ["score_fr", *(f"score_pool{skip}" for skip in net.skips)]
    layers = [f"score.{name}" for name in (*own, *filter(None, below))]
    with torch.no_grad():
        found = ActivationRecorder(net, layers)(image)

    def one(name: str) -> DecoderMap:
        return DecoderMap(name, label, found[f"score.{name}"][0, label].float().cpu())

    first, *others = zip(below, own, strict=True)
    pairs = [_added(one(b), one(name), net.offsets[name]) for b, name in others if b is not None]
    return ((None, one(first[1])), *pairs)


def _added(a: DecoderMap, b: DecoderMap, offset: int) -> tuple[DecoderMap, DecoderMap]:
    """Where two maps lie over each other, as an FCN crops them to add them."""
    cut, start = max(-offset, 0), max(offset, 0)
    x, y = a.values[cut:, cut:], b.values[start:, start:]
    rows, columns = (min(sides) for sides in zip(x.shape, y.shape, strict=True))
    return a._replace(values=x[:rows, :columns]), b._replace(values=y[:rows, :columns])


def _panel(one: DecoderMap | None, size: Sequence[int]) -> tuple[Pixels, str]:
    """A map as large as the image, and what it is."""
    if one is None:
        return np.full((*size, 3), 255, np.uint8), ""
    colors = heat_map(one.values.numpy(), "inferno")
    cells = cv2.resize(colors, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    height, width = one.values.shape
    return np.asarray(cells, np.uint8), f"{one.layer}, {height} x {width}, map {one.unit}"
