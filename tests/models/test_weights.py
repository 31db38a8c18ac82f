"""Saved weights come back bit for bit, and nothing else comes in."""

import hashlib
import json
import math
import os
import pickle
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import unpool.models.weights as weights
from unpool import cards
from unpool.cards import read_card
from unpool.errors import OptionError, WeightsError
from unpool.models import (
    FCN,
    MODELS,
    DeconvNet,
    GenerativeNet,
    from_pretrained,
    list_pretrained,
    load_vgg,
    save_pretrained,
)

TABLE = ((1, 4), (2, 6))
CARD = {"classes": ["background", "cat", "Größe"], "licenses": ["research use"]}


@pytest.fixture
def net(filled):
    return filled(DeconvNet(3, TABLE, 5, 16))


@pytest.fixture
def folder(net, tmp_path):
    return save_pretrained(net, tmp_path / "weights", CARD)


def rewrite(folder, change=None, tensors=None):
    """Change the card, or the tensors with a card that agrees with them."""
    card = json.loads((folder / "card.json").read_text("utf-8"))
    if tensors is not None:
        if isinstance(tensors, bytes):
            (folder / "model.safetensors").write_bytes(tensors)
        else:
            save_file(tensors, folder / "model.safetensors")
        data = (folder / "model.safetensors").read_bytes()
        card["sha256"] = hashlib.sha256(data).hexdigest()
    if change is not None:
        change(card)
    (folder / "card.json").write_text(json.dumps(card), "utf-8")
    return folder


# ---- there and back ------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [
    {"classes": 3, "trunk": TABLE, "code": 5, "size": 16},
    {"classes": 2, "trunk": [[1, 4]], "code": None, "size": 32, "eps": None},
])  # fmt: skip
def test_comes_back_bit_for_bit(filled, tmp_path, arguments):
    net = filled(DeconvNet(**arguments))
    card = {**CARD, "classes": ["background", "cat", "Größe"][: net.classes]}
    again, card = from_pretrained(save_pretrained(net, tmp_path, card))
    assert not again.training
    assert not any(t.is_meta for t in again.state_dict().values())
    assert list(again.state_dict()) == list(net.state_dict())
    for key, value in net.state_dict().items():
        assert again.state_dict()[key].dtype == value.dtype
        assert torch.equal(again.state_dict()[key], value)
    x = torch.randn(1, 3, 32, 36)
    assert torch.equal(again(x), net(x))
    assert (card.classes, card.more) == (
        CARD["classes"][: net.classes],
        {"licenses": CARD["licenses"]},
    )
    assert card.architecture == "DeconvNet"
    assert card.arguments == json.loads(json.dumps(net.arguments))


def test_loaded_networks_can_be_trained(folder):
    net, _ = from_pretrained(folder)
    net.train()(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_the_file_is_plain_safetensors_and_the_card_plain_json(net, folder):
    stored = load_file(folder / "model.safetensors")
    assert sorted(stored) == sorted(net.state_dict())
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in stored.items())
    card = json.loads((folder / "card.json").read_text("utf-8"))
    data = (folder / "model.safetensors").read_bytes()
    assert card["sha256"] == hashlib.sha256(data).hexdigest()
    assert read_card(folder).to_dict() == card


def test_computed_entries_override_given_ones(net, tmp_path):
    lies = {"format": 7, "architecture": "VGG", "arguments": {}, "sha256": "0", "note": "kept"}
    _, card = from_pretrained(save_pretrained(net, tmp_path, lies))
    assert (card.architecture, card.note, card.arguments["code"]) == ("DeconvNet", "kept", 5)
    assert card.to_dict()["format"] == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_fp32(net, tmp_path, dtype):
    expected = {k: v.to(dtype).float() for k, v in net.state_dict().items() if v.dim()}
    again, _ = from_pretrained(save_pretrained(net.to(dtype), tmp_path, CARD))
    for key, value in expected.items():
        assert again.state_dict()[key].dtype == torch.float32
        assert torch.equal(again.state_dict()[key], value)


def test_a_channels_last_network_is_saved(net, tmp_path):
    again, _ = from_pretrained(
        save_pretrained(net.to(memory_format=torch.channels_last), tmp_path, CARD)
    )
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in again.state_dict().items())


