"""FCN from Caffe files, against plain functions of the blobs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.models.caffe.nets import FULL, NARROW, STAGES, deconvnet, narrow, ones, stream, values
from unpool.errors import WeightsError
from unpool.models.caffe import load_caffemodel

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
    "of DeconvNet": (
        changed(more=narrow()[-1:]),
        "a layer 'seg-score-voc' after conv1_1, .* give a file of",
    ),
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
        "the bias of score-pool4 is not finite",
    ),
    "of other kernel": (
        changed({"score4": [ones(5, 5, 6, 6)]}),
        r"the weight of score4 is \(5, 5, 6, 6\), not \(5, 5, 4, 4\)",
    ),
    "of channels": (changed({"upsample": [ones(5, 1, 16, 16)]}), r"\(5, 1, 16, 16\), not"),
    "of other fc6": (
        changed({"fc6": [ones(9, 8, 3, 3), ones(1, 1, 1, 9)]}),
        r"the weight of fc6 is \(9, 8, 3, 3\), not \(9, 8, 7, 7\)",
    ),
    "of one class": (
        changed({"score-fr": [ones(1, 9, 1, 1), ones(1, 1, 1, 1)]}),
        r"does not fit FCN: the weight of score-fr is \(1, 9, 1, 1\), not \(2",
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
    with pytest.raises(WeightsError, match=r"upsample is \(1, 1, 1, 100000\), not"):
        load(layers, version=2)


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
