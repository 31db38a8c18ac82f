"""Load SegNet, SegNet-Basic and their Bayesian versions from the authors' files.

Dropout has no weights, so a file does not show it. Networks that the authors call Bayesian get the
published dropout.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from unpool.data.layouts.folders import CAMVID_CLASSES
from unpool.errors import WeightsError
from unpool.models import SegNet, SegNetBasic
from unpool.models.caffe import blobs
from unpool.models.caffe.blobs import BatchNorm, Format, Imported

if TYPE_CHECKING:
    from unpool.models.caffe.protobuf import Layer

_STAGES = (2, 2, 3, 3, 3)
_TRUNK = [f"conv{s}_{i}" for s, n in enumerate(_STAGES, 1) for i in range(1, n + 1)]
_DECODER = [f"{name}_D" for name in reversed(_TRUNK)]
_LAYERS = [*_TRUNK, *_DECODER]
_WIDE_HEAD = "camvid"  #: the last layer of the Bayesian network for CamVid, after conv1_1_D
_BASIC = {f"conv{i}": f"conv{i}_1" for i in range(1, 5)}  #: name in the file: name here
_BASIC |= {f"conv_decode{i}": f"conv_decode{i}" for i in range(4, 0, -1)}
_BASIC_NORMS = {f"conv{i}_bn": f"bn{i}_1" for i in range(1, 5)}
_BASIC_NORMS |= {f"conv_decode{i}_bn": f"conv_decode{i}_bn" for i in range(4, 0, -1)}
_HEADS = ("conv_classifier", "dense_softmax_inner_prod")  #: score layers of SegNet-Basic
_EVERYWHERE = 21  #: classes of the Bayesian network for VOC, which has dropout in every stage
_COLORS = (
    *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0)),
    *((192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
)  #: colors of the classes of CamVid, in the authors' figures


def load_segnet(
    path: Path, layers: dict[str, "Layer"], batch_norm: BatchNorm | None = None
) -> Imported:
    """Build a SegNet and load its layers; with dropout if the file name has "bayesian"."""
    wide = _WIDE_HEAD in layers
    keys = {name: name for name in _LAYERS}
    keys[_WIDE_HEAD if wide else _LAYERS[-1]] = "score"
    norms = {f"{name}_bn": name.replace("conv", "bn") for name in _LAYERS[: None if wide else -1]}

    def build(classes: int, eps: float | None, dropout: float) -> SegNet:
        widths = [layers[f"conv{s}_1"].blobs[1].size for s in range(1, 6)]
        trunk = tuple(zip(_STAGES, widths, strict=True))
        everywhere = bool(dropout) and classes == _EVERYWHERE
        return SegNet(classes, trunk, eps, dropout, everywhere, wide)

    return _load(path, layers, keys, norms, batch_norm, build)


def load_segnet_basic(
    path: Path, layers: dict[str, "Layer"], batch_norm: BatchNorm | None = None
) -> Imported:
    """Build a SegNet-Basic and load its layers; with dropout if the file name has "bayesian"."""
    keys = {**_BASIC, next((name for name in _HEADS if name in layers), _HEADS[0]): "score"}

    def build(classes: int, eps: float | None, dropout: float) -> SegNetBasic:
        return SegNetBasic(classes, layers["conv1"].blobs[1].size, eps=eps, dropout=dropout)

    return _load(path, layers, keys, _BASIC_NORMS, batch_norm, build)


def _load(
    path: Path,
    layers: dict[str, "Layer"],
    keys: dict[str, str],
    norms: dict[str, str],
    batch_norm: BatchNorm | None,
    build: Callable[[int, float | None, float], SegNet | SegNetBasic],
) -> Imported:
    """Load layers and their batch norm into a network.

    Files whose batch norm was absorbed by the convolutions have no batch norm layers.

    Args:
        path: the file, for messages.
        layers: the layers of the file, by name.
        keys: names of layers in the file, and in the network.
        norms: names of batch norm layers in the file, and in the network.
        batch_norm: see `load_caffemodel`.
        build: makes the network for a number of classes, eps and dropout.
    """
    normalized = any(name.endswith("_bn") for name in layers)
    eps = None
    if normalized:
        keys = {**keys, **norms}
        blobs.require_batch_norm(path, batch_norm)
        eps = 0.0 if batch_norm == "folded" else 1e-9
    blobs.require_both(path, layers, [*keys])
    if odd := [name for name in layers if name not in keys]:
        raise WeightsError(
            f"{path} has {blobs.shorten(odd)} beside the layers of a whole network; give a file of "
            "the authors' layers"
        )
    given = {keys[name]: layer for name, layer in layers.items()}
    classes = max(2, given["score"].blobs[1].size)  # a single class is refused below
    dropout = 0.5 if "bayesian" in path.name.lower() or _WIDE_HEAD in layers else 0.0
    with torch.device("meta"):
        model = build(classes, eps, dropout)
    state = blobs.fit(path, given, model)
    blobs.add_statistics(state, model)
    model.load_state_dict(state, assign=True)
    kind = "SegNet" if isinstance(model, SegNet) else "SegNet-Basic"
    note = f"{'Bayesian ' if dropout else ''}{kind} for {classes} classes"
    if normalized and batch_norm == "training":
        return Imported(model, False, f"{note}: estimate the statistics of batch norm before use")
    note += ", batch norm folded: for use, not for training" if normalized else ": for use"
    return Imported(model.eval(), True, note)


_CARD = {
    "input": {"order": "BGR", "range": "0..255", "mean": [0.0, 0.0, 0.0]},
    "long_side": 480,
    "license": "that of the file's authors; of SegNet's: CC BY-NC 4.0, no commercial use",
}
_LABELS = tuple(zip(CAMVID_CLASSES, _COLORS, strict=True))
_NAMES = {*_LAYERS, *(f"{name}_bn" for name in _LAYERS), _WIDE_HEAD}
_NAMES_OF_BASIC = {*_BASIC, *_BASIC_NORMS, *_HEADS}

SEGNETS = Format(
    "SegNet",
    "conv1_1, conv1_1_bn, ... conv1_1_D",
    lambda layer: layer.name in _NAMES,
    load_segnet,
    _CARD,
    _LABELS,
)
SEGNETS_BASIC = Format(
    "SegNet-Basic",
    "conv1, conv1_bn, ... conv_decode1_bn, conv_classifier",
    lambda layer: layer.name in _NAMES_OF_BASIC,
    load_segnet_basic,
    _CARD,
    _LABELS,
)
