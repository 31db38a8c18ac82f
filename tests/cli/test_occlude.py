"""`unpool visualize occlude` and `unpool bench occlusion`, on small networks."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unpool.bench import occlusion
from unpool.cli import main
from unpool.models import DeconvNet, ZFNet, save_pretrained
from unpool.visualize import load_model, occlude, occlude_region

NETS = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )

def smooth():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, 2), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(294, 4)
    )

class Tells(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = build()

    def forward(self, x):
        return {"scores": self.net(x), "maps": x}
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, filled) -> str:
    net = filled(DeconvNet(3, ((1, 4), (1, 6)), None, 32))
    told = {"classes": ["background", "cat", "dog"]}
    return str(save_pretrained(net, tmp_path_factory.mktemp("occluded") / "tiny", told))


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path(f"chain_{tmp_path.name}.py").write_text(NETS)
    coarse = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((50, 40)).save("a.png")

    def run(*args):
        code = main(["visualize", "occlude", *(str(a) for a in args)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


def seen(loaded, image="a.png"):
    return loaded.prepare([loaded.preprocessing.crop(np.array(Image.open(image)))])


def test_a_classifier(run, tmp_path):
    Path("names.txt").write_text("ant\nbee\ncat\ndog\n")
    Path("bad.png").write_text("no image")
    model = f"chain_{tmp_path.name}:build"
    shape = ["--size", 32, "--occluder", 10, "--stride", 6, "--class", "cat", "--layer", 3]
    options = ["--torch-model", model, *shape, "--classes", "names.txt", "-o", "out"]
    code, out, err = run("a.png", "bad.png", *options, "--json")
    assert (code, err) == (3, [])
    first, second = map(json.loads, out)
    assert (second["source"], "error" in second) == ("bad.png", True)
    assert (first["name"], first["class"], first["exact incremental"]) == ("cat", 2, "yes")
    loaded = load_model(torch_model=model, size=32, device="cpu")
    wanted = occlude(loaded.model, seen(loaded), target=2, layer="3", window=10, stride=6)
    told = json.loads(Path(first["facts"]).read_text())
    assert np.allclose(told["values"], wanted.values, rtol=1e-5)
    assert (told["unit"], told["layer"]) == (wanted.unit, "3")
    assert first["lowest"] == told["lowest"]
    assert {p.name for p in Path("out").iterdir()} == {"a.occlusion.png", "a.occlusion.json"}
    code, out, err = run("a.png", *options)
    assert (code, len(out)) == (0, 1)
    assert out[0].startswith("a.png: cat, ")
    assert "out/a.occlusion.png" in out[0]


def test_defaults_take_the_last_maps_and_the_most_probable_class(run, tmp_path):
    save_pretrained(ZFNet(4, (4, 4, 4, 4, 4), 8, 64), "zf", {"classes": ["a", "b", "c", "d"]})
    code, out, err = run("a.png", "--weights", "zf", "--json")
    assert (code, err) == (0, [])
    told = json.loads(Path(json.loads(out[0])["facts"]).read_text())
    assert (told["layer"], told["occluder"], told["stride"]) == ("features.relu5", [13, 13], [6, 6])
    assert told["class"] == told["label"]


def test_a_network_that_segments(run, tiny):
    options = ["--weights", tiny, "--occluder", 12, "-o", "out"]
    code, out, err = run("a.png", *options, "--json")
    loaded = load_model(tiny, device="cpu")
    wanted = occlude_region(loaded.model, seen(loaded), window=12)
    record = json.loads(out[0])
    told = json.loads(Path(record["facts"]).read_text())
    assert (code, err) == (0, [])
    assert record["name"] == ["background", "cat", "dog"][wanted.target]
    assert np.allclose(np.array(told["iou"], float), wanted.iou.numpy(), equal_nan=True)
    assert Path(record["figure"]).exists()
    code, out, err = run("a.png", *options)
    assert "IoU 1" in out[0]


def test_a_network_without_rules(run, tmp_path):
    options = ["--torch-model", f"chain_{tmp_path.name}:smooth", "--size", 32, "--occluder", 16]
    options += ["--layer", 2]
    code, out, err = run("a.png", *options)
    assert (code, len(out), len(err)) == (0, 1, 1)
    assert err[0].startswith("unpool: no projection: the model calls gelu, ")
    assert "pass --activations gelu=relu to treat" in err[0]
    code, out, err = run("a.png", *options, "--json")
    assert (code, err) == (0, [])
    assert "gelu" in json.loads(out[0])["unprojected"]
    for more in (["--activations", "gelu=relu"], ["--rule", "saliency"]):
        code, out, err = run("a.png", *options, *more, "--json")
        assert (code, err, json.loads(out[0])["unprojected"]) == (0, [], "")


def test_a_network_that_tells_more_than_scores(run, tmp_path):
    options = ["--torch-model", f"chain_{tmp_path.name}:Tells", "--size", 32, "--occluder", 16]
    code, out, err = run("a.png", *options, "--json")
    assert (code, err) == (0, [])
    record = json.loads(out[0])
    plain = ["--torch-model", f"chain_{tmp_path.name}:build", *options[2:]]
    wanted = json.loads(run("a.png", *plain, "--json")[1][0])
    assert record["value"] == pytest.approx(wanted["value"], rel=1e-5)
    assert record["exact incremental"] == "no"


def test_a_network_that_needs_another_size(run, tmp_path):
    model = ["--torch-model", f"chain_{tmp_path.name}:smooth", "--size", 40]
    code, out, err = run("a.png", *model, "-o", "out")
    assert (code, out, len(err)) == (2, [], 1)
    assert "the model cannot be run on (1, 3, 40, 40) float32" in err[0]
    assert "set --size N" in err[0]


def test_list_layers(run, tmp_path):
    code, out, _ = run(
        "--torch-model", f"chain_{tmp_path.name}:build", "--size", 32, "--list-layers"
    )
    assert code == 0
    assert "MaxPool2d" in "\n".join(out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class", "bird"], "got class 'bird'"),
        (["--class", 9], "class 9; the model has 0 to 3"),
        (["--layer", "8"], "got layer '8', which the model does not have"),
        (["--layer", "7"], "wanted maps (C, h, w)"),
        (["--rule", "zeiler"], "got rule 'zeiler'"),
        (["--activations", "relu", "--activations", "off"], "got --activations off"),
        (["--occluder", 40], "an occluder of 40 x 40 for an image of 32 x 32"),
        (["--occluder", 4, "--stride", 5], "a stride of 5 x 5 with an occluder of 4 x 4"),
        (["--classes", "a.png"], "got --classes a.png, which is no text"),
        (["--classes", "none.txt"], "'none.txt' does not exist"),
    ],
)
def test_mistakes_are_told_in_a_line(run, tmp_path, options, message):
    model = ["--torch-model", f"chain_{tmp_path.name}:build", "--size", 32]
    code, out, err = run("a.png", *model, *options, "-o", "out")
    assert (code, out, len(err)) == (2, [], 1)
    assert message in err[0]
    assert not Path("out").exists()


def test_mistakes_with_a_network_that_segments(run, tiny):
    code, _, err = run("a.png", "--weights", tiny, "--layer", "trunk")
    assert (code, "got --layer for a network that segments" in err[0]) == (2, True)
    code, _, err = run("a.png", "--weights", tiny, "--rule", "guided")
    assert (code, "got --rule for a network that segments" in err[0]) == (2, True)
    code, out, err = run("a.png", "--weights", tiny, "--class", "200", "--json")
    assert code == 3
    assert "class 200 is not found" in json.loads(out[0])["error"]


# ---- the benchmark -------------------------------------------------------------------------------

SMALL = {"size": 32, "window": 8, "stride": 4, "trunk": ((1, 4), (1, 4)), "code": 8}


def test_bench(capsys, monkeypatch):
    monkeypatch.setattr(occlusion, "measure", partial(occlusion.measure, **SMALL))
    assert main(["bench", "occlusion", "--rounds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["subject"], found["rounds"]) == ("occlusion", 2)
    assert found["positions"] == {"incremental": 49, "others": 16, "all": 49}
    assert found["different"] < 1e-5
    seconds = found["seconds_per_position"]
    assert min(found["ratio_plain"], *(s["low"] for s in seconds.values())) > 0
    if found["ratio_captum"] is not None:
        assert list(seconds) == ["incremental", "plain", "captum 1", "captum 8"]
        assert found["captum"] in seconds
    assert main(["bench", "occlusion", "--rounds", "1", "--full"]) == 0
    assert "s a position" in capsys.readouterr().out


def test_bench_without_captum(monkeypatch):
    monkeypatch.setattr(occlusion, "find_spec", lambda name: None)
    found = occlusion.measure(1, full=True, **SMALL)
    assert (found["captum"], found["ratio_captum"]) == ("not installed: skipped", None)
    assert found["positions"]["others"] == 49
    assert torch.get_default_dtype() == torch.float32