def test_files_without_the_counters_of_batches_serve(folder):
    tensors = load_file(folder / "model.safetensors")
    rewrite(folder, tensors={k: v for k, v in tensors.items() if "num_batches" not in k})
    net, _ = from_pretrained(folder)
    assert not any(t.is_meta for t in net.state_dict().values())


# ---- int8 ----------------------------------------------------------------------------------------


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


# ---- FCN -----------------------------------------------------------------------------------------

FIVE = ((1, 4),) * 5


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("form", [{}, {"code": None, "stride": 16, "pad": 1}])
def test_an_fcn_comes_back_bit_for_bit(filled, tmp_path, form, learned):
    net = filled(FCN(**{"classes": 3, "trunk": FIVE, "code": 5, "learned": learned, **form}))
    again, card = from_pretrained(save_pretrained(net, tmp_path, CARD))
    assert card.architecture == "FCN"
    assert card.arguments == json.loads(json.dumps(net.arguments))
    assert type(again) is FCN
    assert not again.training
    for (key, value), (name, parameter) in zip(
        net.named_parameters(), again.named_parameters(), strict=True
    ):
        assert (key, value.requires_grad) == (name, parameter.requires_grad)
        assert torch.equal(value, parameter)
    x = torch.randn(1, 3, 40, 36)
    assert torch.equal(again(x), net(x))


def test_int8_leaves_interpolation_exact(filled, tmp_path):
    net = filled(FCN(3, FIVE, 5))
    net.score["upscore2"].reset_parameters()
    again, _ = from_pretrained(save_pretrained(net, tmp_path, CARD, int8=True))
    stored = load_file(tmp_path / "model.safetensors")
    for key, value in net.state_dict().items():
        filters = value.dim() == 4 and "upscore" not in key
        assert (stored[key].dtype == torch.int8) == filters, key
        assert torch.equal(again.state_dict()[key], value) != filters, key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 12}, "arguments that do not fit: got stride=12"),
        ({"stride": "8"}, "arguments that do not fit: got stride=8"),
        ({"stride": 8.0}, "arguments that do not fit: got stride=8.0"),
        ({"pad": 100.0}, "arguments that do not fit: got pad=100.0"),
        ({"trunk": [[1, 1]] * 70, "stride": 2**70, "pad": 2**80}, "arguments that do not fit"),
        ({"trunk": [[1, 1]] * 30, "stride": 2**30, "code": None}, "do not fit"),
        ({"window": "7"}, "arguments that do not fit"),
        ({"pad": 20}, "arguments that do not fit: got pad=20 with window=7: the scores would not"),
        ({"size": 32}, "arguments that do not fit: .*'size'"),
        ({"stride": 16}, r"score\.upscore16\.weight is missing; score\.score_pool3\.bias is not"),
    ],
)
def test_cards_of_an_fcn_must_make_sense(filled, tmp_path, change, message):
    folder = save_pretrained(filled(FCN(3, FIVE, 5)), tmp_path, CARD)
    with pytest.raises(WeightsError, match=message):
        from_pretrained(rewrite(folder, lambda card: card["arguments"].update(change)))


# ---- whole or not at all -------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["tensors", "digest", "card"])
def test_a_failure_in_the_middle_leaves_the_old_files(net, folder, monkeypatch, fault):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    card = dict(CARD)

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left on the device")

    if fault == "tensors":
        monkeypatch.setattr(weights, "save_file", fail)
    elif fault == "digest":
        monkeypatch.setattr(weights, "sha256", lambda path: fail(None, path, None))
    else:
        card["figures"] = {"miou": np.float32(1)}
    with pytest.raises(WeightsError if fault == "card" else OSError):
        save_pretrained(net, folder, card)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize("value", [np.float32(1), {1, 2}])
