"""Networks from Caffe files against plain functions of the blobs, and folders of weights."""

import hashlib
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.models.caffe import KINDS, Net, attempt, field, save, small, varint
from unpool.cli import main
from unpool.data.layouts import VOC_CLASSES
from unpool.errors import OptionError, WeightsError
from unpool.models import FCN, DeconvNet, from_pretrained
from unpool.models.convert import convert, load_caffemodel
from unpool.segment.segmenter import Segmenter

# ---- from Caffe's layers to networks -------------------------------------------------------------

STAGES = (2, 2, 3, 3, 3)
NARROW = {"widths": (4, 5, 6, 7, 8), "code": 9, "side": 2, "classes": 5}
FULL = {"widths": (64, 128, 256, 512, 512), "code": 4096, "side": 7, "classes": 21}


def deconvnet(widths, code, side, classes):
    """Name: (kind, shapes of the two blobs) of every layer, in the order of the authors' file."""
    net = {}

    def add(kind, name, inputs, outputs, kernel, norm=None):
        channels = (outputs, inputs) if kind == "Convolution" else (inputs, outputs)
        net[name] = (kind, (*channels, kernel, kernel), (1, 1, 1, outputs))
        if norm:
            net[norm] = ("BN", (1, outputs, 1, 1), (1, outputs, 1, 1))

    below = 3
    for stage, width in enumerate(widths, start=1):
        for i in range(1, STAGES[stage - 1] + 1):
            add("Convolution", f"conv{stage}_{i}", below, width, 3, f"bn{stage}_{i}")
            below = width
    add("Convolution", "fc6", below, code, side, "bnfc6")
    add("Convolution", "fc7", code, code, 1, "bnfc7")
    add("Deconvolution", "fc6-deconv", code, below, side, "fc6-deconv-bn")
    for stage in (5, 4, 3, 2, 1):
        for i in range(1, STAGES[stage - 1] + 1):
            last = i == STAGES[stage - 1] and stage > 1
            out = widths[stage - 2] if last else widths[stage - 1]
            add("Deconvolution", f"deconv{stage}_{i}", below, out, 3, f"debn{stage}_{i}")
            below = out
    add("Convolution", "seg-score-voc", below, classes, 1)
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


@pytest.fixture(scope="session")
def load(tmp_path_factory):
    """Load a .caffemodel given as layers or as bytes."""
    folder = tmp_path_factory.mktemp("load")

    def load(layers, *arguments, version=1):
        path = folder / "net.caffemodel"
        path.write_bytes(layers if isinstance(layers, bytes) else save(layers, version))
        return load_caffemodel(path, *arguments)

    return load


def test_folded_net_is_the_net_of_caffe(load):
    model, ready, note = load(narrow(), "folded")
    assert ready
    assert "5 classes, batch norm folded: for use" in note
    assert not model.training
    assert (model.classes, model.size) == (5, 64)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 64, 64)))
    blobs = {name: blobs for name, _, blobs in narrow()}
    with torch.no_grad():
        expected = evaluate(blobs.__getitem__, x)
        torch.testing.assert_close(model.double()(x), expected, rtol=1e-9, atol=1e-9)
    assert expected.std() > 0.1


def test_training_net_is_the_net_of_the_solver(load):
    model, ready, note = load(narrow(), "training")
    assert not ready
    assert "estimate the statistics of batch norm" in note
    assert model.training
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 3, 64, 64)))
    blobs = {name: blobs for name, _, blobs in narrow()}
    with torch.no_grad():
        expected = evaluate(blobs.__getitem__, x, statistics=True)
        torch.testing.assert_close(model.double()(x), expected, rtol=1e-6, atol=1e-6)


def test_loaded_nets_can_be_trained(load):
    model = load(narrow(), "training").model
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and p.is_leaf for p in model.parameters())
    assert not any(t.is_meta for t in model.state_dict().values())


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("inner_product", [False, True])
def test_vgg_initializes_a_deconvnet(load, inner_product, version):
    model, ready, note = load(vgg(inner_product, version), version=version)
    assert not ready
    assert "VGG-16: train it" in note
    assert model.training
    blobs = {name: blobs for name, _, blobs in narrow()}
    state = model.state_dict()
    for key, value in state.items():
        name, part = key.split(".")[-2:]
        if name.startswith("conv") or name in ("fc6", "fc7"):
            assert np.array_equal(value, blobs[name][part == "bias"].reshape(value.shape))
    assert 0.005 < state["decoder.0.deconv5_1.weight"].std() < 0.02
    assert (state["trunk.stages.0.bn1_1.bias"] == 0.001).all()
    assert state["seg-score-voc.weight"].shape == (21, 4, 1, 1)


