"""Load CRF-RNN from the authors' file, or from that of a PyTorch port by one of them."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unpool.errors import WeightsError
from unpool.limits import MAX_WEIGHT
from unpool.models import CRFRNN
from unpool.models.caffe import blobs, fcn
from unpool.models.caffe.blobs import BatchNorm, Format, Imported
from unpool.models.caffe.protobuf import Layer
from unpool.models.tensors import read_tensors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CRF = "inference1"  #: the mean-field layer; its type has no number in the public format
_PORT = ("spatial_ker_weights", "bilateral_ker_weights", "compatibility_matrix")


def load_crfrnn(path: Path, layers: dict[str, Layer], _: BatchNorm | None = None) -> Imported:
    """Build a CRF-RNN as published, and load its layers."""
    given = dict(layers)
    matrices = given.pop(_CRF).blobs
    net = fcn.load_fcn(path, given).model
    with torch.device("meta"):
        model = CRFRNN(**net.arguments)
    wanted = (net.classes, net.classes)
    if len(matrices) != 3 or any(not _fits(matrix, wanted) for matrix in matrices):
        found = ", ".join(str(matrix.shape) for matrix in matrices)
        blobs.refuse(path, [f"{_CRF} has {found}, not three finite matrices {wanted}"], model)
    spatial, bilateral, penalty = (torch.from_numpy(m.reshape(wanted)) for m in matrices)
    state = {f"net.{name}": value for name, value in net.state_dict().items()}
    # the file has a penalty of labels that differ, the network how much they favor each other
    state |= {"crf.spatial": spatial, "crf.bilateral": bilateral, "crf.compatibility": -penalty}
    model.load_state_dict(state, assign=True)
    return Imported(model.eval(), True, f"CRF-RNN for {net.classes} classes: for use")


def read_port(path: Path) -> dict[str, Layer]:
    """Read the port's file, `crfasrnn_weights.pth`, as the layers of the Caffe file.

    Raises a `WeightsError` for other tensors, or for anything that is not a tensor.
    """
    state = read_tensors(path)
    matrices = [state.pop(f"crfrnn.{name}", None) for name in _PORT]
    names = dict.fromkeys(key.partition(".")[0] for key in state)
    parts = {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    odd = [key for key in state if key not in parts or key.partition(".")[0] not in fcn.NAMES]
    odd += [key for key, value in state.items() if not value.numel() or not value.dim()]
    lacking = [f"crfrnn.{n}" for n, m in zip(_PORT, matrices, strict=True) if m is None]
    lacking += [f"{name}.weight" for name in names if f"{name}.weight" not in state]
    if odd or lacking:
        fault = f"has {blobs.shorten(odd)}" if odd else f"lacks {blobs.shorten(lacking)}"
        raise WeightsError(
            f"{path} {fault}; of .pth files, that of the PyTorch port of CRF-RNN is imported "
            "(conv1_1.weight, ... crfrnn.compatibility_matrix); VGG weights (features.0.weight, "
            "...) are given to training, as trunk_weights"
        )
    layers = {}
    for name in names:
        both = [state.get(f"{name}.{part}") for part in ("weight", "bias")]
        layers[name] = Layer(name, "", [_blob(tensor) for tensor in both if tensor is not None])
    spatial, bilateral, gain = (_blob(matrix) for matrix in matrices if matrix is not None)
    layers[_CRF] = Layer(_CRF, "", [spatial, bilateral, -gain])
    return layers


def _blob(tensor: Tensor) -> "NDArray[np.float32]":
    return tensor.float().contiguous().numpy()


def _fits(matrix: "NDArray[np.float32]", wanted: tuple[int, int]) -> bool:
    square = matrix.shape[-2:] == wanted and matrix.size == wanted[0] * wanted[1]
    return square and bool(max(-matrix.min(), matrix.max()) < MAX_WEIGHT)


CRFRNNS = Format(
    "CRF-RNN",
    "conv1_1, ... score-fr, inference1",
    lambda layer: layer.name == _CRF or layer.name in fcn.NAMES,
    load_crfrnn,
    {"long_side": 500, "license": "that of the file's authors, CRF-RNN's or the port's"},
)