def test_a_card_is_plain(net, tmp_path, value):
    with pytest.raises(WeightsError, match="got a card with a value that JSON cannot hold"):
        save_pretrained(net, tmp_path / "new", {"figures": {"miou": value}})
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_follow_the_umask(net, tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        save_pretrained(net, tmp_path, CARD)
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_only_known_models_are_saved(tmp_path):
    class Other(DeconvNet):
        pass

    for model in (nn.Conv2d(1, 1, 1), Other(2, TABLE, None, 32)):
        with pytest.raises(
            WeightsError, match=r"got a (Conv2d|Other); weights are saved of Deconv"
        ):
            save_pretrained(model, tmp_path, CARD)
    assert list(MODELS) == [
        "DeconvNet",
        "FCN",
        "SegNet",
        "SegNetBasic",
        "DeepLab",
        "CRFRNN",
        "DecoupledNet",
        "AlexNet",
        "ZFNet",
        "VGG",
        "SqueezeNet",
        "GenerativeNet",
        "SparseCoder",
        "CRCNet",
        "IRDNet",
        "BlindNet",
        "MSResNet",
        "SRN",
    ]


# ---- damaged and hostile -------------------------------------------------------------------------


def test_unknown_names_list_the_known_ones(monkeypatch, tmp_path):
    monkeypatch.setattr(cards, "list_pretrained", lambda: ["cars", "objects"])
    with pytest.raises(
        WeightsError, match=r"got weights 'object'; wanted a folder .*package \(cars, objects\)"
    ):
        from_pretrained("object")
    monkeypatch.setattr(cards, "list_pretrained", list)
    with pytest.raises(WeightsError, match=r"\(none\)"):
        from_pretrained(tmp_path)
    path = tmp_path / "net.caffemodel"
    with pytest.raises(
        WeightsError, match=r"net\.caffemodel, which does not exist; check the path"
    ):
        from_pretrained(path)
    path.touch()
    with pytest.raises(WeightsError, match=r"convert it first: unpool convert .*\.caffemodel FOL"):
        from_pretrained(path)


def test_every_shipped_name_loads():
    for name in list_pretrained():
        net, card = from_pretrained(name)
        if isinstance(net, GenerativeNet):
            assert len(card.styles) == len(card.more["attribution"]) == net.styles
        else:
            assert len(card.classes) == net.classes


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


def test_a_folder_without_tensors_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"card\.json but cannot use model\.safetensors"):
        from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("seg-score-voc.bias"), "seg-score-voc.bias is missing"),
        (lambda t: t.update(other=torch.zeros(2)), "other is not wanted"),
        (
            lambda t: t.update({"seg-score-voc.bias": torch.zeros(4)}),
            r"seg-score-voc\.bias is \(4,\), wanted \(3,\)",
        ),
        (
            lambda t: t.update({"seg-score-voc.bias": torch.zeros(3, dtype=torch.int64)}),
            r"bias is \(3,\) of integers, wanted \(3,\)",
        ),
        (lambda t: t.clear(), r"conv1_1\.weight is missing; .*\(and \d+ more\); pass the weights"),
    ],
)
def test_tensors_must_fit_exactly(folder, change, message):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    with pytest.raises(WeightsError, match=message):
        from_pretrained(rewrite(folder, tensors=tensors))


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


