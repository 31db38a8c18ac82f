"""DeepLab from Caffe files, against plain functions of the blobs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.models.caffe.files import save
from tests.models.caffe.nets import NARROW, STAGES, deconvnet, ones, values
from unpool.cards import read_card
from unpool.errors import WeightsError
from unpool.models import DeepLab, from_pretrained
from unpool.models.convert import convert
from unpool.ops import CRF_PRESETS
from unpool.segment.segmenter import Segmenter

MAPS = ("data", "pool1", "pool2", "pool3", "pool4")
NETWORKS = {  # window of fc6, and whether there are finer maps
    "DeepLab-LargeFOV": (3, False),
    "DeepLab": (4, False),
    "DeepLab-7x7": (7, False),
    "DeepLab-MSc-LargeFOV": (3, True),
    "DeepLab-MSc": (4, True),
}


def deeplab_layers(window=3, fine=False, score="fc8_voc12", without=(), sizes=NARROW, **changes):
    """The layers of a file, in order; a change replaces the blobs of a layer."""
    full = deconvnet(**{**sizes, "side": window})
    names = [name for name in full if name.startswith("conv") or name in ("fc6", "fc7")]
    net = {name: full[name][1:] for name in names}
    classes, code = sizes["classes"], sizes["code"]
    net[score] = (classes, code, 1, 1), (1, 1, 1, classes)
    for name, inputs in zip(MAPS, (3, *sizes["widths"][:4]), strict=True):
        if fine:
            net[f"{name}_conv"] = (6, inputs, 3, 3), (1, 1, 1, 6)
            net[f"{name}_fc"] = (6, 6, 1, 1), (1, 1, 1, 6)
            net[f"{name}_ms"] = (classes, 6, 1, 1), (1, 1, 1, classes)
    return [
        (name, "Convolution", changes.get(name, values(name, "Convolution", *shapes)))
        for name, shapes in net.items()
        if name not in without
    ]


def holes(weight, step):
    """A filter with zeros between its taps."""
    side = (weight.shape[-1] - 1) * step + 1
    large = weight.new_zeros(*weight.shape[:2], side, side)
    large[..., ::step, ::step] = weight
    return large


def zoom(y, factor):
    """Caffe's INTERP: y[i * (n - 1) / (m - 1)] for each i, linearly, by rows and columns."""
    for axis in (2, 3):
        n = y.shape[axis]
        at = torch.arange((n - 1) * factor + 1, dtype=torch.float64) / factor
        low = at.floor().long().clamp_max(n - 1)
        high = (low + 1).clamp_max(n - 1)
        shape = [-1 if d == axis else 1 for d in range(4)]
        part = (at - low).view(shape)
        y = (1 - part) * y.index_select(axis, low) + part * y.index_select(axis, high)
    return y


def evaluate(layers, x, window, fine):
    """The test form, by the names of Caffe's layers, of images whose size is on the grid."""
    blobs = {name: [torch.from_numpy(a).double() for a in arrays] for name, _, arrays in layers}
    score = next(name for name in blobs if name.startswith("fc8"))

    def conv(x, name, pad=0, step=1):
        weight, bias = blobs[name]
        return F.conv2d(x, holes(weight, step), bias.flatten(), padding=pad)

    kernel = 3 if window == 3 or fine else 2
    y, maps = x, [x]
    for stage in (1, 2, 3, 4, 5):
        for i in range(1, STAGES[stage - 1] + 1):
            step = 2 if stage == 5 else 1
            y = conv(y, f"conv{stage}_{i}", step, step).relu()
        y = F.max_pool2d(y, 3 if stage == 5 else kernel, 2 if stage < 4 else 1, 1, ceil_mode=True)
        maps.append(y)
    if window == 3:
        n = y.shape[1]
        y = F.conv2d(F.pad(y, [1] * 4), torch.full((n, 1, 3, 3), 1 / 9).double(), groups=n)
    pad, step = {3: (12, 12), 4: (6, 4), 7: (12, 4)}[window]
    y = conv(conv(conv(y, "fc6", pad, step).relu(), "fc7").relu(), score)
    y = zoom(y, 8)
    if kernel == 2:
        y = y[..., 7:-8, 7:-8]
    for name, image, factor in zip(MAPS if fine else (), maps, (1, 2, 4, 8, 8), strict=False):
        part = conv(conv(image, f"{name}_conv", 1).relu(), f"{name}_fc").relu()
        y = y + zoom(conv(part, f"{name}_ms"), factor)
    return y


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_deeplab_is_the_net_of_caffe(load, name):
    window, fine = NETWORKS[name]
    layers = deeplab_layers(window, fine, "fc8_voc12" if window == 3 else "fc8_pascal")
    model, ready, note = load(layers)
    assert (ready, note) == (True, f"{name} for 5 classes: for use")
    assert isinstance(model, DeepLab)
    assert not model.training
    side = 41 + model.first
    x = torch.from_numpy(30 * np.random.default_rng(0).standard_normal((2, 3, side, side + 16)))
    expected = evaluate(layers, x, window, fine)
    assert expected.std() > 0.1
    torch.testing.assert_close(model.double()(x), expected, rtol=1e-6, atol=1e-6)


