"""`unpool visualize parts`, by a small coder."""

import json
from pathlib import Path

import pytest
import torch

from tests.cli.visualize.files import names
from unpool.models import SparseCoder, save_pretrained


@pytest.fixture
def coder(nets):
    torch.manual_seed(0)
    net = SparseCoder((4, 4), 5, lam=(0.2, 0.2), steps=4)
    return save_pretrained(net, "coder", {"long_side": 30})


def test_parts(run, coder):
    code, out, err = run("parts in --weights coder -o out --count 2")
    assert (code, err) == (0, [])
    assert out[0].split()[:2] == ["layer", "maps"]
    assert [line.split()[:2] for line in out[1:3]] == [["1", "4"], ["2", "4"]]
    assert out[-1] == f"6 images, into {Path('out/filters.png')}"
    sheets = {"filters.png", "layer1.png", "layer2.png", "parts.json"}
    assert names("out") == {*sheets, *(f"rebuilt/{i}.png" for i in range(6))}
    assert len(json.loads(Path("out/parts.json").read_text())["layers"][0][0]) == 2


def test_json_and_failures(run, coder):
    Path("in/1.png").write_bytes(b"")
    code, out, err = run("parts in nowhere.png --weights coder --long-side 20 -o out --json")
    assert (code, err) == (3, [])
    result = json.loads(out[0])
    assert (result["images"], set(result["failed"])) == (5, {"in/1.png", "nowhere.png"})
    assert [set(layer) for layer in result["layers"]] == [{"snr", "nonzeros"}] * 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("parts in", "got no --weights; wanted the folder of a sparse coder"),
        ("parts in --weights objects", "got objects, a DeconvNet; wanted a SparseCoder"),
        ("filters in --weights coder", "got coder, a sparse coder, whose filters"),
    ],
)
def test_unusable_options(refused, coder, args, message):
    assert message in refused(args)
