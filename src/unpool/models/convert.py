"""Convert weights to a folder: those of this package, and DeconvNet, FCN and VGG-16 from Caffe."""

import math
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unpool.data.layouts import VOC_CLASSES
from unpool.errors import OptionError, WeightsError
from unpool.files import is_draft, sha256
from unpool.limits import MAX_WEIGHT
from unpool.models import FCN, MEAN_BGR, DeconvNet, Network, Table, from_pretrained, save_pretrained
from unpool.models.protobuf import Layer, read_caffemodel
from unpool.models.weights import FILES
from unpool.ops import bilinear_kernel
from unpool.temporary import leftovers
from unpool.vision.images import voc_palette

BatchNorm = Literal["folded", "training"]

_FCN_2014 = {  # the names of the Model Zoo's first FCNs, as they are today
    "score-fr": "score_fr",
    "score2": "upscore2",
    "score-pool4": "score_pool4",
    "score4": "upscore_pool4",
    "score-pool3": "score_pool3",
}
_FCN_LAST = {"upsample", "upscore", "upscore16", "upscore8"}  #: the names of the last layer
_FCN = [*_FCN_2014, *_FCN_2014.values(), *_FCN_LAST, "scale_pool4", "scale_pool3"]


class Converted(NamedTuple):
    """The result of a conversion."""

    source: str
    weights: str  #: the folder, for `Segmenter.from_pretrained`
    parameters: int
    storage: str  #: of the filters, "fp32" or "int8"
    ready: bool  #: False if it must be trained before use
    note: str | None  #: the network in a Caffe file, and what remains to be done


def convert(
    source: str | Path,
    target: str | Path,
    *,
    batch_norm: BatchNorm | None = None,
    int8: bool = False,
    command: str = "",
) -> Converted:
    """Write a folder of weights.

    Args:
        source: a .caffemodel of DeconvNet, FCN or VGG-16, or a source of `from_pretrained`.
        target: a folder, new or empty.
        batch_norm: the meaning of batch norm in a .caffemodel, see `load_caffemodel`; by default
            "training" for names with "train_result" (the solver's), and "folded" for others.
        int8: store filters as int8, a quarter of the size.
        command: the command line, for the card.

    Raises:
        OptionError: the target exists and is not empty (but for what a killed conversion left), or
            batch_norm is given for other weights.
        WeightsError: the source cannot be used.
    """
    source, target = Path(source), Path(target)
    if target.exists() and not (target.is_dir() and _is_free(target)):
        raise OptionError(f"got {target}, which exists already; name a new folder")
    if source.is_file():
        guess: BatchNorm = "training" if "train_result" in source.name else "folded"
        model, entries = _import(source, batch_norm or guess)
        entries["command"] = command
    elif batch_norm is not None:
        raise OptionError(f"got batch_norm for {source}; it is for .caffemodel files: leave it out")
    else:
        model, card = from_pretrained(source)
        entries = card.to_dict()
    storage = "int8" if int8 else "fp32"
    save_pretrained(model, target, {**entries, "storage": storage}, int8=int8)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    ready, note = entries.get("ready", True), entries.get("note")
    return Converted(str(source), str(target), parameters, storage, ready, note)


def _is_free(folder: Path) -> bool:
    """Whether a folder has nothing but what a killed conversion left."""
    found = {path.name for path in set(folder.iterdir()).difference(leftovers(folder))}
    return not found or (found == {FILES[0]} and is_draft(folder, FILES[1]))


def _import(path: Path, batch_norm: BatchNorm) -> tuple[Network, dict[str, Any]]:
    """The network in a Caffe file, and the entries of its card."""
    model, ready, note = load_caffemodel(path, batch_norm)
    k = model.classes
    return model, {
        "classes": VOC_CLASSES if k == len(VOC_CLASSES) else [f"class {i}" for i in range(k)],
        "palette": voc_palette()[:k].tolist(),
        "input": {"order": "BGR", "range": "0..255 minus mean", "mean": list(MEAN_BGR)},
        "mode": "instance" if isinstance(model, DeconvNet) else "whole",
        "ready": ready,
        "note": note,
        "source": {"file": path.name, "sha256": sha256(path)},
        "license": "that of the file's authors; of DeconvNet's: individual research use only, "
        "no redistribution",
    }


class Imported(NamedTuple):
    """A network from a Caffe file; its input comes from `prepare`."""

    model: Network
    ready: bool  #: False if it must be trained, or its statistics estimated, before use
    note: str  #: the network that was recognized, and what remains to be done


