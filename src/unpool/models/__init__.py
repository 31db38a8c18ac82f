"""The networks, written as tables of layers, and their weights."""

from unpool.cards import list_pretrained
from unpool.models.classifiers import VGG, AlexNet, Classifier, SqueezeNet, ZFNet
from unpool.models.deconvnet import DeconvNet
from unpool.models.fcn import FCN
from unpool.models.generator import GenerativeNet, encode_view
from unpool.models.vgg import MEAN_BGR, TRUNKS, Table, Trunk, prepare, trunk_table
from unpool.models.weights import (
    MODELS,
    Network,
    from_pretrained,
    load_tensors,
    load_vgg,
    save_pretrained,
)

__all__ = [
    "FCN",
    "MEAN_BGR",
    "MODELS",
    "TRUNKS",
    "VGG",
    "AlexNet",
    "Classifier",
    "DeconvNet",
    "GenerativeNet",
    "Network",
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