def test_asks_what_the_batch_norm_is(load):
    """Folded or not, the blobs look the same: a wrong guess would go unnoticed."""
    with pytest.raises(
        OptionError,
        match="batch_norm='folded' for a file made for inference, batch_norm='training'",
    ):
        load(narrow())


def test_refuses_an_unknown_batch_norm(load):
    with pytest.raises(OptionError, match="got batch_norm='fold'; it is 'folded' or 'training'"):
        load(narrow(), "fold")


def ones(*shape):
    return np.ones(shape, np.float32)


WRONG = {
    "missing": (narrow(bn5_3=None), r"weights and biases of bn5_3; give a complete file"),
    "many missing": (narrow()[:50], "biases of deconv2_1, debn2_1, deconv2_2, debn2_2, and 5 more"),
    "no bias": (narrow(conv2_1=[ones(5, 4, 3, 3)]), "weights and biases of conv2_1;"),
    "statistics": (narrow(bn1_1=[ones(1, 4, 1, 1)] * 3), "weights and biases of bn1_1;"),
    "of other width": (
        narrow(conv3_2=[ones(3, 6, 3, 3), ones(1, 1, 1, 3)]),
        r"the weight of conv3_2 is \(3, 6, 3, 3\), not \(6, 6, 3, 3\), the bias of conv3_2",
    ),
    "transposed": (
        narrow(deconv5_3=[ones(7, 8, 3, 3), ones(1, 1, 1, 7)]),
        r"the weight of deconv5_3 is \(7, 8, 3, 3\), not \(8, 7, 3, 3\);",
    ),
    "of other kernel": (narrow(fc6_deconv=[ones(9, 8, 3, 3), ones(1, 1, 1, 8)]), "fc6-deconv is"),
    "flat": (narrow(fc7=[ones(1, 1, 9, 9), ones(1, 1, 1, 9)]), r"fc7 is \(1, 1, 9, 9\), not"),
    "not finite": (
        narrow(bn2_2=[ones(1, 5, 1, 1), np.nan * ones(1, 5, 1, 1)]),
        "the bias of bn2_2 is not finite",
    ),
    "one class": (
        narrow(seg_score_voc=[ones(1, 4, 1, 1), ones(1, 1, 1, 1)]),
        r"seg-score-voc is \(1, 4, 1, 1\), not \(2, 4, 1, 1\)",
    ),
    "twice": (narrow() + narrow()[:1], "a second layer 'conv1_1' after conv1_1, bn1_1"),
    "extra": (
        [*narrow(), ("fc8", "BN", [ones(1, 1, 1, 1)])],
        r"a layer 'fc8' after conv1_1, bn1_1, conv1_2, bn1_2, and 55 more; give a file of Deconv",
    ),
    "another net": (small(), "a layer 'one' after no other; give a file of DeconvNet .* or VGG-16"),
    "half of FCN-8s": (
        [*vgg(False, 1)[:-1], ("score-fr", "Convolution", [ones(21, 9, 1, 1)])],
        "lacks weights and biases of score_fr; give a complete file",
    ),
    "DeconvNet and FCN": (
        [*narrow(), ("upsample", "Deconvolution", [ones(5, 5, 16, 16)])],
        "weights and biases of score_fr",
    ),
    "half of VGG": (vgg(True, 1)[:6], "weights and biases of conv3_3, conv4_1"),
    "a code that is not square": (
        narrow(fc6=[ones(9, 8, 1, 2), ones(1, 1, 1, 9)]),
        r"fc6 is \(9, 8, 1, 2\), not \(9, 8, 1, 1\)",
    ),
    "an image of no size": (
        [(n, k, [ones(1, 1, 9, 1), b[1]]) if n == "fc6" else (n, k, b) for n, k, b in vgg(True, 1)],
        r"fc6 is \(1, 1, 9, 1\), not \(9, 8, 1, 1\)",
    ),
}


