"""Files of tensors: what is read is finite and not larger than the file."""

import json
import math
import os
import pickle
import random
import zipfile
from contextlib import suppress

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.models.saved import CARD, TABLE, rewrite
from tests.models.test_classifiers import SMALL
from unpool.errors import WeightsError
from unpool.models import VGG, DeconvNet, from_pretrained, load_tensors, load_vgg, save_pretrained
from unpool.models.tensors import load_torch, read_tensors

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.count": torch.tensor([5, 6])}


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_are_read_as_fp32_and_integers_as_they_are(tmp_path, name, dtype):
    state = {**STATE, "a.weight": STATE["a.weight"].to(dtype)}
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    found = read_tensors(tmp_path / name)
    assert list(found) == list(load_file(tmp_path / name) if "safe" in name else state)
    assert found["a.weight"].dtype == torch.float32
    assert all(torch.equal(found[k], v) for k, v in STATE.items())


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize(
    "value", [torch.nan, torch.inf, -torch.inf, torch.tensor(1e39, dtype=torch.float64)]
)
def test_values_that_are_not_finite_in_fp32(tmp_path, name, value):
    state = {**STATE, "bad": torch.zeros(3, 4, dtype=torch.float64)}
    state["bad"][1, 2] = value
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    with pytest.raises(WeightsError, match="where bad is not finite"):
        read_tensors(tmp_path / name)


def test_a_variance_below_zero(tmp_path):
    norm = torch.nn.BatchNorm2d(3)
    save_file(norm.state_dict(), tmp_path / "a.safetensors")
    assert len(read_tensors(tmp_path / "a.safetensors")) == 5
    norm.running_mean[1], norm.running_var[1] = -6, -6  # the mean may be
    save_file(norm.state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="where running_var is a variance below zero; the file"):
        read_tensors(tmp_path / "a.safetensors")


def test_many_large_tensors_come_back_in_order(tmp_path):
    state = {f"{i:02}": torch.full((2**22,), float(i)) for i in range(9)}  # 16 MiB each
    save_file(state, tmp_path / "a.safetensors")
    found = read_tensors(tmp_path / "a.safetensors")
    assert list(found) == list(state)
    assert all(torch.equal(found[k], v) for k, v in state.items())


def test_a_hundred_thousand_names_are_refused_at_once(tmp_path):
    about = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({str(i): about for i in range(100_000)}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match="it has 100000 tensors, more than 10000"):
        read_tensors(path)


@pytest.mark.parametrize(
    "state",
    [
        {"a": torch.zeros(1).expand(10**12)},
        {f"{i}": view for i, view in enumerate([torch.zeros(1000).view(10, 100)] * 100)},
        {f"{i}": torch.zeros(0) for i in range(10_001)},
    ],
    ids=["expanded", "shared", "many"],
)
def test_tensors_larger_than_their_file(tmp_path, state):
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"or larger than|too many objects"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize("value", [torch.zeros(2).to_sparse(), torch.zeros(2, device="meta")])
def test_only_plain_tensors_are_taken(tmp_path, value):
    torch.save({"a": value}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="more than named tensors; save its state_dict"):
        read_tensors(tmp_path / "a.pth")


def repacked(source, target, compression):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))


def test_compressed_and_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(10**6)}, path)
    repacked(path, tmp_path / "stored.pth", zipfile.ZIP_STORED)
    assert torch.equal(load_torch(tmp_path / "stored.pth")["a"], torch.zeros(10**6))
    repacked(path, tmp_path / "packed.pth", zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="its parts are compressed"):
        read_tensors(tmp_path / "packed.pth")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="data/0 is damaged"):
        read_tensors(path)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_pipes_and_devices_are_refused(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(WeightsError, match="a pipe, device or socket"):
        read_tensors(tmp_path / name)
    with pytest.raises(WeightsError, match="a pipe, device or socket"):
        read_tensors("/dev/zero")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "legacy.pth"])
def test_damaged_files_give_tensors_or_an_error_of_the_package(tmp_path, name):
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization="legacy" not in name)
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content[: rng.choice([None, rng.randrange(len(content))])])
        with suppress(WeightsError):
            read_tensors(path)


def test_absurdly_large_values_are_refused(tmp_path):
    torch.save({"a": torch.tensor([1e9, -1e11])}, tmp_path / "a.pth")
    read_tensors(tmp_path / "a.pth")
    for value in (1e13, -1e38):
        torch.save({"a": torch.tensor([0, value])}, tmp_path / "a.pth")
        with pytest.raises(WeightsError, match="where a is not finite"):
            read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_nested_tuples_do_not_crash_python(tmp_path, legacy):
    deep = b"\x80\x02}(N" + b"\x85" * 1_000_000 + b"K\x01u."  # the key of a dictionary
    path = tmp_path / "a.pth"
    if legacy:
        torch.save({}, path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes().replace(b"\x80\x02}q\x00.", deep))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", deep)
            archive.writestr("a/version", "3")
    with pytest.raises(WeightsError, match="with too many objects; save its state_dict"):
        read_tensors(path)


