"""Load DeconvNet from the authors' files, or VGG-16 to initialize one."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from unpool.models import DeconvNet
from unpool.models.caffe import blobs
from unpool.models.caffe.blobs import VGG16, BatchNorm, Format, Imported

if TYPE_CHECKING:
    from unpool.models.caffe.protobuf import Layer


def _load_deconvnet(
    path: Path, layers: dict[str, "Layer"], batch_norm: BatchNorm | None
) -> Imported:
    sizes = blobs.sizes(path, layers, [*blobs.layer_names(DeconvNet)])
    blobs.require_batch_norm(path, batch_norm)
    classes = max(2, layers["seg-score-voc"].blobs[1].size)  # a single class is refused below
    with torch.device("meta"):
        # folded files have a scale and a shift: batch norm applies them as they are, with eps 0
        model = DeconvNet(classes, *sizes, eps=0.0 if batch_norm == "folded" else 1e-9)
    state = blobs.fit(path, layers, model)
    blobs.add_statistics(state, model)
    model.load_state_dict(state, assign=True)
    note = f"DeconvNet for {classes} classes"
    if batch_norm == "folded":
        note += ", batch norm folded: for use, not for training"
        return Imported(model.eval(), True, note)
    return Imported(model, False, f"{note}: estimate the statistics of batch norm before use")


def _has_vgg(layer: "Layer") -> bool:
    """Whether VGG-16 has a layer. Its classifier, fc8, is not needed."""
    own = layer.name == "fc8" or (layer.name.startswith("fc8") and layer.type == "InnerProduct")
    return own or layer.name in VGG16


def _load_vgg(path: Path, layers: dict[str, "Layer"], _: BatchNorm | None) -> Imported:
    sizes = blobs.sizes(path, layers, [*VGG16])
    with torch.device("meta"):
        state = blobs.fit(path, layers, DeconvNet(21, *sizes))
    model = DeconvNet(21, *sizes)
    model.load_state_dict(state, strict=False, assign=True)
    note = "DeconvNet for 21 classes, initialized with VGG-16: train it before use"
    return Imported(model, False, note)


DECONVNET = Format(
    "DeconvNet",
    "conv1_1, bn1_1, ... seg-score-voc",
    lambda layer: layer.name in blobs.layer_names(DeconvNet),
    _load_deconvnet,
    {
        "license": "that of the file's authors; of DeconvNet's: individual research use only, no "
        "redistribution"
    },
)
VGG = Format("VGG-16", "conv1_1, ... fc7", _has_vgg, _load_vgg)