@pytest.mark.parametrize(("layers", "message"), WRONG.values(), ids=WRONG)
def test_refuses_layers_of_another_net(load, layers, message):
    with pytest.raises(WeightsError, match=message) as error:
        load(layers, "folded")
    assert "net.caffemodel" in str(error.value)
    assert "give " in str(error.value)


def test_every_cut_between_layers_is_noticed(load):
    for count in range(len(narrow())):
        with pytest.raises(
            WeightsError, match=r"without a layer that has weights|lacks weights and biases"
        ):
            load(narrow()[:count], "folded")


@given(edits=st.lists(st.tuples(st.integers(0), st.binary(min_size=1, max_size=4)), max_size=4))
@settings(deadline=None, max_examples=60)
def test_random_changes_load_or_raise(load, edits):
    data = bytearray(save(narrow()))
    for place, new in edits:
        place %= len(data)
        data[place : place + len(new)] = new
    attempt(load, bytes(data), "folded")


# ---- FCN -----------------------------------------------------------------------------------------

OLD = {
    "score_fr": "score-fr",
    "upscore2": "score2",
    "score_pool4": "score-pool4",
    "upscore_pool4": "score4",
    "score_pool3": "score-pool3",
    "upscore8": "upsample",
    "upscore16": "upsample",
    "upscore": "upsample",
}


def fcn(widths=NARROW["widths"], code=9, classes=5, stride=8, old=True, at_once=False, side=7):
    """Name: (kind, shapes of blobs) of every layer of an FCN, in the order of the prototxt."""
    full = deconvnet(widths, code, side, classes)
    net = {name: full[name] for name in full if name.startswith(("conv", "fc6", "fc7"))}
    del net["fc6-deconv"], net["fc6-deconv-bn"]

    def score(name, inputs):
        net[name] = ("Convolution", (classes, inputs, 1, 1), (1, 1, 1, classes))

    def enlarge(name, kernel, *bias):
        net[name] = ("Deconvolution", (classes, classes, kernel, kernel), *bias)

    score("score_fr", code)
    if stride < 32:
        enlarge("upscore2", 4, *([(1, 1, 1, classes)] if old else []))
        if at_once:
            net["scale_pool4"] = ("Scale", (widths[3],))
        score("score_pool4", widths[3])
    if stride < 16:
        enlarge("upscore_pool4", 4)
        if at_once:
            net["scale_pool3"] = ("Scale", (widths[2],))
        score("score_pool3", widths[2])
    enlarge("upscore" if stride == 32 else f"upscore{stride}", 2 * stride)
    return {OLD.get(name, name) if old else name: layer for name, layer in net.items()}


def bilinear(shape):
    """`surgery.upsample_filt` on the diagonal."""
    kernel, factor = shape[-1], (shape[-1] + 1) // 2
    line = 1 - np.abs(np.arange(kernel) - (kernel - 1) / 2) / factor
    return (np.eye(shape[0])[:, :, None, None] * np.outer(line, line)).astype(np.float32)


def fcn_layers(old=True, learned=True, **options):
    layers = []
    for name, (kind, weight, *bias) in fcn(old=old, **options).items():
        if kind == "Scale":
            blobs = [np.full(weight, 0.01 if name == "scale_pool4" else 0.0001, np.float32)]
        else:
            blobs = values(name, kind, weight, *bias)
            if kind == "Deconvolution" and not learned:
                blobs[0] = bilinear(weight)
            if not old:
                blobs[1:] = [blob.ravel() for blob in blobs[1:]]
        layers.append((name, kind, blobs))
    return layers


def evaluate_fcn(blobs, x, stride, at_once=False):
    """FCN written out by the layers of the deploy.prototxt; `blobs` gives those of a name."""

    def tensors(name):
        return [torch.from_numpy(array).double() for array in blobs(name)]

    def conv(x, name, padding=0):
        weight, bias = tensors(name)
        return F.conv2d(x, weight, bias.flatten(), padding=padding)

    def deconv(x, name, stride):
        weight, *bias = tensors(name)
        return F.conv_transpose2d(x, weight, bias[0].flatten() if bias else None, stride)

    def crop(x, offset, like):
        height, width = like.shape[-2:]
        return x[:, :, offset : offset + height, offset : offset + width]

    y, pools = x, []
    for stage in (1, 2, 3, 4, 5):
        for i in range(1, STAGES[stage - 1] + 1):
            y = conv(y, f"conv{stage}_{i}", 100 if stage == i == 1 else 1).relu()
        y = F.max_pool2d(y, 2, 2, ceil_mode=True)
        pools.append(y)
    y = conv(conv(conv(y, "fc6").relu(), "fc7").relu(), "score_fr")
    if stride == 32:
        return crop(deconv(y, "upscore", 32), 19, x)
    y = deconv(y, "upscore2", 2)
    y = y + crop(conv(pools[3] * (0.01 if at_once else 1), "score_pool4"), 5, y)
    if stride == 16:
        return crop(deconv(y, "upscore16", 16), 27, x)
    y = deconv(y, "upscore_pool4", 2)
    y = y + crop(conv(pools[2] * (0.0001 if at_once else 1), "score_pool3"), 9, y)
    return crop(deconv(y, "upscore8", 8), 31, x)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("old", [True, False])
