"""Folders of weights from Caffe files and from other folders."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.models.caffe.files import save
from tests.models.test_classifiers import SMALL
from unpool.cli import main
from unpool.data.layouts import VOC_CLASSES
from unpool.errors import OptionError, WeightsError
from unpool.models import FCN, DeconvNet, from_pretrained, save_pretrained
from unpool.models.caffe import load_caffemodel
from unpool.models.convert import convert
from unpool.segment.segmenter import Segmenter

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
    assert card.license == "that of the file's authors"
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


def test_a_card_with_arguments_that_do_not_fit_is_refused(tmp_path):
    folder = save_pretrained(SMALL["ZFNet"](), tmp_path, {})
    card = json.loads((folder / "card.json").read_text())
    for name, value in (("size", 10), ("widths", [4, 6]), ("groups", 2), ("classes", "many")):
        changed = {**card, "arguments": {**card["arguments"], name: value}}
        (folder / "card.json").write_text(json.dumps(changed))
        with pytest.raises(WeightsError, match="has arguments that do not fit"):
            from_pretrained(folder)