def test_newer_files_give_the_same(load):
    layers = deeplab_layers(fine=True)
    expected, found = load(layers).model, load(layers, version=2).model
    for key, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], value)


def test_kinds_of_layers_do_not_matter(load):
    """The authors' Caffe numbers them otherwise; here, 43 is what DeconvNet's calls BN."""
    layers = [(name, "BN", arrays) for name, _, arrays in deeplab_layers()]
    assert load(layers).note.startswith("DeepLab-LargeFOV")


def test_converted_weights_segment_with_the_crf_of_the_authors(tmp_path):
    path = tmp_path / "train_iter_8000.caffemodel"
    path.write_bytes(save(deeplab_layers()))
    convert(path, tmp_path / "weights")
    card = read_card(tmp_path / "weights")
    assert (card.architecture, card.long_side, card.mode) == ("DeepLab", 500, "whole")
    assert card.license == "that of the file's authors; of DeepLab's: research use"
    segmenter = Segmenter.from_pretrained(tmp_path / "weights")
    assert segmenter.find_crf("auto") == CRF_PRESETS["deeplab1"]
    assert from_pretrained(tmp_path / "weights")[0].average


WRONG = {
    "no fc8": (deeplab_layers(without=["fc8_voc12"], fine=True), "has none of fc8_pascal"),
    "two fc8": (
        deeplab_layers() + deeplab_layers(score="fc8_coco")[-1:],
        "has fc8_voc12, fc8_coco of fc8_pascal, fc8_voc12 ...; wanted one",
    ),
    "no fc7": (deeplab_layers(without=["fc7"]), "lacks weights and biases of fc7"),
    "no pool2_fc": (
        deeplab_layers(fine=True, without=["pool2_fc"]),
        "lacks weights and biases of pool2_fc",
    ),
    "another window": (deeplab_layers(5), "has a window of 5 x 5 in fc6; DeepLab's are 3 x 3"),
    "not square": (
        deeplab_layers(fc6=[ones(9, 8, 1, 9), ones(1, 1, 1, 9)]),
        r"the weight of fc6 is \(9, 8, 1, 9\), not \(9, 8, 3, 3\)",
    ),
    "other widths": (
        deeplab_layers(fine=True, pool3_ms=[ones(4, 6, 1, 1), ones(1, 1, 1, 4)]),
        "does not fit DeepLab: the weight of pool3_ms",
    ),
    "not finite": (
        deeplab_layers(conv4_2=[ones(7, 7, 3, 3) * np.nan, ones(1, 1, 1, 7)]),
        "the weight of conv4_2 is not finite",
    ),
    "one class": (
        deeplab_layers(fc8_voc12=[ones(1, 9, 1, 1), ones(1, 1, 1, 1)]),
        r"the weight of fc8_voc12 is \(1, 9, 1, 1\)",
    ),
    "an unknown layer": (
        [*deeplab_layers(), ("fc9", "Convolution", [ones(1, 1, 1, 1)])],
        "a layer 'fc9' after conv1_1",
    ),
    "twice": (deeplab_layers() + deeplab_layers()[-1:], "a second layer 'fc8_voc12'"),
    "cut": (save(deeplab_layers())[:-9], "a field of"),
}


@pytest.mark.parametrize(("layers", "message"), WRONG.values(), ids=WRONG)
def test_refuses_layers_of_another_network(load, layers, message):
    with pytest.raises(WeightsError, match=message):
        load(layers)