def test_fcn_is_the_net_of_caffe(load, old, stride, learned):
    layers = fcn_layers(old, learned, stride=stride)
    model, ready, note = load(layers, "folded", version=1 if old else 2)
    assert (ready, note) == (True, f"FCN-{stride}s for 5 classes: for use")
    assert not model.training
    assert (model.stride, model.classes, model.learned) == (stride, 5, learned)
    assert (model.at_once, model.pad, model.window) == (False, 100, 7)
    today = fcn(old=False, stride=stride)  # the same layers in the same order
    blobs = dict(zip(today, (blobs for _, _, blobs in layers), strict=True))
    if old and stride < 32:
        assert len(blobs["upscore2"]) == 2
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 40, 55)))
    with torch.no_grad():
        expected = evaluate_fcn(blobs.__getitem__, x, stride)
        torch.testing.assert_close(model.double()(x), expected, rtol=1e-6, atol=1e-7)
    assert expected.std() > 0.01
    assert {n: p.requires_grad for n, p in model.named_parameters() if "upscore" in n} == {
        f"score.{name}.weight": learned for name in model.factors
    }


def test_fcn_at_once(load):
    layers = fcn_layers(old=False, learned=False, at_once=True)
    model = load(layers, version=2).model
    assert model.at_once
    assert not model.learned
    with torch.no_grad():
        for name, _, blobs in layers:
            if name in ("score_pool4", "score_pool3"):
                scale = 100 if name == "score_pool4" else 10_000
                blobs[0] *= scale
                model.score[name].weight.mul_(scale)
        blobs = {name: blobs for name, _, blobs in layers}
        x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 40, 55)))
        expected = evaluate_fcn(blobs.__getitem__, x, 8, at_once=True)
        torch.testing.assert_close(model.double()(x), expected, rtol=1e-5, atol=1e-6)


def changed(blobs=None, old=True, at_once=False, without=(), more=()):
    """FCN-8s with other blobs of some layers, without some, and with more."""
    layers = [
        (name, kind, (blobs or {}).get(name, arrays))
        for name, kind, arrays in fcn_layers(old, at_once=at_once)
        if name not in without
    ]
    return layers + list(more)


WRONG_FCN = {
    "missing": (changed(without=["score4"]), r"score-fr, score2, .* after VGG's.*an FCN-8s has"),
    "of another stride": (changed(without=["score-pool3"]), "an FCN-16s has score_fr, upscore2, "),
    "twice": (
        changed(more=[("upscore8", "Deconvolution", [ones(5, 5, 16, 16)])]),
        "score-fr, score2, score-pool4, score4, and 3 more after VGG's layers; an FCN-8s has",
    ),
    "half at once": (changed(old=False, at_once=True, without=["scale_pool3"]), "an FCN-8s has"),
    "of DeconvNet": (changed(more=narrow()[-1:]), "an FCN-8s has .* give a complete file"),
    "no fc7": (changed(without=["fc7"]), "lacks weights and biases of fc7;"),
    "no bias": (
        changed({"score-pool4": [ones(5, 7, 1, 1)]}),
        "lacks weights and biases of score_pool4;",
    ),
    "a bias elsewhere": (
        changed({"upsample": [ones(5, 5, 16, 16), ones(1, 1, 1, 5)]}),
        "does not fit FCN: upscore8 has a bias; give a file of the authors' layers",
    ),
    "another bias": (
        changed({"score2": [ones(5, 5, 4, 4), ones(1, 5, 1, 1)]}),
        "the bias of upscore2 does not match that of score_pool4",
    ),
    "not finite": (
        changed({"score2": [ones(5, 5, 4, 4), np.inf * ones(1, 1, 1, 5)]}),
        "the bias of score_pool4 is not finite",
    ),
    "of other kernel": (
        changed({"score4": [ones(5, 5, 6, 6)]}),
        r"the weight of upscore_pool4 is \(5, 5, 6, 6\), not \(5, 5, 4, 4\)",
    ),
    "of channels": (changed({"upsample": [ones(5, 1, 16, 16)]}), r"\(5, 1, 16, 16\), not"),
    "of other fc6": (
        changed({"fc6": [ones(9, 8, 3, 3), ones(1, 1, 1, 9)]}),
        r"the weight of fc6 is \(9, 8, 3, 3\), not \(9, 8, 7, 7\)",
    ),
    "of one class": (
        changed({"score-fr": [ones(1, 9, 1, 1), ones(1, 1, 1, 1)]}),
        r"does not fit FCN: the weight of score_fr is \(1, 9, 1, 1\), not \(2",
    ),
    "of other scale": (
        changed({"scale_pool3": [ones(6)]}, old=False, at_once=True),
        "does not fit FCN: scale_pool3 is not 0.0001;",
    ),
}