def by_output(key, weight):
    """Rows of one output channel each; deconvolutions have theirs on axis 1."""
    rows = weight.transpose(0, 1) if "deconv" in key else weight
    return rows.reshape(rows.shape[0], -1)


def test_int8_is_within_half_a_step_of_each_output_channel(net, tmp_path):
    with torch.no_grad():  # channels of very different sizes
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight *= torch.logspace(-3, 2, layer.out_channels).view(-1, 1, 1, 1)
            if isinstance(layer, nn.ConvTranspose2d):
                layer.weight *= torch.logspace(-3, 2, layer.out_channels).view(1, -1, 1, 1)
    again, _ = from_pretrained(save_pretrained(net, tmp_path, CARD, int8=True))
    filters = 0
    for key, value in net.state_dict().items():
        got = again.state_dict()[key]
        if value.dim() != 4:
            assert torch.equal(got, value), key
            continue
        filters += 1
        rows = by_output(key, value)
        error = (by_output(key, got) - rows).abs().amax(1)
        half_step = rows.abs().amax(1) / 127 / 2
        assert (error <= half_step * (1 + 1e-4)).all(), key
        assert (error > 0).any(), key
    assert filters == 10
    stored = load_file(tmp_path / "model.safetensors")
    assert {v.dtype for v in stored.values() if v.dim() == 4 and v.numel() > 50} == {torch.int8}


def test_int8_is_a_quarter(filled, tmp_path):
    net = filled(DeconvNet(3, ((1, 32), (1, 64)), None, 32))
    sizes = [
        (save_pretrained(net, tmp_path / str(int8), CARD, int8=int8) / "model.safetensors")
        .stat().st_size for int8 in (False, True)
    ]  # fmt: skip
    assert sizes[1] < 0.4 * sizes[0]


def test_int8_stores_again_without_loss(net, tmp_path):
    once, _ = from_pretrained(save_pretrained(net, tmp_path / "1", CARD, int8=True))
    twice, _ = from_pretrained(save_pretrained(once, tmp_path / "2", CARD, int8=True))
    for key, value in once.state_dict().items():
        assert torch.allclose(twice.state_dict()[key], value, rtol=1e-5, atol=0)


def test_int8_of_a_silent_channel_is_silent(net, tmp_path):
    with torch.no_grad():
        net.score.weight[1] = 0
    again, _ = from_pretrained(save_pretrained(net, tmp_path, CARD, int8=True))
    assert not again.score.weight[1].any()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("way", ["torch", "torch-legacy", "pickle", "nested"])
def test_nothing_is_executed(tmp_path, way):
    path, trace = tmp_path / "vgg.pth", tmp_path / "executed"
    if way == "pickle":
        path.write_bytes(pickle.dumps(Bomb(trace)))
    else:
        state = {"features.0.weight": torch.zeros(4, 3, 3, 3), "features.0.bias": Bomb(trace)}
        if way == "nested":
            state = {"state": state}
        torch.save(state, path, _use_new_zipfile_serialization=way != "torch-legacy")
    with pytest.raises(
        WeightsError, match=r"cannot read .*vgg\.pth: it holds other things than tensors"
    ):
        load_vgg(DeconvNet(2, TABLE, None, 32), path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "state",
    [[torch.zeros(2)], {"state_dict": {"a": torch.zeros(2)}}, {"epoch": 3}, {0: torch.zeros(2)}, 5],
)
def test_only_named_tensors_are_taken(tmp_path, state):
    torch.save(state, tmp_path / "vgg.pth")
    with pytest.raises(WeightsError, match=r"more than named tensors; save its state_dict\(\)"):
        load_vgg(DeconvNet(2, TABLE, None, 32), tmp_path / "vgg.pth")


