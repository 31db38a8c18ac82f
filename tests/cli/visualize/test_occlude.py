"""`unpool visualize occlude`, on small networks."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unpool.models import DeconvNet, ZFNet, save_pretrained
from unpool.visualize import load_model, occlude, occlude_region


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, filled) -> str:
    net = filled(DeconvNet(3, ((1, 4), (1, 6)), None, 32))
    card = {"classes": ["background", "cat", "dog"]}
    return str(save_pretrained(net, tmp_path_factory.mktemp("occluded") / "tiny", card))


@pytest.fixture
def run(run):
    """Run the command; returns the code and both streams."""
    Path("in/0.png").rename("a.png")
    return lambda *args: run("occlude", *args)


def seen(loaded, image="a.png"):
    return loaded.prepare([loaded.preprocessing.crop(np.array(Image.open(image)))])


def test_a_classifier(run, nets):
    Path("names.txt").write_text("ant\nbee\ncat\ndog\n")
    Path("bad.png").write_text("no image")
    model = "NETS:chain"
    shape = ["--size", 32, "--occluder", 10, "--stride", 6, "--class", "cat", "--layer", 3]
    options = ["--torch-model", model, *shape, "--classes", "names.txt", "-o", "out"]
    code, out, err = run("a.png", "bad.png", *options, "--json")
    assert (code, err) == (3, [])
    first, second = map(json.loads, out)
    assert (second["source"], "error" in second) == ("bad.png", True)
    assert (first["name"], first["class"], first["exact incremental"]) == ("cat", 2, "yes")
    loaded = load_model(torch_model=f"{nets}:chain", size=32, device="cpu")
    wanted = occlude(loaded.model, seen(loaded), target=2, layer="3", window=10, stride=6)
    result = json.loads(Path(first["facts"]).read_text())
    assert np.allclose(result["values"], wanted.values, rtol=1e-5)
    assert (result["unit"], result["layer"]) == (wanted.unit, "3")
    assert first["lowest"] == result["lowest"]
    assert {p.name for p in Path("out").glob("[!.]*")} == {"a.occlusion.png", "a.occlusion.json"}
    code, out, err = run("a.png", *options, "--redo")
    assert (code, len(out)) == (0, 1)
    assert out[0].startswith("a.png: cat, ")
    assert "out/a.occlusion.png" in out[0]


def test_defaults_take_the_last_maps_and_the_most_probable_class(run):
    save_pretrained(ZFNet(4, (4, 4, 4, 4, 4), 8, 64), "zf", {"classes": ["a", "b", "c", "d"]})
    code, out, err = run("a.png", "--weights", "zf", "--json")
    assert (code, err) == (0, [])
    result = json.loads(Path(json.loads(out[0])["facts"]).read_text())
    assert (result["layer"], result["occluder"]) == ("features.relu5", [13, 13])
    assert result["stride"] == [6, 6]
    assert result["class"] == result["label"]


def test_a_network_that_segments(run, tiny):
    options = ["--weights", tiny, "--occluder", 12, "-o", "out"]
    code, out, err = run("a.png", *options, "--json")
    loaded = load_model(tiny, device="cpu")
    wanted = occlude_region(loaded.model, seen(loaded), window=12)
    record = json.loads(out[0])
    result = json.loads(Path(record["facts"]).read_text())
    assert (code, err) == (0, [])
    assert record["name"] == ["background", "cat", "dog"][wanted.target]
    assert np.allclose(np.array(result["iou"], float), wanted.iou.numpy(), equal_nan=True)
    assert Path(record["figure"]).exists()
    code, out, err = run("a.png", *options)
    assert "IoU 1" in out[0]


def test_a_network_without_rules(run):
    options = ["--torch-model", "NETS:smooth_chain", "--size", 32, "--occluder", 16]
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


def test_a_network_with_several_outputs(run):
    options = ["--torch-model", "NETS:Several", "--size", 32, "--occluder", 16]
    code, out, err = run("a.png", *options, "--json")
    assert (code, err) == (0, [])
    record = json.loads(out[0])
    plain = ["--torch-model", "NETS:chain", *options[2:]]
    wanted = json.loads(run("a.png", *plain, "--json")[1][0])
    assert record["value"] == pytest.approx(wanted["value"], rel=1e-5)
    assert record["exact incremental"] == "no"


def test_a_network_that_needs_another_size(run):
    model = ["--torch-model", "NETS:smooth_chain", "--size", 40]
    code, out, err = run("a.png", *model, "-o", "out")
    assert (code, out, len(err)) == (2, [], 1)
    assert "the model cannot be run on (1, 3, 40, 40) float32" in err[0]
    assert "set --size N" in err[0]


def test_list_layers(run):
    code, out, _ = run("--torch-model", "NETS:chain", "--size", 32, "--list-layers")
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
        (["--classes", "a.png"], "got a.png, which is not text in UTF-8"),
        (["--classes", "none.txt"], "'none.txt' does not exist"),
    ],
)
def test_unusable_options(run, options, message):
    model = ["--torch-model", "NETS:chain", "--size", 32]
    code, out, err = run("a.png", *model, *options, "-o", "out")
    assert (code, out, len(err)) == (2, [], 1)
    assert message in err[0]
    assert not Path("out").exists()


def test_unusable_options_of_a_network_that_segments(run, tiny):
    code, _, err = run("a.png", "--weights", tiny, "--layer", "trunk")
    assert (code, "got --layer for a network that segments" in err[0]) == (2, True)
    code, _, err = run("a.png", "--weights", tiny, "--rule", "guided")
    assert (code, "got --rule for a network that segments" in err[0]) == (2, True)
    code, out, err = run("a.png", "--weights", tiny, "--class", "200", "--json")
    assert code == 3
    assert "class 200 is not found" in json.loads(out[0])["error"]