@pytest.mark.parametrize("name", ["format", "architecture", "arguments", "sha256"])
def test_cards_must_be_whole(folder, name):
    with pytest.raises(WeightsError, match=rf"the card of .* lacks {name}; copy it again"):
        from_pretrained(rewrite(folder, lambda card: card.pop(name)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "is of format 2; this version reads 1"),
        ({"format": "1"}, "lacks format"),
        ({"architecture": "FCN8s"}, "architecture 'FCN8s'; this version knows DeconvNet, FCN"),
        ({"architecture": ["DeconvNet"]}, "lacks architecture"),
        ({"sha256": 5}, "lacks sha256"),
        ({"arguments": [3]}, "lacks arguments"),
        ({"arguments": {"width": 3}}, "arguments that do not fit: .*'width'"),
        ({"arguments": {"classes": 1}}, "arguments that do not fit: got classes=1"),
        ({"arguments": {"classes": "3"}}, "arguments that do not fit"),
        ({"arguments": {"trunk": [[1]]}}, "do not fit: got the trunk table"),
        ({"arguments": {"trunk": 3}}, "do not fit: got the trunk table"),
        ({"arguments": {"code": 1e9}}, "arguments that do not fit"),
        ({"arguments": {"size": 10**12}}, "got size 1000000000000 .*; wanted pixels, 1 to 4096"),
        ({"arguments": {"code": 10**6, "size": 4096}}, "parameters; wanted at most"),
        ({"arguments": {"code": 10**400}}, "arguments that do not fit"),
        ({"arguments": {"classes": 0.5}}, "arguments that do not fit: got classes=0.5"),
        ({"arguments": {"eps": "1e-9"}}, "arguments that do not fit: got eps='1e-9'"),
        ({"arguments": {"eps": -1e-9}}, "arguments that do not fit: got eps=-1e-09"),
        ({"arguments": {"eps": 2**64}}, "arguments that do not fit: got eps=184"),
        ({"arguments": {"trunk": [[10**6, 4]]}}, "at most 16 rows and 1000 layers"),
        ({"arguments": {"trunk": [[1, 4]] * 17}}, "at most 16 rows and 1000 layers"),
        ({"arguments": {"trunk": [[1, 2.5]]}}, "do not fit: got the trunk table"),
        ({"arguments": {"trunk": [[1, 10**12]]}}, "arguments that do not fit"),
        ({"arguments": {"trunk": [[1, math.inf]]}}, "has NaN, Infinity, or entries"),
        ({"figures": {"miou": math.nan}}, "has NaN, Infinity, or entries"),
        (
            {"figures": {"a": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}},
            "more than 32",
        ),
        ({"long_side": 10**6}, "got long_side 1000000 .*; wanted pixels, 1 to 4096"),
        ({"arguments": {"classes": 4}}, r"seg-score-voc\.weight is \(3, 4, 1, 1\), wanted \(4, 4"),
    ],
)
def test_cards_must_make_sense(folder, change, message):
    base = {"classes": 3, "trunk": TABLE, "code": 5, "size": 16}
    if isinstance(change.get("arguments"), dict):
        change = {"arguments": base | change["arguments"], "classes": None}
    with pytest.raises(WeightsError, match=message):
        from_pretrained(rewrite(folder, lambda card: card.update(change)))


@pytest.mark.parametrize(
    "data",
    [b"", b"[1, 2]", b"5", b"null", b'"card"', b"{", b'{"format": "\xff"}', b"[" * 100_000],
    ids=["empty", "list", "number", "null", "string", "cut", "latin-1", "deep"],
)
def test_cards_must_be_json_objects(folder, data):
    (folder / "card.json").write_bytes(data)
    with pytest.raises(WeightsError, match=r"card.* again"):
        from_pretrained(folder)


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("VGG", {"trunk": [[1, 1]] * 16, "size": 100}),
        ("VGG", {"trunk": [[1, 1]] * 40, "size": 100}),
        ("ZFNet", {"widths": [4] * 10**5}),
        ("SqueezeNet", {"stages": [[[1, 1]]] * 16}),
        ("SqueezeNet", {"stages": [[[1, 1]] * 10**5]}),
        ("FCN", {"window": 10**6 + 1}),
        ("FCN", {"classes": 10**6, "learned": True}),
        ("GenerativeNet", {"size": 2**13, "widths": [10**5] * 20}),
        ("GenerativeNet", {"styles": 10**18}),
        ("AlexNet", {"code": 10**9, "dropout": 10**400}),
    ],
)
def test_absurd_networks_are_refused_before_they_are_built(folder, architecture, arguments):
    def change(card):
        card.update(architecture=architecture, arguments=arguments, classes=None)

    rewrite(folder, change)
    with pytest.raises(WeightsError):  # minutes or a crash, if they were built
        from_pretrained(folder)


def test_a_file_larger_than_its_network_is_not_read(folder):
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(2**40)  # a sparse file of a terabyte
    with pytest.raises(WeightsError, match="of 1099511627776 bytes, more than the network's"):
        from_pretrained(folder)


@pytest.mark.parametrize("name", ["card.json", "model.safetensors"])
def test_pipes_are_refused(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(WeightsError):
        from_pretrained(folder)


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


# ---- pickles -------------------------------------------------------------------------------------


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


def test_a_network_is_not_built_larger_than_the_memory():
    small = weights.build_network(DeconvNet, 2, TABLE, None, 16)
    assert not any(value.is_meta for value in small.state_dict().values())
    for sizes in ((2, "vgg16", 4096, 4096), (2, "vgg16", 10**9, 224), (2, "vgg16", 10**400, 224)):
        with pytest.raises(OptionError):
            weights.build_network(DeconvNet, *sizes)
