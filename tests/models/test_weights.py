"""Saved weights come back bit for bit, and nothing else comes in."""

import hashlib
import json
import math
import os
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import unpool.models.weights as weights
from tests.models.saved import CARD, TABLE, rewrite
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
    save_pretrained,
)
from unpool.models.deblur import Deblur

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
        WeightsError,
        match=r"got weights 'object'; wanted a folder .* mean 'objects'\? .* cars, objects",
    ):
        from_pretrained("object")
    monkeypatch.setattr(cards, "list_pretrained", list)
    with pytest.raises(WeightsError, match="choices are none"):
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
        elif isinstance(net, Deblur):
            assert (card.mode, card.classes) == ("restore", None)
        else:
            assert len(card.classes) == net.classes


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


def test_a_network_is_not_built_larger_than_the_memory():
    small = weights.build_network(DeconvNet, 2, TABLE, None, 16)
    assert not any(value.is_meta for value in small.state_dict().values())
    for sizes in ((2, "vgg16", 4096, 4096), (2, "vgg16", 10**9, 224), (2, "vgg16", 10**400, 224)):
        with pytest.raises(OptionError):
            weights.build_network(DeconvNet, *sizes)
