"""Load DecoupledNet from the authors' files, where the bridge is a copy of the classifier."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from unpool.models import DecoupledNet
from unpool.models.caffe import blobs
from unpool.models.caffe.blobs import BatchNorm, Format, Imported

if TYPE_CHECKING:
    from unpool.models.caffe.protobuf import Layer

_SIZE = 320  #: side to which the released script resizes images; files do not state it
_COPIES = {"cls-score-voc-bp": "cls-score-voc", "fc7-bp": "fc7", "fc6-bp": "fc6"}
"""The layers of the bridge, and the layers that they copy. The first one is a convolution, so its
copy is transposed; the others are deconvolutions with the same weights."""


def load_decouplednet(
    path: Path, layers: dict[str, "Layer"], batch_norm: BatchNorm | None
) -> Imported:
    """Build a DecoupledNet and load its layers; the bridge must be a copy of the classifier."""
    trunk, code, size = blobs.sizes(path, layers, [*blobs.layer_names(DecoupledNet)])
    blobs.require_batch_norm(path, batch_norm)
    window, depth = size // 2 ** len(trunk), 2 ** len(trunk)
    classes = layers["cls-score-voc"].blobs[1].size + 1
    sizes = code, layers["fc6-seg"].blobs[1].size, max(_SIZE, window * depth), window
    with torch.device("meta"):
        eps = 0.0 if batch_norm == "folded" else 1e-9
        model = DecoupledNet(classes, trunk, *sizes, eps=eps)
    state = blobs.fit(path, layers, model)
    blobs.refuse(path, _untied(layers), model)
    blobs.add_statistics(state, model)
    model.load_state_dict(state, assign=True)
    note = f"DecoupledNet for {classes} classes"
    if batch_norm == "folded":
        note += ", batch norm folded: for use, not for training"
        return Imported(model.eval(), True, note)
    return Imported(model, False, f"{note}: estimate the statistics of batch norm before use")


def _untied(layers: dict[str, "Layer"]) -> list[str]:
    """Layers of the bridge that are missing, or differ from the classifier's."""
    faults = []
    for name, origin in _COPIES.items():
        if name not in layers or not layers[name].blobs:
            faults.append(f"{name} is missing")
            continue
        weight, *biases = layers[name].blobs
        tied = layers[origin].blobs[0]
        tied = tied.swapaxes(0, 1) if name.startswith("cls") else tied
        if not np.array_equal(weight, tied):
            faults.append(f"{name} is not tied to {origin}")
        elif any(bias.any() for bias in biases):
            faults.append(f"{name} has a bias")
    return faults


DECOUPLEDNET = Format(
    "DecoupledNet",
    "conv1_1, ... cls-score-voc, ... seg-score-voc",
    lambda layer: layer.name in blobs.layer_names(DecoupledNet) or layer.name in _COPIES,
    load_decouplednet,
    {
        "long_side": _SIZE,
        "license": "that of the file's authors; of DecoupledNet's (POSTECH): individual research "
        "use only",
    },
)