def load_caffemodel(path: str | os.PathLike[str], batch_norm: BatchNorm | None = None) -> Imported:
    """Load a DeconvNet or an FCN from the authors' files, or initialize a DeconvNet with VGG-16.

    Files with the layers of DeconvNet or of FCN-32s, 16s or 8s may have any widths and classes. Of
    a file with the layers of VGG-16 (fully connected ones as such or as convolutions), conv1_1 to
    fc7 initialize a new DeconvNet, as in the authors' first stage of training.

    FCNs are built as published (pad 100, fc6 of 7 x 7), from files with the names of 2014, as in
    `fcn-8s-pascal.caffemodel`, or the later ones. The bias of score2 in the former is added to that
    of score_pool4, since the two are summed; dense filters of interpolation make it `learned`.

    Args:
        path: a .caffemodel file.
        batch_norm: the meaning of the two blobs of each batch norm of a DeconvNet, which the file
            does not state (the authors folded in place). "folded": y = scale * x + shift, as in
            `DeconvNet_trainval_inference.caffemodel`; the network is in evaluation mode with mean
            0, variance 1 and eps 0, and not for training. "training": gamma and beta, as in
            `stage_2_train_result.caffemodel`; Caffe keeps no running statistics, so they must be
            estimated before use. Other networks have no batch norm.

    Raises:
        WeightsError: the file is damaged, or its layers are not those of a known network.
        OptionError: batch_norm is unknown, or missing for a DeconvNet.

    Noh, Hong, Han 2015, and the authors' training/003_make_bn_layer_testable, which folds; Long,
    Shelhamer, Darrell 2015, and the layers of shelhamer/fcn.berkeleyvision.org.
    """
    path = Path(path)
    if batch_norm not in (None, "folded", "training"):
        raise OptionError(f"got batch_norm={batch_norm!r}; it is 'folded' or 'training'")
    with torch.device("meta"):  # names and shapes, no memory
        names = list(dict.fromkeys(key.split(".")[-2] for key in DeconvNet().state_dict()))
    vgg = [name for name in names if name.startswith("conv") or name in ("fc6", "fc7")]
    layers = _known_layers(path, names, vgg)
    if layers.keys() <= set(vgg):
        return _load_vgg(path, layers, vgg)
    if not layers.keys().isdisjoint(_FCN):
        return _load_fcn(path, layers, vgg)
    return _load_deconvnet(path, layers, names, batch_norm)


def _known_layers(path: Path, names: list[str], vgg: list[str]) -> dict[str, Layer]:
    """The layers by name. An unknown one stops reading at once, which bounds the memory."""
    layers: dict[str, Layer] = {}
    for layer in read_caffemodel(path):
        if layer.name.startswith("fc8") and layers.keys() <= set(vgg):
            continue  # VGG's own classifier, not needed
        if layer.name not in (*names, *_FCN) or layer.name in layers:
            raise WeightsError(
                f"{path} has a{' second' * (layer.name in layers)} layer {layer.name!r} after "
                f"{_shorten(list(layers)) or 'no other'}; give a file of DeconvNet "
                f"({_shorten(names)}), FCN ({_shorten(_FCN)}) or VGG-16 ({_shorten(vgg)})"
            )
        layers[layer.name] = layer
    return layers


def _load_deconvnet(
    path: Path, layers: dict[str, Layer], names: list[str], batch_norm: BatchNorm | None
) -> Imported:
    sizes = _sizes(path, layers, names)
    if batch_norm is None:
        raise OptionError(
            f"{path} does not say what its batch norm means; pass batch_norm='folded' for a file "
            "made for inference, batch_norm='training' for one saved by the solver"
        )
    classes = max(2, layers["seg-score-voc"].blobs[1].size)  # one class is refused below
    with torch.device("meta"):
        model = DeconvNet(classes, *sizes, eps=0.0 if batch_norm == "folded" else 1e-9)
    state = _fit(path, layers, model)
    for key, value in model.state_dict().items():
        if key not in state:  # statistics of batch norm, which Caffe does not store
            fill = torch.ones if key.endswith("running_var") else torch.zeros
            state[key] = fill(value.shape, dtype=value.dtype)
    model.load_state_dict(state, assign=True)
    note = f"DeconvNet for {classes} classes"
    if batch_norm == "folded":
        note += ", batch norm folded: for use, not for training"
        return Imported(model.eval(), True, note)
    return Imported(model, False, f"{note}: estimate the statistics of batch norm before use")


def _load_vgg(path: Path, layers: dict[str, Layer], names: list[str]) -> Imported:
    sizes = _sizes(path, layers, names)
    with torch.device("meta"):
        state = _fit(path, layers, DeconvNet(21, *sizes))
    model = DeconvNet(21, *sizes)
    model.load_state_dict(state, strict=False, assign=True)
    note = "DeconvNet for 21 classes, initialized with VGG-16: train it before use"
    return Imported(model, False, note)