@pytest.mark.parametrize(("layers", "message"), WRONG_FCN.values(), ids=WRONG_FCN)
def test_refuses_layers_of_another_fcn(load, layers, message):
    with pytest.raises(WeightsError, match=message):
        load(layers, "folded", version=2)


def test_every_cut_between_layers_of_an_fcn_is_noticed(load):
    layers = fcn_layers()
    for count in range(16, len(layers)):  # fewer are VGG-16's
        with pytest.raises(WeightsError, match=r"lacks weights and biases|an FCN-\d+s has"):
            load(layers[:count], "folded")


def test_a_kernel_that_would_fill_the_memory(load):
    """It is compared with a bilinear one only after its shape has been."""
    layers = changed({"upsample": [ones(1, 1, 1, 10**5)]})
    with pytest.raises(WeightsError, match=r"upscore8 is \(1, 1, 1, 100000\), not"):
        load(layers, version=2)


# ---- the whole net -------------------------------------------------------------------------------


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


def test_streamed_file_is_that_of_protobuf(tmp_path):
    """The writer of the large file is right where protobuf can be asked."""
    net = Net()
    for name, kind, blobs in narrow():
        layer = net.layers.add(name=name, type=KINDS[kind])
        for array in blobs:
            layer.blobs.add(
                data=array.ravel().tolist(),
                **dict(zip(("num", "channels", "height", "width"), array.shape, strict=True)),
            )
    places = stream(tmp_path / "net.caffemodel", deconvnet(**NARROW))
    assert (tmp_path / "net.caffemodel").read_bytes() == net.SerializeToString()
    assert len(places) == 30 + 29


CONVERT = """
import json, resource, sys, time
import numpy as np, torch
from unpool.models.convert import load_caffemodel
torch.set_num_threads(1)
start = time.perf_counter()
model, ready, note = load_caffemodel(sys.argv[1], "folded")
seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with torch.no_grad():
    np.save(sys.argv[3], model.double()(torch.from_numpy(np.load(sys.argv[2]))))
parameters = sum(p.numel() for p in model.parameters())
foreign = [name for name in ("google.protobuf", "caffe") if name in sys.modules]
print(json.dumps([peak * 1024, seconds, ready, parameters, foreign]))
"""


