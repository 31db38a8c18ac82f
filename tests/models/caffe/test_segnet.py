"""SegNet and SegNet-Basic from Caffe files, against plain functions of the blobs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models.caffe.files import save
from tests.models.caffe.nets import NARROW, STAGES, ones, values
from unpool.cards import read_card
from unpool.data.layouts.folders import CAMVID_CLASSES
from unpool.errors import OptionError, WeightsError
from unpool.models import SegNet, SegNetBasic, from_pretrained, prepare
from unpool.models.caffe import load_caffemodel
from unpool.models.convert import convert
from unpool.segment.segmenter import Segmenter


def segnet(widths=NARROW["widths"], classes=5, wide=False):
    """Name: shape of the filters of every convolution of a SegNet, in the order of the prototxt."""
    net, below = {}, 3
    for stage, width in enumerate(widths, start=1):
        for i in range(1, STAGES[stage - 1] + 1):
            net[f"conv{stage}_{i}"] = (width, below, 3, 3)
            below = width
    for stage in (5, 4, 3, 2, 1):
        for i in range(STAGES[stage - 1], 0, -1):
            out = widths[stage - 2] if i == 1 and stage > 1 else widths[stage - 1]
            net[f"conv{stage}_{i}_D"] = (out, below, 3, 3)
            below = out
    head = "camvid" if wide else "conv1_1_D"
    net[head] = (classes, below, 3, 3)
    return net


def basic(width=4, classes=5, head="conv_classifier"):
    """The same of a SegNet-Basic."""
    names = [f"conv{i}" for i in (1, 2, 3, 4)] + [f"conv_decode{i}" for i in (4, 3, 2, 1)]
    net = dict.fromkeys(names, (width, width, 7, 7))
    return {**net, "conv1": (width, 3, 7, 7), head: (classes, width, 1, 1)}


def with_norms(net, norms=True):
    """The layers of a file, with batch norm after all but the last convolution."""
    layers, last = [], [*net][-1]
    for name, shape in net.items():
        blobs = values(name, "Convolution", shape, (1, 1, 1, shape[0]))
        layers.append((name, "Convolution", blobs))
        if norms and name != last:
            sides = (1, shape[0], 1, 1), (1, shape[0], 1, 1)
            layers.append((f"{name}_bn", "BN", values(f"{name}_bn", "BN", *sides)))
    return layers


def segnet_layers(norms=True, **options):
    return with_norms(segnet(**options), norms)


def basic_layers(norms=True, **options):
    return with_norms(basic(**options), norms)


def evaluate(layers, x, statistics=False):
    """The network written out by the layers of the authors' prototxt, in the order of the file."""
    blobs = {
        name: [torch.from_numpy(array).double() for array in arrays] for name, _, arrays in layers
    }
    names = [name for name, kind, _ in layers if kind == "Convolution"]
    is_basic = "conv1" in blobs

    def layer(x, name, relu):
        weight, bias = blobs[name]
        x = F.conv2d(x, weight, bias.flatten(), padding=weight.shape[-1] // 2)
        if f"{name}_bn" in blobs:
            scale, shift = blobs[f"{name}_bn"]
            if statistics:
                mean, var = x.mean((0, 2, 3), True), x.var((0, 2, 3), correction=0, keepdim=True)
                x = (x - mean) / (var + 1e-9).sqrt()
            x = x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        return x.relu() if relu else x

    if is_basic:
        x = F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)
    half = len(names) // 2
    down = names[:half] if is_basic else [n for n in names if n[-2:] != "_D" and n != "camvid"]
    up, masks, sizes = names[len(down) :], [], []
    for i, name in enumerate(down):
        x = layer(x, name, True)
        if is_basic or i + 1 == len(down) or down[i + 1][4] != name[4]:
            sizes.append(x.shape[-2:])
            x, mask = F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
            masks.append(mask)
    stage = None
    for name in up[:-1]:
        of = name.removeprefix("conv_decode").removeprefix("conv")[0]
        if of != stage:
            x = F.max_unpool2d(x, masks.pop(), 2, output_size=sizes.pop())
            stage = of
        x = layer(x, name, not is_basic)
    if not is_basic and stage != "1":  # a stage that has no other layer
        x = F.max_unpool2d(x, masks.pop(), 2, output_size=sizes.pop())
    return layer(x, up[-1], False)


