"""Load FCNs from the authors' files, with the layer names of 2014 or the later ones."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from unpool.errors import WeightsError
from unpool.models import FCN
from unpool.models.caffe import blobs
from unpool.models.caffe.blobs import VGG16, BatchNorm, Format, Imported
from unpool.ops import bilinear_kernel

if TYPE_CHECKING:
    from unpool.models.caffe.protobuf import Layer

_NAMES_OF_2014 = {  # name in the Model Zoo's first FCNs: name today
    "score-fr": "score_fr",
    "score2": "upscore2",
    "score-pool4": "score_pool4",
    "score4": "upscore_pool4",
    "score-pool3": "score_pool3",
}
_LAST = {"upsample", "upscore", "upscore16", "upscore8"}  #: names of the last layer
NAMES = {*VGG16, *_NAMES_OF_2014, *_NAMES_OF_2014.values(), *_LAST, *("scale_pool4", "scale_pool3")}
"""The names of all layers that an FCN may have."""


def load_fcn(path: Path, layers: dict[str, "Layer"], _: BatchNorm | None = None) -> Imported:
    """Build an FCN-32s, 16s or 8s as published, and load its layers."""
    pools = {name[-5:] for name in layers if name.startswith("score")}
    stride = 8 if "pool3" in pools else 16 if "pool4" in pools else 32
    last = "upscore" if stride == 32 else f"upscore{stride}"
    today = {**_NAMES_OF_2014, **dict.fromkeys(_LAST, last)}
    given = {today.get(name, name): layer for name, layer in layers.items()}
    trunk, code, _side = blobs.sizes(path, given, [*VGG16, "score_fr"])
    classes = max(2, given["score_fr"].blobs[1].size)  # a single class is refused below
    with torch.device("meta"):
        model = FCN(classes, trunk, code, stride, at_once="scale_pool4" in given)
    wanted = {*VGG16, *model.score, *(f"scale_pool{skip}" for skip in model.skips if model.at_once)}
    if len(given) < len(layers) or given.keys() != wanted:
        own = blobs.shorten([name for name in layers if name not in VGG16])
        raise WeightsError(
            f"{path} has {own} after VGG's layers; an FCN-{stride}s has {', '.join(model.score)}: "
            "give a complete file"
        )
    _merge(path, given, model)
    state = blobs.fit(path, given, model)
    learned = any(
        not torch.equal(state[f"score.{name}.weight"], bilinear_kernel(classes, 2 * factor))
        for name, factor in model.factors.items()
    )
    with torch.device("meta"):
        model = FCN(**{**model.arguments, "learned": learned})
    model.load_state_dict(state, assign=True)
    return Imported(model.eval(), True, f"FCN-{stride}s for {classes} classes: for use")


def _merge(path: Path, layers: dict[str, "Layer"], model: FCN) -> None:
    """Merge the bias of score2 into that of score_pool4; refuse biases that do not fit."""
    blobs.require_both(path, layers, [f"score_pool{skip}" for skip in model.skips])
    faults = []
    *enlarging, last = model.factors
    for i, (name, skip) in enumerate(zip(enlarging, model.skips, strict=True), start=1):
        target, biases = layers[f"score_pool{skip}"].blobs, layers[name].blobs[1:]
        if len(biases) > 1 or any(bias.shape != target[1].shape for bias in biases):
            faults.append(f"the bias of {name} does not match that of score_pool{skip}")
        else:
            target[1] = sum(biases, target[1])
        scale = layers[f"scale_pool{skip}"].blobs if model.at_once else []
        if model.at_once and not (len(scale) == 1 and np.allclose(scale[0], 0.01**i)):
            faults.append(f"scale_pool{skip} is not {0.01**i:g}")
    if len(layers[last].blobs) > 1:
        faults.append(f"{last} has a bias")
    blobs.refuse(path, faults, model)


FCNS = Format("FCN", "conv1_1, ... score_fr, upscore", lambda layer: layer.name in NAMES, load_fcn)
