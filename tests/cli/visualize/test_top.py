"""`unpool visualize top`, on small networks."""

import json
from pathlib import Path

import pytest
import torch

from tests.cli.visualize.files import names
from unpool.visualize import load_model


def test_top(run, tiny):
    Path("in/3.png").write_bytes(b"broken")
    args = ["top", "in", "nowhere.png", "--weights", tiny, "--shown", 2, "--count", 4, "-o", "out"]
    code, out, err = run(*args, "--json")
    assert (code, err, len(out)) == (3, [], 1)
    result = json.loads(out[0])
    assert (result["images"], sorted(result["failed"])) == (5, ["in/3.png", "nowhere.png"])
    assert [(one["layer"], one["units"]) for one in result["layers"]] == [
        ("trunk.stages.0", 4),
        ("trunk.stages.1", 6),
        ("trunk", 6),
    ]
    figures = {
        f"{one['layer']}/{u:04}.png" for one in result["layers"] for u in (0, one["units"] // 2)
    }
    assert names("out") == {"index.html", "top.json"} | figures
    first = {name: (Path("out") / name).read_bytes() for name in names("out")}
    code, out, err = run(*args)  # over the first, in which nothing is found
    assert (code, len(err)) == (3, 2)
    assert out[-1] == "5 images, into out/index.html"
    assert {name: (Path("out") / name).read_bytes() for name in names("out")} == first


def test_top_of_labeled_data(run, data):
    model = ["--torch-model", "NETS:build", "--size", 24, "--layer", "head", "--layer", "deep"]
    args = ["top", "--data", data, *model, "--unit", 3, "--batch", 4, "-o", "out", "--quiet"]
    assert run(*args) == (0, [], [])
    result = json.loads(Path("out/top.json").read_text())
    assert len(result["images"]) == 10
    assert names("out") == {"index.html", "top.json", "deep/0003.png", "head/0003.png"}
    assert run(*args, "--split", "train")[0] == 0
    assert len(json.loads(Path("out/top.json").read_text())["images"]) < 10


def test_models_are_not_changed(run, nets, monkeypatch):
    made = []
    load = torch.nn.Module.eval
    monkeypatch.setattr(torch.nn.Module, "eval", lambda self: made.append(self) or load(self))
    assert run("top", "in", "--torch-model", "NETS:build", "--size", 24, "--shown", 1)[0] == 0
    fresh = load_model(torch_model=f"{nets}:build").model.state_dict()
    (model, *_) = made
    assert all(torch.equal(fresh[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("top - --weights TINY", "each is read twice; name files or folders"),
        ("top in --data in --weights TINY", "got images and --data; leave one of them out"),
        ("top in --split val --weights TINY", "got --split without --data"),
        ("top in --weights TINY --unit 1 --shown 3", "got --unit and --shown"),
    ],
)
def test_unusable_options(refused, tiny, args, message):
    assert message in refused(args.replace("TINY", tiny))
    assert not Path("top/index.html").exists()
