"""Load DeepLab v1 from the authors' files: LargeFOV, 4 x 4 and 7 x 7, also multi-scale (MSc).

Layers are recognized by their names only, since the authors' Caffe numbers layer types differently
from other versions.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from unpool.errors import WeightsError
from unpool.models import DeepLab
from unpool.models.caffe import blobs
from unpool.models.caffe.blobs import VGG16, BatchNorm, Format, Imported
from unpool.recipes.presets import CRF_PRESETS

if TYPE_CHECKING:
    from unpool.models.caffe.protobuf import Layer

_MAPS = ("data", "pool1", "pool2", "pool3", "pool4")
_FINE = [f"{name}_{part}" for name in _MAPS for part in ("conv", "fc", "ms")]
_NETWORKS = {3: ("DeepLab-LargeFOV", 12), 4: ("DeepLab", 4), 7: ("DeepLab-7x7", 4)}
"""The network and the dilation of fc6, by the side of fc6's window."""


def _is_score(layer: "Layer") -> bool:
    """Whether a layer computes the scores; its name ends in the experiment's: fc8_voc12."""
    return layer.name.startswith("fc8_") and layer.type != "InnerProduct"


def load_deeplab(path: Path, layers: dict[str, "Layer"], _: BatchNorm | None = None) -> Imported:
    """Build a DeepLab and load its layers. The file does not store dilation and pooling; they are
    those published with the window of its fc6."""
    scores = [layer for layer in layers.values() if _is_score(layer)]
    if len(scores) != 1:
        found = blobs.shorten([layer.name for layer in scores]) or "none"
        raise WeightsError(f"{path} has {found} of fc8_pascal, fc8_voc12 ...; wanted one of them")
    given = {**layers, "fc8": scores[0]}
    trunk, code, size = blobs.sizes(path, given, [*VGG16, "fc8"])
    fine = not layers.keys().isdisjoint(_FINE)
    blobs.require_both(path, given, _FINE if fine else [])
    window = size // 2 ** len(trunk)
    if window not in _NETWORKS:
        raise WeightsError(
            f"{path} has a window of {window} x {window} in fc6; DeepLab's are 3 x 3, 4 x 4 and "
            "7 x 7: give a file of the authors' layers"
        )
    name, dilation = _NETWORKS[window]
    large = window == 3
    classes = max(2, given["fc8"].blobs[1].size)  # a single class is refused below
    width = given["data_conv"].blobs[1].size if fine else 128
    sizes = classes, trunk, code, window, dilation
    with torch.device("meta"):
        model = DeepLab(*sizes, 3 if large or fine else 2, large, fine, width)
    model.load_state_dict(blobs.fit(path, given, model), assign=True)
    name = name.replace("DeepLab", "DeepLab-MSc") if fine else name
    return Imported(model.eval(), True, f"{name} for {classes} classes: for use")


_CRF = CRF_PRESETS["deeplab1"]._asdict()

DEEPLABS = Format(
    "DeepLab",
    "conv1_1, ... fc7, fc8_voc12",
    lambda layer: layer.name in (*VGG16, *_FINE) or _is_score(layer),
    load_deeplab,
    {
        "long_side": 500,
        "crf": {**_CRF, "kernels": [[*kernel] for kernel in _CRF["kernels"]]},
        "license": "that of the file's authors; of DeepLab's: research use",
    },
)