@pytest.mark.parametrize("data", [b"", b"\x80", b"garbage", b"PK\x03\x04", b"\x80\x02}q\x00."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_are_refused(tmp_path, data, suffix):
    path = tmp_path / f"vgg{suffix}"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"vgg\.(pth|safetensors)"):
        load_vgg(DeconvNet(2, TABLE, None, 32), path)


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_torch_files_are_refused(tmp_path, cut, legacy):
    path = tmp_path / "vgg.pth"
    state = {f"features.{i}.weight": torch.zeros(4, 3, 3, 3) for i in range(3)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(WeightsError, match=r"cannot read .*vgg\.pth: \S"):
        load_vgg(DeconvNet(2, TABLE, None, 32), path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(WeightsError, match="which is a folder; wanted a regular file"):
        load_vgg(DeconvNet(2, TABLE, None, 32), tmp_path)


@pytest.mark.parametrize("place", [0, 200, -1])
def test_altered_tensors_are_refused(folder, place):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        WeightsError, match=r"has sha256 .*… but its card says .*damaged or belongs"
    ):
        from_pretrained(folder)


@pytest.mark.parametrize(
    "scale", [torch.ones(2), torch.ones(9, 3, 4, 1, 1), torch.ones(7, 4, 1, 1)]
)
def test_scales_must_fit_their_filters(folder, scale):
    tensors = load_file(folder / "model.safetensors")
    tensors["seg-score-voc.weight::scale"] = scale
    with pytest.raises(WeightsError, match=r"cannot read .*expand"):
        from_pretrained(rewrite(folder, tensors=tensors))


@pytest.mark.parametrize("length", [0, 7, 8, 100, 3000, -1])
def test_truncated_tensors_are_refused(folder, length):
    data = (folder / "model.safetensors").read_bytes()[:length]
    with pytest.raises(WeightsError, match=r"cannot read .*model\.safetensors"):
        from_pretrained(rewrite(folder, tensors=data))


def test_headers_that_promise_too_much_are_refused(folder):
    header = b'{"a":{"dtype":"F32","shape":[1000000000,1000000000],"data_offsets":[0,4]}}'
    for size in (len(header), 2**62):
        data = size.to_bytes(8, "little") + header + b"\0\0\0\0"
        with pytest.raises(WeightsError, match="cannot read"):
            from_pretrained(rewrite(folder, tensors=data))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("int8", [False, True])
def test_weights_that_are_not_finite_are_refused(net, tmp_path, value, int8):
    folder = save_pretrained(net, tmp_path, CARD, int8=int8)
    tensors = load_file(folder / "model.safetensors")
    name = "seg-score-voc.weight::scale" if int8 else "seg-score-voc.weight"
    tensors[name][1, 0] = value
    with pytest.raises(WeightsError, match=r"where seg-score-voc\.weight is not finite"):
        from_pretrained(rewrite(folder, tensors=tensors))


def test_networks_that_diverged_are_not_saved(net, tmp_path):
    with torch.no_grad():
        net.score.weight[0] = math.nan
    with pytest.raises(WeightsError, match=r"seg-score-voc\.weight is not finite"):
        save_pretrained(net, tmp_path / "new", CARD)
    assert not (tmp_path / "new").exists()


def torchvision_names(net):
    """The state dict of a VGG as torchvision names it."""
    state = {}
    for place, (name, layer) in enumerate(net.features.named_children()):
        if name.startswith("conv"):
            state |= {f"features.{place}.{k}": v.clone() for k, v in layer.state_dict().items()}
    for i, name in ((0, "fc6"), (3, "fc7"), (6, "fc8")):
        layer = net.classifier.get_submodule(name)
        state |= {f"classifier.{i}.{k}": v.clone() for k, v in layer.state_dict().items()}
    return state


def test_vgg_takes_weights_by_the_names_of_torchvision(tmp_path):
    net, other = SMALL["VGG"]().eval(), SMALL["VGG"]().eval()
    state = torchvision_names(net)
    assert "features.5.weight" in state  # conv2_2: after conv, ReLU, pool, conv, ReLU
    save_file(state, tmp_path / "vgg.safetensors")
    wanted = ["conv1_1", "conv2_1", "conv2_2", "fc6", "fc7", "fc8"]
    assert load_vgg(other, tmp_path / "vgg.safetensors") == wanted
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(net(x), other(x))
    fewer = VGG(3, ((1, 4), (2, 6)), code=7, size=16)
    before = fewer.classifier.fc8.weight.clone()
    assert load_vgg(fewer, tmp_path / "vgg.safetensors") == wanted[:-1]
    assert torch.equal(fewer.classifier.fc8.weight, before)
    without = VGG(5, ((1, 4), (2, 6)), code=None, size=16)
    assert load_vgg(without, tmp_path / "vgg.safetensors") == wanted[:3]
    convolutions = {k: v for k, v in state.items() if k.startswith("features")}
    save_file(convolutions, tmp_path / "conv.safetensors")
    assert load_vgg(other, tmp_path / "conv.safetensors") == wanted[:3]
    with pytest.raises(WeightsError, match=r"got 3 VGG layers in .*; this trunk has 8"):
        load_vgg(VGG(5, "vgg11", 8, 32), tmp_path / "vgg.safetensors")


def test_tensors_are_taken_all_or_none(tmp_path):
    net, other = SMALL["SqueezeNet"](), SMALL["SqueezeNet"]()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    load_tensors(other, tmp_path / "net.pth")
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in net.state_dict().items())
    state = {k: torch.ones_like(v) for k, v in net.state_dict().items()}
    del state["classifier.1.bias"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(WeightsError, match=r"do not fit: classifier\.1\.bias is missing"):
        load_tensors(other, tmp_path / "less.pth")
    assert torch.equal(
        other.state_dict()["features.0.weight"], net.state_dict()["features.0.weight"]
    )
    with pytest.raises(WeightsError, match=r"features\.conv1\.weight is missing"):
        load_tensors(SMALL["ZFNet"](), tmp_path / "net.pth")
