"""Nets that Caffe has saved: reading `.caffemodel` files, and making networks of them.

A `.caffemodel` is a protobuf message of up to a gigabyte. It is walked on the disk, and only the
weights are read, straight into their arrays; neither Caffe nor protobuf is needed. Nothing in it is
believed: every length is compared with what encloses it before anything is read or allocated.

Format: src/caffe/proto/caffe.proto of HyeonwooNoh/caffe (`layers`) and of BVLC/caffe (`layer`).
"""

import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unpool.errors import OptionError, WeightsError
from unpool.models.deconvnet import DeconvNet
from unpool.models.fcn import FCN
from unpool.models.vgg import VGG16, Table
from unpool.models.weights import Network
from unpool.ops.deconv import bilinear_kernel

Blob = NDArray[np.float32]
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


class Layer(NamedTuple):
    """A layer of a Caffe net, with its weights."""

    name: str  #: as in the prototxt: "conv1_1"
    type: str  #: its kind as Caffe calls it today, "Convolution", also where the file has a number
    blobs: list[Blob]  #: weights, then biases, in Caffe's shapes


class Imported(NamedTuple):
    """A network made of a Caffe file, and what its user has to know."""

    model: Network
    ready: bool  #: False: to be trained, or its statistics to be estimated, before it segments
    note: str  #: what the file was taken for, and what remains to be done


