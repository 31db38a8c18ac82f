"""Load networks from the Caffe files that their authors released; one module for each format."""

import os
from pathlib import Path

from unpool.errors import OptionError, WeightsError
from unpool.models.caffe.blobs import BatchNorm, Format, Imported, shorten
from unpool.models.caffe.crfrnn import CRFRNNS, read_port
from unpool.models.caffe.deconvnet import DECONVNET, VGG
from unpool.models.caffe.decouplednet import DECOUPLEDNET
from unpool.models.caffe.deeplab import DEEPLABS
from unpool.models.caffe.fcn import FCNS
from unpool.models.caffe.protobuf import Layer, read_caffemodel
from unpool.models.caffe.segnet import SEGNETS, SEGNETS_BASIC

__all__ = ["FORMATS", "BatchNorm", "Format", "Imported", "load_caffemodel", "load_format"]

FORMATS: tuple[Format, ...] = (
    *(VGG, FCNS, DEEPLABS, CRFRNNS, SEGNETS_BASIC, SEGNETS, DECOUPLEDNET, DECONVNET),
)
"""The supported formats. If several have all layers of a file, the first one applies."""


def load_caffemodel(path: str | os.PathLike[str], batch_norm: BatchNorm | None = None) -> Imported:
    """Load a network from its authors' files, or initialize a DeconvNet with VGG-16.

    DeconvNet, FCN, DeepLab and SegNet may have any widths and numbers of classes.

    VGG-16: conv1_1 to fc7 initialize a new DeconvNet, as in the authors' first stage of training.
    Its fully connected layers may be stored as such, or as convolutions.

    FCN: FCN-32s, 16s and 8s are built as published (pad 100, fc6 of 7 x 7), from files with the
    layer names of 2014, such as `fcn-8s-pascal.caffemodel`, or with later names. In the former, the
    bias of score2 is added to that of score_pool4, since the two scores are summed; dense
    interpolation filters make the FCN `learned`.

    DeepLab v1: files store neither the dilation of fc6 nor the poolings, which are inferred from
    the window of fc6: 3 x 3 for LargeFOV; 4 x 4 for dilation 4 ("vgg128_noup"); or 7 x 7. The
    layers data_conv ... pool4_ms indicate MSc.

    CRF-RNN: `TVG_CRFRNN_COCO_VOC.caffemodel` holds an FCN-8s of 2014, and three matrices in a layer
    inference1; the last one is a penalty, minus the compatibility here. `crfasrnn_weights.pth`, the
    file of the PyTorch port by one of the authors, has the same tensors.

    SegNet, SegNet-Basic: batch norm may be folded, as stored by the solver, or absorbed by the
    convolutions. Dropout has no weights: the network gets the dropout of Bayesian SegNet if the
    file has "bayesian" in its name, or a layer `camvid`; with 21 classes in every stage, as in the
    network for VOC. Images must not be centered: use `mean=(0, 0, 0)`.

    DecoupledNet: files hold copies of the classifier for the bridge, which are compared with the
    classifier and dropped. In `DecoupledNet_*_anno_inference.caffemodel`, batch norm is folded.

    Args:
        path: a .caffemodel file, or the port's .pth file.
        batch_norm: the meaning of the two blobs of each batch norm, which the file does not state,
            since the authors folded batch norm in place. "folded": y = scale * x + shift, as in
            `DeconvNet_trainval_inference.caffemodel`; the network is in evaluation mode with mean
            0, variance 1 and eps 0, and cannot be trained. "training": gamma and beta, as in
            `stage_2_train_result.caffemodel`; Caffe keeps no running statistics, so they must be
            estimated before use. FCN, DeepLab and CRF-RNN have no batch norm.

    Raises:
        WeightsError: the file is damaged, or its layers are not those of a known network.
        OptionError: batch_norm is unknown, or missing for a network that has it.

    Noh, Hong, Han 2015, and the authors' training/003_make_bn_layer_testable, which folds batch
    norm; Long, Shelhamer, Darrell 2015, and the layers of shelhamer/fcn.berkeleyvision.org; Zheng
    et al. 2015, torrvision/crfasrnn and sadeepj/crfasrnn_pytorch; Badrinarayanan, Kendall,
    Cipolla 2017, and alexgkendall/SegNet-Tutorial; Chen et al. 2015, and the mirror
    TheLegendAli/DeepLab-Context; Hong, Noh, Han 2015, and HyeonwooNoh/DecoupledNet.
    """
    return load_format(path, batch_norm)[0]


def load_format(
    path: str | os.PathLike[str], batch_norm: BatchNorm | None = None
) -> tuple[Imported, Format]:
    """Load a network as `load_caffemodel` does; also return the format of its file."""
    path = Path(path)
    if batch_norm not in (None, "folded", "training"):
        raise OptionError(f"got batch_norm={batch_norm!r}; it is 'folded' or 'training'")
    of_torch = path.suffix.lower() in (".pth", ".pt")
    layers, format = (read_port(path), CRFRNNS) if of_torch else _recognize(path)
    return format.load(path, layers, batch_norm), format


def _recognize(path: Path) -> tuple[dict[str, Layer], Format]:
    """The layers by name, and their format.

    Reading stops at the first layer that rules out every format, which bounds the memory.
    """
    layers: dict[str, Layer] = {}
    possible = [*FORMATS]
    for layer in read_caffemodel(path):
        possible = [format for format in possible if format.has(layer)]
        if not possible or layer.name in layers:
            *others, last = [f"{f.network} ({f.examples})" for f in reversed(FORMATS)]
            raise WeightsError(
                f"{path} has a{' second' * (layer.name in layers)} layer {layer.name!r} after "
                f"{shorten(list(layers)) or 'no other'}; give a file of "
                f"{', '.join(others)} or {last}"
            )
        layers[layer.name] = layer
    return layers, possible[0]