def _load_fcn(path: Path, layers: dict[str, Layer], vgg: list[str]) -> Imported:
    pools = {name[-5:] for name in layers if name.startswith("score")}
    stride = 8 if "pool3" in pools else 16 if "pool4" in pools else 32
    last = "upscore" if stride == 32 else f"upscore{stride}"
    today = {**_FCN_2014, **dict.fromkeys(_FCN_LAST, last)}
    given = {today.get(name, name): layer for name, layer in layers.items()}
    trunk, code, _ = _sizes(path, given, [*vgg, "score_fr"])
    classes = max(2, given["score_fr"].blobs[1].size)  # one class is refused below
    with torch.device("meta"):
        model = FCN(classes, trunk, code, stride, at_once="scale_pool4" in given)
    wanted = {*vgg, *model.score, *(f"scale_pool{skip}" for skip in model.skips if model.at_once)}
    if len(given) < len(layers) or given.keys() != wanted:
        raise WeightsError(
            f"{path} has {_shorten([name for name in layers if name not in vgg])} after VGG's "
            f"layers; an FCN-{stride}s has {', '.join(model.score)}: give a complete file"
        )
    _merge(path, given, model)
    state = _fit(path, given, model)
    learned = any(
        not torch.equal(state[f"score.{name}.weight"], bilinear_kernel(classes, 2 * factor))
        for name, factor in model.factors.items()
    )
    with torch.device("meta"):
        model = FCN(**{**model.arguments, "learned": learned})
    model.load_state_dict(state, assign=True)
    return Imported(model.eval(), True, f"FCN-{stride}s for {classes} classes: for use")


def _merge(path: Path, layers: dict[str, Layer], model: FCN) -> None:
    """Add the bias of score2 to that of the scores it is added to; refuse any other loss."""
    _require_both(path, layers, [f"score_pool{skip}" for skip in model.skips])
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
    _refuse(path, faults, model)


def _sizes(path: Path, layers: dict[str, Layer], names: list[str]) -> tuple[Table, int, int]:
    """The arguments trunk, code and size; raises if a layer is missing."""
    _require_both(path, layers, names)
    width = {name: layers[name].blobs[1].size for name in names}  # number of outputs
    trunk = tuple((n, width[f"conv{i}_1"]) for i, n in enumerate((2, 2, 3, 3, 3), 1))  # VGG-16
    side = math.isqrt(layers["fc6"].blobs[0].size // (width["fc6"] * trunk[-1][1]))
    return trunk, width["fc6"], max(1, side) * 2 ** len(trunk)


def _require_both(path: Path, layers: dict[str, Layer], names: list[str]) -> None:
    if bad := [name for name in names if name not in layers or len(layers[name].blobs) != 2]:
        raise WeightsError(
            f"{path} lacks weights and biases of {_shorten(bad)}; give a complete file"
        )


def _fit(path: Path, layers: dict[str, Layer], model: Network) -> dict[str, Tensor]:
    """The blobs, not copied, with the keys and shapes of the network."""
    state, faults = {}, []
    for key, value in model.state_dict().items():
        name, part = key.split(".")[-2:]
        if name in layers and part in ("weight", "bias"):
            blob, wanted = layers[name].blobs[part == "bias"], tuple(value.shape)
            if not _same(blob.shape, wanted, layers[name].type):
                faults.append(f"the {part} of {name} is {blob.shape}, not {wanted}")
            elif not max(-blob.min(), blob.max()) < MAX_WEIGHT:  # or NaN
                faults.append(f"the {part} of {name} is not finite")
            else:
                state[key] = torch.from_numpy(blob.reshape(wanted))
    _refuse(path, faults, model)
    return state


def _refuse(path: Path, faults: list[str], model: Network) -> None:
    if faults:
        raise WeightsError(
            f"{path} does not fit {type(model).__name__}: {_shorten(faults)}; give a file of the "
            "authors' layers"
        )


def _same(blob: tuple[int, ...], wanted: tuple[int, ...], kind: str) -> bool:
    """Whether shapes agree, up to Caffe's leading ones and flattened maps."""
    if len(wanted) == 1:
        return math.prod(blob) == max(blob, default=1) == wanted[0]
    if kind == "InnerProduct":  # flattened as channel, row, column
        return blob[-2:] == (wanted[0], math.prod(wanted[1:])) and math.prod(blob[:-2]) == 1
    return blob == wanted


def _shorten(words: list[str], most: int = 4) -> str:
    return ", ".join(words[:most] + [f"and {len(words) - most} more"] * (len(words) > most))