def load_caffemodel(path: str | os.PathLike[str], batch_norm: BatchNorm | None = None) -> Imported:
    """Make a DeconvNet or an FCN of a file of the authors, or begin one with those of VGG-16.

    A file with the layers of DeconvNet or of FCN-32s, 16s or 8s is taken as it is, whatever its
    widths and classes. Of a file with those of VGG-16, fully connected layers as such or as
    convolutions, conv1_1 to fc7 begin an otherwise fresh DeconvNet, as before the authors' first
    stage of training.

    FCNs come as they were published (pad 100, fc6 of 7 x 7), by the names of 2014, as in
    `fcn-8s-pascal.caffemodel`, or those since. The bias of the former's score2 goes to
    score_pool4, to which it is added at once; dense filters of interpolation make it `learned`.

    Args:
        path: a .caffemodel file.
        batch_norm: what the two blobs of each batch norm of a DeconvNet mean. The file does not
            tell: the authors folded inside the net that they measured, its bn_mode being LEARN.
            "folded": y = scale * x + shift, as in `DeconvNet_trainval_inference.caffemodel`; the
            network comes in evaluation mode, mean 0, variance 1, eps 0, and is not for training.
            "training": gamma and beta, as in `stage_2_train_result.caffemodel`; Caffe keeps no
            running statistics, so nothing can be segmented until they are estimated.
            The other nets have none.

    Returns:
        The network (`prepare` makes its input), whether it is ready for use, and a note.

    Raises:
        WeightsError: the file is damaged, or its layers are not those of one of the nets.
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


def read_caffemodel(path: str | os.PathLike[str]) -> Iterator[Layer]:
    """Read the layers that have weights, one at a time, in the order of the file.

    Both layouts of Caffe are read: `layers` (until 2015: kinds are numbers, blobs have four
    dimensions) and `layer` (kinds are words, blobs have any shape). All else is skipped.

    Args:
        path: a .caffemodel file.

    Yields:
        Layers. The weights of a convolution are (O, I, k, k), of a deconvolution (I, O, k, k), of
        an inner product (1, 1, O, I) or (O, I); biases are (1, 1, 1, O) or (O,).

    Raises:
        WeightsError: the file is none, or damaged; what is before the damage is yielded first.

    >>> next(read_caffemodel("net.caffemodel"))
    Traceback (most recent call last):
    unpool.errors.WeightsError: net.caffemodel is not a file; give the path of a .caffemodel file
    """
    path = Path(path)
    if not path.is_file():  # opening a pipe would wait for a writer
        raise WeightsError(f"{path} is not a file; give the path of a .caffemodel file")
    try:
        with path.open("rb") as file:
            wire, empty = _Wire(file, path), True
            for field in wire.fields(wire.whole):
                if field.number in _NAME_TYPE_BLOBS:
                    layer = _layer(wire, field)
                    if layer.blobs:
                        empty = False
                        yield layer
            if empty:
                raise wire.broken(wire.whole.stop, "the end, and no layer had weights")
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}; check the file") from error


def _known_layers(path: Path, names: list[str], vgg: list[str]) -> dict[str, Layer]:
    """The layers by name. A wrong one ends the reading, so that memory stays bounded."""
    layers: dict[str, Layer] = {}
    for layer in read_caffemodel(path):
        if layer.name.startswith("fc8") and layers.keys() <= set(vgg):
            continue  # VGG's own classifier, of no use here
        if layer.name not in (*names, *_FCN) or layer.name in layers:
            raise WeightsError(
                f"{path} has a{' second' * (layer.name in layers)} layer {layer.name!r} after "
                f"{_shorten(list(layers)) or 'no other'}; only DeconvNet ({_shorten(names)}), "
                f"FCN ({_shorten(_FCN)}) and VGG-16 ({_shorten(vgg)}) can be imported: give a file "
                "of one of them"
            )
        layers[layer.name] = layer
    return layers


def _load_deconvnet(
    path: Path, layers: dict[str, Layer], names: list[str], batch_norm: BatchNorm | None
) -> Imported:
    sizes = _sizes(path, layers, names)
    if batch_norm is None:
        raise OptionError(
            f"{path} does not tell what its batch norm means; pass batch_norm='folded' for a file "
            "made for inference, batch_norm='training' for one saved by the solver"
        )
    classes = max(2, layers["seg-score-voc"].blobs[1].size)  # a single one will not fit, below
    with torch.device("meta"):
        model = DeconvNet(classes, *sizes, eps=0.0 if batch_norm == "folded" else 1e-9)
    state = _fit(path, layers, model)
    for key, value in model.state_dict().items():
        if key not in state:  # the statistics of batch norm, which Caffe does not have
            fill = torch.ones if key.endswith("running_var") else torch.zeros
            state[key] = fill(value.shape, dtype=value.dtype)
    model.load_state_dict(state, assign=True)
    if batch_norm == "folded":
        note = f"DeconvNet for {classes} classes, batch norm folded: for use, not for training"
        return Imported(model.eval(), True, note)
    note = f"DeconvNet for {classes} classes: estimate the statistics of batch norm before use"
    return Imported(model, False, note)


def _load_vgg(path: Path, layers: dict[str, Layer], names: list[str]) -> Imported:
    sizes = _sizes(path, layers, names)
    with torch.device("meta"):
        state = _fit(path, layers, DeconvNet(21, *sizes))
    model = DeconvNet(21, *sizes)
    model.load_state_dict(state, strict=False, assign=True)
    note = "DeconvNet for 21 classes, fresh but for the weights of VGG-16: train it before use"
    return Imported(model, False, note)


def _load_fcn(path: Path, layers: dict[str, Layer], vgg: list[str]) -> Imported:
    pools = {name[-5:] for name in layers if name.startswith("score")}
    stride = 8 if "pool3" in pools else 16 if "pool4" in pools else 32
    last = "upscore" if stride == 32 else f"upscore{stride}"
    today = {**_FCN_2014, **dict.fromkeys(_FCN_LAST, last)}
    given = {today.get(name, name): layer for name, layer in layers.items()}
    trunk, code, _ = _sizes(path, given, [*vgg, "score_fr"])
    classes = max(2, given["score_fr"].blobs[1].size)  # a single one will not fit, below
    with torch.device("meta"):
        model = FCN(classes, trunk, code, stride, at_once="scale_pool4" in given)
    wanted = {*vgg, *model.score, *(f"scale_pool{skip}" for skip in model.skips if model.at_once)}
    if len(given) < len(layers) or given.keys() != wanted:
        raise WeightsError(
            f"{path} has {_shorten([name for name in layers if name not in vgg])} after VGG's "
            f"layers; an FCN-{stride}s has {', '.join(model.score)}: give a whole file of the net"
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
    """Add score2's bias to that of the scores it is added to; see that nothing else is lost."""
    _require_both(path, layers, [f"score_pool{skip}" for skip in model.skips])
    faults = []
    *enlarging, last = model.factors
    for i, (name, skip) in enumerate(zip(enlarging, model.skips, strict=True), start=1):
        target, biases = layers[f"score_pool{skip}"].blobs, layers[name].blobs[1:]
        if len(biases) > 1 or any(bias.shape != target[1].shape for bias in biases):
            faults.append(f"the bias of {name} is not like that of score_pool{skip}")
        else:
            target[1] = sum(biases, target[1])
        scale = layers[f"scale_pool{skip}"].blobs if model.at_once else []
        if model.at_once and not (len(scale) == 1 and np.allclose(scale[0], 0.01**i)):
            faults.append(f"scale_pool{skip} is not {0.01**i:g}")
    if len(layers[last].blobs) > 1:
        faults.append(f"{last} has a bias")
    _refuse(path, faults, model)


