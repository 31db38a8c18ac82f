from .classifiers import VGG, AlexNet, Classifier, SqueezeNet, ZFNet
from .coder import SparseCoder
from .crfrnn import CRFRNN
from .deblur import Deblur
from .deconvnet import DeconvNet
from .decouplednet import DecoupledNet
from .deeplab import DeepLab
from .fcn import FCN
from .generator import GenerativeNet, encode_view
from .segnet import SegNet, SegNetBasic
from .vgg import MEAN_BGR, TRUNKS, Table, Trunk, prepare, trunk_table
from .weights import (
    MODELS,
    Network,
    from_pretrained,
    list_pretrained,
    load_tensors,
    load_vgg,
    save_pretrained,
)

__all__ = [
    "CRFRNN",
    "FCN",
    "MEAN_BGR",
    "MODELS",
    "TRUNKS",
    "VGG",
    "AlexNet",
    "Classifier",
    "Deblur",
    "DeconvNet",
    "DecoupledNet",
    "DeepLab",
    "GenerativeNet",
    "Network",
    "SegNet",
    "SegNetBasic",
    "SparseCoder",
    "SqueezeNet",
    "Table",
    "Trunk",
    "ZFNet",
    "encode_view",
    "from_pretrained",
    "list_pretrained",
    "load_tensors",
    "load_vgg",
    "prepare",
    "save_pretrained",
    "trunk_table",
]