X = 20 * torch.randn(2, 3, 45, 38, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
FILES = {
    "SegNet": (segnet_layers(), SegNet, "SegNet for 5 classes"),
    "absorbed": (segnet_layers(norms=False), SegNet, "SegNet for 5 classes"),
    "camvid": (segnet_layers(wide=True), SegNet, "Bayesian SegNet for 5 classes"),
    "38 classes": (segnet_layers(classes=38), SegNet, "SegNet for 38 classes"),
    "Basic": (basic_layers(), SegNetBasic, "SegNet-Basic for 5 classes"),
    "Basic, absorbed": (basic_layers(norms=False), SegNetBasic, "SegNet-Basic for 5 classes"),
    "dense_softmax_inner_prod": (
        basic_layers(head="dense_softmax_inner_prod"),
        SegNetBasic,
        "SegNet-Basic for 5 classes",
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("layers", "kind", "note"), FILES.values(), ids=FILES)
def test_a_file_for_inference_is_the_net_of_caffe(load, layers, kind, note, version):
    model, ready, found = load(layers, "folded", version=version)
    assert type(model) is kind
    assert (ready, model.training) == (True, False)
    assert found.startswith(note)
    assert ("batch norm folded" in found) == (len(layers) > 30 or len(layers) == 17)
    expected = evaluate(layers, X)
    assert expected.std() > 0.05
    torch.testing.assert_close(model.double()(X), expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("layers", [segnet_layers(), basic_layers()], ids=["SegNet", "Basic"])
def test_a_file_of_the_solver_is_the_net_of_the_solver(load, layers):
    model, ready, note = load(layers, "training", version=2)
    assert (ready, model.training) == (False, True)
    assert note.endswith("estimate the statistics of batch norm before use")
    expected = evaluate(layers, X, statistics=True)
    torch.testing.assert_close(model.double()(X), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(OptionError, match="does not say what its batch norm means"):
        load(layers, version=2)


@pytest.mark.parametrize(
    ("name", "layers", "places"),
    [
        ("segnet_weights_driving_webdemo", segnet_layers(classes=12), 0),
        ("bayesian_segnet_camvid", segnet_layers(classes=11), 6),
        ("camvid_without_its_name", segnet_layers(classes=11, wide=True), 6),
        ("bayesian_segnet_pascal", segnet_layers(classes=21), 10),
        ("Bayesian_SegNet_basic", basic_layers(), 4),
        ("segnet_basic_camvid", basic_layers(head="dense_softmax_inner_prod"), 0),
    ],
)
def test_a_file_called_bayesian_has_dropout(tmp_path, name, layers, places):
    path = tmp_path / f"{name}.caffemodel"
    path.write_bytes(save(layers, 2))
    model, ready, note = load_caffemodel(path, "folded")
    layers = [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p]
    assert [m.p for m in layers] == [0.5] * places
    assert note.startswith("Bayesian ") == (places > 0)
    assert ready


def test_the_card_has_the_classes_the_mean_and_the_terms(tmp_path):
    path = tmp_path / "segnet_camvid.caffemodel"
    path.write_bytes(save(segnet_layers(classes=11), 2))
    assert convert(path, tmp_path / "weights").ready
    net, card = from_pretrained(tmp_path / "weights")
    assert card.classes == CAMVID_CLASSES
    assert (card.palette[0], card.palette[8]) == ([128, 128, 128], [64, 0, 128])  # sky, car
    assert (card.mean, card.mode, card.long_side) == ((0, 0, 0), "whole", 480)
    assert "CC BY-NC 4.0" in card.license
    image = np.random.default_rng(0).integers(0, 256, (45, 38, 3)).astype(np.uint8)
    own = Segmenter.from_pretrained(tmp_path / "weights", exact=True, precision="fp32")
    with torch.no_grad():
        expected = net(prepare(torch.from_numpy(image[None]), (0, 0, 0)))
    found = own.infer(image[None])
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["segnet_iter_40000", "stage_2_train_result"])
def test_snapshots_of_the_solver_are_known_by_their_names(tmp_path, name):
    path = tmp_path / f"{name}.caffemodel"
    path.write_bytes(save(basic_layers(classes=4), 2))
    assert not convert(path, tmp_path / "weights").ready
    card = read_card(tmp_path / "weights")
    assert card.classes == [f"class {i}" for i in range(4)]


def changed(layers, name, *blobs):
    """With other blobs of a layer."""
    return [(n, kind, list(blobs) if n == name else own) for n, kind, own in layers]


def without(layers, name):
    return [layer for layer in layers if layer[0] != name]


WHOLE, BASIC = segnet_layers(), basic_layers()
WRONG = {
    "no batch norm of a layer": (without(WHOLE, "conv3_2_bn"), "biases of conv3_2_bn; give a comp"),
    "a layer less": (without(WHOLE, "conv4_2_D"), "lacks weights and biases of conv4_2_D;"),
    "no head": (without(BASIC, "conv_classifier"), "lacks weights and biases of conv_classifier"),
    "half a wide head": (
        [*WHOLE, ("camvid", "Convolution", [ones(5, 4, 3, 3), ones(1, 1, 1, 5)])],
        "lacks weights and biases of conv1_1_D_bn",
    ),
    "two heads": (
        [*BASIC, ("dense_softmax_inner_prod", *BASIC[-1][1:])],
        "has dense_softmax_inner_prod beside|has conv_classifier beside",
    ),
    "batch norm of the scores": (
        [*WHOLE, ("conv1_1_D_bn", "BN", [ones(1, 5, 1, 1)] * 2)],
        "has conv1_1_D_bn beside the layers of a whole network",
    ),
    "both networks": ([*WHOLE, *BASIC], "a layer 'conv1' after conv1_1, conv1_1_bn"),
    "of DeconvNet": ([*WHOLE, ("bn1_1", "BN", [ones(1, 4, 1, 1)] * 2)], "a layer 'bn1_1' after"),
    "twice": ([*BASIC, BASIC[0]], "a second layer 'conv1'"),
    "of other width": (
        changed(WHOLE, "conv4_1_D", ones(7, 7, 3, 3), ones(1, 1, 1, 7)),
        r"the weight of conv4_1_D is \(7, 7, 3, 3\), not \(6, 7, 3, 3\)",
    ),
    "of other kernel": (
        changed(BASIC, "conv2", ones(4, 4, 3, 3), ones(1, 1, 1, 4)),
        r"the weight of conv2 is \(4, 4, 3, 3\), not \(4, 4, 7, 7\)",
    ),
    "of one class": (
        changed(BASIC, "conv_classifier", ones(1, 4, 1, 1), ones(1, 1, 1, 1)),
        r"the weight of conv_classifier is \(1, 4, 1, 1\), not \(2, 4, 1, 1\)",
    ),
    "statistics": (changed(BASIC, "conv1_bn", *[ones(1, 4, 1, 1)] * 4), "biases of conv1_bn"),
    "not finite": (
        changed(WHOLE, "conv2_1_bn", ones(1, 5, 1, 1), np.inf * ones(1, 5, 1, 1)),
        "the bias of conv2_1_bn is not finite",
    ),
}


@pytest.mark.parametrize(("layers", "message"), WRONG.values(), ids=WRONG)
def test_refuses_layers_of_another_segnet(load, layers, message):
    with pytest.raises(WeightsError, match=message):
        load(layers, "folded", version=2)


def test_every_cut_between_layers_is_noticed(load):
    for layers in (WHOLE, BASIC):
        for count in range(len(layers)):
            with pytest.raises(WeightsError, match=r"without a layer|lacks weights and biases"):
                load(layers[:count], "folded", version=2)
