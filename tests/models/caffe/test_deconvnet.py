"""DeconvNet and VGG-16 from Caffe files, against plain functions of the blobs."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.caffe.files import KINDS, Net, attempt, save, small
from tests.models.caffe.nets import FULL, NARROW, deconvnet, evaluate, narrow, ones, stream, vgg
from unpool.errors import OptionError, WeightsError


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
        "a layer 'upsample' after conv1_1, bn1_1",
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
from unpool.models.caffe import load_caffemodel
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
