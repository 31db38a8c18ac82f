"""The layers of the authors' files, narrow or full size, and the networks written out."""

import zlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tests.models.caffe.files import KINDS, field, varint

STAGES = (2, 2, 3, 3, 3)
NARROW = {"widths": (4, 5, 6, 7, 8), "code": 9, "side": 2, "classes": 5}
FULL = {"widths": (64, 128, 256, 512, 512), "code": 4096, "side": 7, "classes": 21}


def add_layer(net, kind, name, inputs, outputs, kernel, norm=None):
    """Add a layer, and batch norm after it, to a net: its kind, and the shapes of its blobs."""
    channels = (outputs, inputs) if kind == "Convolution" else (inputs, outputs)
    net[name] = (kind, (*channels, kernel, kernel), (1, 1, 1, outputs))
    if norm:
        net[norm] = ("BN", (1, outputs, 1, 1), (1, outputs, 1, 1))


def add_decoder(net, widths):
    """Add the thirteen deconvolutions of DeconvNet and DecoupledNet, and their batch norm."""
    below = widths[-1]
    for stage in (5, 4, 3, 2, 1):
        for i in range(1, STAGES[stage - 1] + 1):
            last = i == STAGES[stage - 1] and stage > 1
            out = widths[stage - 2] if last else widths[stage - 1]
            add_layer(net, "Deconvolution", f"deconv{stage}_{i}", below, out, 3, f"debn{stage}_{i}")
            below = out


def deconvnet(widths, code, side, classes):
    """Name: (kind, shapes of the two blobs) of every layer, in the order of the authors' file."""
    net = {}

    add = partial(add_layer, net)
    below = 3
    for stage, width in enumerate(widths, start=1):
        for i in range(1, STAGES[stage - 1] + 1):
            add("Convolution", f"conv{stage}_{i}", below, width, 3, f"bn{stage}_{i}")
            below = width
    add("Convolution", "fc6", below, code, side, "bnfc6")
    add("Convolution", "fc7", code, code, 1, "bnfc7")
    add("Deconvolution", "fc6-deconv", code, below, side, "fc6-deconv-bn")
    add_decoder(net, widths)
    add("Convolution", "seg-score-voc", widths[0], classes, 1)
    return net


def values(name, kind, weight, *bias):
    """One or two blobs, the same for the same name, that keep the size of the signal."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if kind == "BN":
        first = 0.5 + random.random(weight, dtype=np.float32)
    else:
        inputs = np.prod(weight[1:] if kind == "Convolution" else (weight[0], *weight[2:]))
        first = random.standard_normal(weight, dtype=np.float32)
        first *= np.float32((2 / inputs) ** 0.5)
    return [first, *(0.1 * random.standard_normal(shape, dtype=np.float32) for shape in bias)]


def narrow(**changes):
    """The layers of a narrow DeconvNet; a change replaces a layer's blobs, None removes it."""
    layers = []
    for name, (kind, *shapes) in deconvnet(**NARROW).items():
        blobs = changes.get(name.replace("-", "_"), values(name, kind, *shapes))
        layers += [] if blobs is None else [(name, kind, blobs)]
    return layers


def vgg(inner_product: bool, version: int):
    """VGG-16 as released, or with its fully connected layers as convolutions; narrow."""
    layers = [layer for layer in narrow() if layer[0].startswith("conv")]
    for name, kind, (weight, bias) in narrow():
        if name in ("fc6", "fc7"):
            if inner_product:
                kind, weight = "InnerProduct", weight.reshape(1, 1, len(weight), -1)
            layers.append((name, kind, [weight, bias]))
    layers.append(("fc8", "InnerProduct", [np.ones((1, 1, 10, 9)), np.ones((1, 1, 1, 10))]))
    if version == 2:
        layers = [
            (name, kind, [blob.squeeze() for blob in blobs])
            if kind == "InnerProduct"
            else (name, kind, [blobs[0], blobs[1].ravel()])
            for name, kind, blobs in layers
        ]
    return layers


def evaluate(blobs, x, statistics=False):
    """DeconvNet written out by the names of Caffe's layers; `blobs` gives those of a name.

    In float64, since float32 rounding decides now and then which value of a window is largest.
    """

    def tensors(name):
        return [torch.from_numpy(array).double() for array in blobs(name)]

    def layer(name, norm, operation, x, padding=0):
        weight, bias = tensors(name)
        x = operation(x, weight, bias.flatten(), 1, padding)
        scale, shift = tensors(norm)
        if statistics:
            mean, var = x.mean((0, 2, 3), True), x.var((0, 2, 3), correction=0, keepdim=True)
            x = (x - mean) / (var + 1e-9).sqrt()
        return (x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)).clamp(min=0)

    masks = []
    for stage in (1, 2, 3, 4, 5):
        for i in range(1, STAGES[stage - 1] + 1):
            x = layer(f"conv{stage}_{i}", f"bn{stage}_{i}", F.conv2d, x, 1)
        x, mask = F.max_pool2d(x, 2, 2, return_indices=True)
        masks.append(mask)
    x = layer("fc6", "bnfc6", F.conv2d, x)
    x = layer("fc7", "bnfc7", F.conv2d, x)
    x = layer("fc6-deconv", "fc6-deconv-bn", F.conv_transpose2d, x)
    for stage in (5, 4, 3, 2, 1):
        x = F.max_unpool2d(x, masks[stage - 1], 2, 2)
        for i in range(1, STAGES[stage - 1] + 1):
            x = layer(f"deconv{stage}_{i}", f"debn{stage}_{i}", F.conv_transpose2d, x, 1)
    weight, bias = tensors("seg-score-voc")
    return F.conv2d(x, weight, bias.flatten())


def ones(*shape):
    return np.ones(shape, np.float32)


def stream(path: Path, net) -> dict[str, list[tuple[int, tuple[int, ...]]]]:
    """Write a net blob by blob, as `save` would; where each blob's numbers stand, and its shape."""
    places: dict = {}
    with path.open("wb") as file:
        for name, (kind, *shapes) in net.items():
            heads = []
            for shape in shapes:
                dims = b"".join(field(i, 0, varint(n)) for i, n in enumerate(shape, start=1))
                size = 4 * int(np.prod(shape))
                dims += field(5, 2, b"", size)
                heads.append(field(6, 2, dims, len(dims) + size))
            head = field(4, 2, name.encode()) + field(5, 0, varint(KINDS[kind]))
            size = len(head) + sum(map(len, heads)) + 4 * sum(int(np.prod(s)) for s in shapes)
            file.write(field(2, 2, head, size))
            places[name] = []
            for blob_head, shape, array in zip(
                heads, shapes, values(name, kind, *shapes), strict=True
            ):
                file.write(blob_head)
                places[name].append((file.tell(), shape))
                array.tofile(file)
    return places