@pytest.mark.slow
def test_full_size_file_converts_in_bounded_memory(tmp_path):
    path = tmp_path / "net.caffemodel"
    try:
        places = stream(path, deconvnet(**FULL))
        assert path.stat().st_size > 4 * 251_805_653
        x = np.random.default_rng(0).standard_normal((1, 3, 224, 224)) * 50
        np.save(tmp_path / "x.npy", x)
        command = [sys.executable, "-c", CONVERT, path, tmp_path / "x.npy", tmp_path / "y.npy"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peak, seconds, ready, parameters, foreign = json.loads(done.stdout)
        print(f"peak {peak / 1e9:.2f} GB, {seconds:.1f} s")
        assert (ready, parameters, foreign) == (True, 251_805_653, [])
        assert peak < 2.6e9

        def blobs(name):
            return [
                np.fromfile(path, "<f4", int(np.prod(shape)), offset=offset).reshape(shape)
                for offset, shape in places[name]
            ]

        with torch.no_grad():
            expected = evaluate(blobs, torch.from_numpy(x)).numpy()
        difference = np.abs(np.load(tmp_path / "y.npy") - expected)
        assert difference.max() < 1e-9 * np.abs(expected).max()
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.slow
def test_full_size_fcn(tmp_path):
    """`fcn-8s-pascal` by its size; its convolutions are those of the narrow nets."""
    path = tmp_path / "fcn-8s-pascal.caffemodel"
    net = fcn(FULL["widths"], FULL["code"], FULL["classes"])
    try:
        places = stream(path, net)
        model, ready, note = load_caffemodel(path)
        assert (ready, note) == (True, "FCN-8s for 21 classes: for use")
        assert sum(p.numel() for p in model.parameters()) == 134_489_759
        offset, shape = places["score4"][0]
        blob = np.fromfile(path, "<f4", int(np.prod(shape)), offset=offset).reshape(shape)
        assert np.array_equal(model.score["upscore_pool4"].weight.detach(), blob)
        with torch.no_grad():
            assert model(torch.zeros(1, 3, 60, 80)).shape == (1, 21, 60, 80)
    finally:
        path.unlink(missing_ok=True)


# ---- folders of weights --------------------------------------------------------------------------

TABLE = ((2, 4), (2, 5), (3, 6), (3, 7), (3, 8))  # VGG-16, narrow
NAMES = {nn.Conv2d: "Convolution", nn.ConvTranspose2d: "Deconvolution", nn.BatchNorm2d: "BN"}


def write_caffe(path: Path, net: nn.Module, names: str = "") -> Path:
    """The layers of a network whose names fit the pattern, as Caffe wrote them in 2015."""
    layers = []
    for key, layer in net.named_modules():
        name = key.rpartition(".")[2]
        kind = next((name for kind, name in NAMES.items() if isinstance(layer, kind)), None)
        if kind is not None and re.match(names, name):
            blobs = [p.detach().numpy() for p in (layer.weight, layer.bias) if p is not None]
            layers.append((name, kind, [b if b.ndim == 4 else b[None, None, None] for b in blobs]))
    path.write_bytes(save(layers))
    return path


@pytest.fixture(scope="module")
def net() -> DeconvNet:
    torch.manual_seed(0)
    return DeconvNet(5, TABLE, 9, 64)


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = dict(one.named_parameters()), dict(other.named_parameters())
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_file_for_inference_segments(net, tmp_path):
    path = write_caffe(tmp_path / "DeconvNet_inference.caffemodel", net)
    facts = convert(path, tmp_path / "new", command="unpool convert a b")
    assert (facts.weights, facts.storage, facts.ready) == (str(tmp_path / "new"), "fp32", True)
    assert facts.parameters == sum(p.numel() for p in net.parameters())
    assert facts.note == "DeconvNet for 5 classes, batch norm folded: for use, not for training"
    model, card = from_pretrained(tmp_path / "new")
    assert same(model, net)
    assert card.arguments == {**net.arguments, "eps": 0.0}
    assert card.classes == ["class 0", "class 1", "class 2", "class 3", "class 4"]
    assert card.palette[:2] == [[0, 0, 0], [128, 0, 0]]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert card.more["source"] == {"file": "DeconvNet_inference.caffemodel", "sha256": digest}
    assert "no redistribution" in card.license
    assert (card.more["command"], card.mode) == ("unpool convert a b", "instance")
    segmenter = Segmenter.from_pretrained(tmp_path / "new")
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    assert segmenter(image, method="grid", proposals=2).labels.shape == (50, 70)


def test_a_file_of_the_solver_is_not_ready(net, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_caffe(tmp_path / "stage_2_train_result.caffemodel", net)
    assert main(["convert", "stage_2_train_result.caffemodel", "new", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["ready"] is False
    assert "estimate the statistics of batch norm before use" in facts["note"]
    assert from_pretrained("new")[1].more["command"] == (
        "unpool convert stage_2_train_result.caffemodel new --json"
    )
    with pytest.raises(WeightsError, match=r"got new, a DeconvNet .*: estimate the statistics"):
        Segmenter.from_pretrained("new")
    again = convert("new", "again", int8=True)
    assert (again.ready, again.note) == (False, facts["note"])


def test_the_meaning_of_batch_norm_can_be_given(net, tmp_path):
    path = write_caffe(tmp_path / "stage_2_train_result.caffemodel", net)
    assert convert(path, tmp_path / "new", batch_norm="folded").ready


def test_a_vgg_file_initializes_a_network(tmp_path):
    net = DeconvNet(21, TABLE, 9, 64, eps=None)
    path = write_caffe(tmp_path / "VGG.caffemodel", net, r"conv|fc\d$")
    Path(tmp_path / "new").mkdir()  # empty folders are taken
    facts = convert(path, tmp_path / "new")
    assert not facts.ready
    assert "train it before use" in facts.note
    model, card = from_pretrained(tmp_path / "new")
    assert card.classes == VOC_CLASSES
    weight = "trunk.stages.0.conv1_1.weight"
    assert torch.equal(model.get_parameter(weight), net.get_parameter(weight))


@pytest.mark.parametrize("int8", [False, True])
def test_a_file_of_fcn(tmp_path, int8):
    torch.manual_seed(0)
    net = FCN(21, TABLE, 9, 16)
    path = write_caffe(tmp_path / "fcn16s-heavy-pascal.caffemodel", net)
    facts = convert(path, tmp_path / "new", int8=int8)
    assert (facts.ready, facts.note) == (True, "FCN-16s for 21 classes: for use")
    model, card = from_pretrained(tmp_path / "new")
    assert (card.architecture, card.mode) == ("FCN", "whole")
    assert card.arguments == net.arguments
    assert card.classes == VOC_CLASSES
    assert same(model, net) != int8


def test_int8_is_a_quarter_of_the_size(net, tmp_path):
    path = write_caffe(tmp_path / "net.caffemodel", net)
    large, small = convert(path, tmp_path / "large"), convert(path, tmp_path / "small", int8=True)
    again = convert(tmp_path / "small", tmp_path / "again", int8=True)
    assert (large.storage, small.storage, again.storage) == ("fp32", "int8", "int8")
    sizes = [Path(f.weights, "model.safetensors").stat().st_size for f in (large, small, again)]
    assert sizes[1] == sizes[2] < sizes[0]
    assert same(from_pretrained(small.weights)[0], from_pretrained(again.weights)[0])


KILLED = """
import os, sys
from unpool import files
from unpool.models.convert import convert
publish, count = files._publish, 0
def killed(*args):
    global count
    count += 1
    publish(*args) if count < int(sys.argv[1]) else os._exit(9)
files._publish = killed
convert(*sys.argv[2:])
"""


@pytest.mark.parametrize("moved", [1, 2, 3])  # its card is moved twice, from draft to draft
def test_a_killed_conversion_can_be_repeated(net, tmp_path, moved):
    path, target = write_caffe(tmp_path / "net.caffemodel", net), tmp_path / "new"
    command = [sys.executable, "-c", KILLED, str(moved), str(path), str(target)]
    assert subprocess.run(command, check=False).returncode == 9
    tensors = target / "model.safetensors"
    assert tensors.exists() == (moved == 3)
    convert(path, target)
    assert sorted(p.name for p in target.iterdir()) == ["card.json", "model.safetensors"]
    assert same(from_pretrained(target)[0], load_caffemodel(path, "folded").model)
    tensors.with_name("card.json").unlink()
    with pytest.raises(OptionError, match="exists already"):  # nobody was killed here
        convert(path, target)


def test_existing_targets_are_not_overwritten(net, tmp_path):
    path = write_caffe(tmp_path / "net.caffemodel", net)
    for target in (tmp_path, path):
        with pytest.raises(OptionError, match="exists already; name a new folder"):
            convert(path, target)
    convert(path, tmp_path / "new")
    with pytest.raises(OptionError, match=r"batch_norm for .*new; it is for \.caffemodel files"):
        convert(tmp_path / "new", tmp_path / "other", batch_norm="folded")
    with pytest.raises(WeightsError, match="got weights"):
        convert(tmp_path / "nothing", tmp_path / "other")
    path.write_bytes(b"text")
    with pytest.raises(WeightsError, match=r"wanted a whole \.caffemodel"):
        convert(path, tmp_path / "other")
    assert not (tmp_path / "other").exists()