def _sizes(path: Path, layers: dict[str, Layer], names: list[str]) -> tuple[Table, int, int]:
    """The arguments trunk, code and size, once all of the layers are there."""
    _require_both(path, layers, names)
    width = {name: layers[name].blobs[1].size for name in names}  # of the biases: the outputs
    trunk = tuple((count, width[f"conv{i}_1"]) for i, (count, _) in enumerate(VGG16, start=1))
    side = math.isqrt(layers["fc6"].blobs[0].size // (width["fc6"] * trunk[-1][1]))
    return trunk, width["fc6"], max(1, side) * 2 ** len(VGG16)


def _require_both(path: Path, layers: dict[str, Layer], names: list[str]) -> None:
    if bad := [name for name in names if name not in layers or len(layers[name].blobs) != 2]:
        raise WeightsError(
            f"{path} lacks weights and biases of {_shorten(bad)}; give a whole file of the net"
        )


def _fit(path: Path, layers: dict[str, Layer], model: Network) -> dict[str, Tensor]:
    """The blobs, in place, under the keys and in the shapes of the network."""
    state, faults = {}, []
    for key, value in model.state_dict().items():
        name, part = key.split(".")[-2:]
        if name in layers and part in ("weight", "bias"):
            blob, wanted = layers[name].blobs[part == "bias"], tuple(value.shape)
            if not _same(blob.shape, wanted, layers[name].type):
                faults.append(f"the {part} of {name} is {blob.shape}, not {wanted}")
            elif not np.isfinite(blob).all():
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
    """Whether the shapes agree, but for Caffe's extra ones and its flattened images."""
    if len(wanted) == 1:
        return math.prod(blob) == max(blob, default=1) == wanted[0]
    if kind == "InnerProduct":  # flattened as channel, row, column
        return blob[-2:] == (wanted[0], math.prod(wanted[1:])) and math.prod(blob[:-2]) == 1
    return blob == wanted


def _shorten(words: list[str], most: int = 4) -> str:
    return ", ".join(words[:most] + [f"and {len(words) - most} more"] * (len(words) > most))


_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; Caffe writes no groups, 3 and 4
_LENGTHS = {_VARINT: 0, _FIXED64: 8, _BYTES: 0, _FIXED32: 4}  # 0: written before or in the value
_NAME_TYPE_BLOBS = {2: (4, 5, 6), 100: (1, 2, 7)}  # the fields of `layers` and of `layer`
_KINDS = {4: "Convolution", 14: "InnerProduct", 39: "Deconvolution", 43: "BN"}  # with weights
_OLD_SHAPE, _DATA, _SHAPE, _DOUBLE_DATA = (1, 2, 3, 4), 5, 7, 8  # the fields of a blob
_NUMBERS = {_DATA: ("<f4", _FIXED32), _DOUBLE_DATA: ("<f8", _FIXED64)}


class _Field(NamedTuple):
    """A field of a message: what it is, and where in the file its value stands."""

    number: int
    wire: int
    start: int
    stop: int
    value: int = 0  #: of a varint


class _Wire:
    """The wire format of protobuf, on the disk."""

    def __init__(self, file: io.BufferedReader, path: Path) -> None:
        self._file, self._path = file, path
        self.whole = _Field(0, _BYTES, 0, os.fstat(file.fileno()).st_size)

    def broken(self, at: int, what: str) -> WeightsError:
        return WeightsError(
            f"{self._path}, byte {at}: {what}; wanted a whole .caffemodel as Caffe saves it, not "
            "a .prototxt: copy or download the file again"
        )

    def fields(self, message: _Field) -> Iterator[_Field]:
        """The fields of a message; none reaches beyond it."""
        self.require(message, _BYTES)
        start, stop = message.start, message.stop
        while start < stop:
            tag, at = self.varint(start, stop)
            number, wire, value = tag >> 3, tag & 7, 0
            if number == 0 or wire not in _LENGTHS:
                raise self.broken(start, f"a field of number {number} and wire type {wire}")
            end = at + _LENGTHS[wire]
            if wire == _VARINT:
                value, end = self.varint(at, stop)
            elif wire == _BYTES:
                length, at = self.varint(at, stop)
                end = at + length
            if end > stop:
                raise self.broken(start, f"a field of {end - at} bytes where {stop - at} remain")
            yield _Field(number, wire, at, end, value)
            start = end

    def varint(self, start: int, stop: int) -> tuple[int, int]:
        """A number of seven bits a byte, the lowest first, and the offset behind it."""
        self._file.seek(start)
        value = 0
        for i, byte in enumerate(self._file.read(min(10, stop - start))):
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                return value, start + i + 1
        raise self.broken(start, "a number without end")

    def require(self, field: _Field, *wires: int) -> None:
        if field.wire not in wires:
            raise self.broken(field.start, f"field {field.number} is of wire type {field.wire}")

    def read(self, field: _Field, target: memoryview) -> None:
        self._file.seek(field.start)
        if self._file.readinto(target) != target.nbytes:
            raise self.broken(field.start, "the file became shorter while it was read")

    def text(self, field: _Field) -> str:
        self.require(field, _BYTES)
        if field.stop - field.start > 1024:
            raise self.broken(field.start, f"a name of {field.stop - field.start} bytes")
        letters = bytearray(field.stop - field.start)
        self.read(field, memoryview(letters))
        return letters.decode(errors="backslashreplace")


def _layer(wire: _Wire, message: _Field) -> Layer:
    of_name, of_type, of_blobs = _NAME_TYPE_BLOBS[message.number]
    name, kind = "", ""
    blobs: list[Blob] = []
    for field in wire.fields(message):
        if field.number == of_name:
            name = wire.text(field)
        elif field.number == of_type and field.wire == _VARINT:
            kind = _KINDS.get(field.value, f"type {field.value}")
        elif field.number == of_type:
            kind = wire.text(field)
        elif field.number == of_blobs:
            if len(blobs) == 64:  # an array takes more memory than a tiny blob takes file
                raise wire.broken(field.start, "more than 64 blobs in a layer")
            blobs.append(_blob(wire, field))
    return Layer(name, kind, blobs)


def _blob(wire: _Wire, message: _Field) -> Blob:
    """The numbers of a blob: measured in a first pass, read into their array in a second."""
    old_shape: dict[int, int] = {}
    new_shape: list[int] = []
    sizes = dict.fromkeys(_NUMBERS, 0)  # in bytes
    for field in wire.fields(message):
        if field.number in _NUMBERS:
            wire.require(field, _BYTES, _NUMBERS[field.number][1])  # packed, or one at a time
            sizes[field.number] += field.stop - field.start
        elif field.number in _OLD_SHAPE:
            wire.require(field, _VARINT)
            old_shape[field.number] = field.value
        elif field.number == _SHAPE:
            for dimension in _dimensions(wire, field):
                new_shape.append(dimension)
                if len(new_shape) > 32:
                    raise wire.broken(field.start, "a blob of more than 32 dimensions")
    source = _DOUBLE_DATA if sizes[_DOUBLE_DATA] else _DATA  # as Caffe prefers
    shape = tuple(old_shape.get(i, 0) for i in _OLD_SHAPE) if old_shape else tuple(new_shape)
    size, dtype = sizes[source], np.dtype(_NUMBERS[source][0])
    if size == 0 or math.prod(shape) * dtype.itemsize != size:
        raise wire.broken(message.start, f"a blob of shape {shape} with {size} bytes of {dtype}")
    data, filled = np.empty(size, np.uint8), 0
    for field in wire.fields(message):
        if field.number == source:
            end = filled + field.stop - field.start
            wire.read(field, data[filled:end].data)
            filled = end
    with np.errstate(over="ignore", invalid="ignore"):  # too large a double becomes infinite
        return data.view(dtype).astype(np.float32, copy=False).reshape(shape)


def _dimensions(wire: _Wire, shape: _Field) -> Iterator[int]:
    for field in wire.fields(shape):
        if field.number == 1:
            wire.require(field, _VARINT, _BYTES)
            at = field.start
            while at < field.stop:  # packed, or one at a time
                dimension, at = wire.varint(at, field.stop)
                yield dimension
