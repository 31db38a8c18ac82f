"""The commands of `unpool visualize`, on drawn images and small networks."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unpool.cli import main
from unpool.models import DeconvNet, save_pretrained
from unpool.visualize import load_model, project, to_images

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.act, self.pool = activation(), nn.MaxPool2d(3, 2)
        self.deep = nn.Conv2d(6, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.pool(self.act(self.stem(x)))
        x = nn.functional.relu(self.deep(x))
        return self.head(x.amax((2, 3)))

def build():
    torch.manual_seed(0)
    return Net(nn.ReLU)

def prepared():
    from unpool.visualize import Preprocessing

    return build(), Preprocessing(24, mean=(0.5,), std=(0.5, 0.5, 0.5))

def smooth():
    torch.manual_seed(0)
    return Net(nn.SiLU)
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, filled) -> str:
    net = filled(DeconvNet(3, ((1, 4), (1, 6)), None, 32))
    return str(save_pretrained(net, tmp_path_factory.mktemp("visualized") / "tiny", {}))


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command where there are images and models; gives the code and both streams."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path(f"nets_{tmp_path.name}.py").write_text(NETS)
    rng = np.random.default_rng(0)
    for i in range(6):
        coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Path("in").mkdir(exist_ok=True)
        Image.fromarray(coarse).resize((50, 40)).save(f"in/{i}.png")

    def run(*args):
        capsys.readouterr()
        code = main(["visualize", *(str(a).replace("NETS", f"nets_{tmp_path.name}") for a in args)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def refused(run):
    def refused(*args):
        code, out, err = run(*args)
        assert (code, out, len(err)) == (2, [], 1), (out, err)
        return err[0]

    return refused


def names(folder):
    return {p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file()}


def test_project(run, tiny):
    options = ["--weights", tiny, "--layer", "trunk.stages.1", "--unit", 3, "--unit", 1]
    code, out, err = run("project", "in/0.png", "in/1.png", *options, "-o", "out", "--json")
    assert (code, err) == (0, [])
    first, second = map(json.loads, out)
    assert (first["source"], second["source"]) == ("in/0.png", "in/1.png")
    wanted = {f"{i}.{end}" for i in (0, 1) for end in ("json", "input.png")}
    wanted |= {f"{i}.trunk.stages.1.{unit}.png" for i in (0, 1) for unit in (1, 3)}
    assert names("out") == wanted
    loaded = load_model(tiny, device="cpu")
    crop = np.array(Image.open(first["input"]))
    assert crop.shape == (32, 32, 3)
    for told in first["projections"]:
        found = project(loaded.model, loaded.prepare([crop]), told["layer"], told["unit"])
        assert told["value"] == pytest.approx(float(found.values))
        shown = np.array(Image.open(told["file"]))
        assert np.array_equal(shown, to_images(found.signal, order="BGR")[0])


def test_project_a_foreign_model(run):
    model = ["--torch-model", "NETS:prepared"]
    options = [
        "--place",
        "2,3",
        "--rule",
        "guided",
        "--from",
        "one",
        "--gray",
        "--overlap",
        "overwrite",
    ]
    code, out, err = run("project", "in/*.png", *model, *options, "--layer", "deep", "-o", "out")
    assert (code, err, len(out)) == (0, [], 6)
    assert all(" unit " in line and "at 2, 3: " in line for line in out)
    shown = np.array(Image.open("out/0.deep.png"))
    assert shown.shape == (24, 24, 3)
    assert (shown == shown[:, :, :1]).all()
    assert (shown != 128).any()
    assert run("project", "in/0.png", *model, "--place", "all", "--quiet") == (0, [], [])
    told = json.loads(Path("projected/0.json").read_text())
    assert told["options"] == {"place": "all"}
    assert told["model"].endswith(":prepared")
    assert [record["layer"] for record in told["projections"]] == ["act", "deep"]
    assert all(record["place"] is record["box"] is None for record in told["projections"])


def test_what_cannot_be_read_is_passed_over(run, tiny, monkeypatch):
    Path("in/1.png").write_bytes(Path("in/0.png").read_bytes()[:60])
    stdin = io.TextIOWrapper(io.BytesIO(Path("in/0.png").read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    args = ["project", "-", "in", "nowhere.png", "--weights", tiny, "--layer", "trunk", "-o", "out"]
    code, out, err = run(*args, "--json")
    assert (code, err) == (3, [])
    told = {record["source"]: record for record in map(json.loads, out)}
    assert set(told) == {"-", "nowhere.png", *(f"in/{i}.png" for i in range(6))}
    assert "does not exist" in told["nowhere.png"]["error"]
    assert "is broken or cut short" in told["in/1.png"]["error"]
    assert told["-"]["projections"][0]["file"] == "out/stdin.trunk.png"
    assert not any("1." in name for name in names("out"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    code, out, err = run(*args)
    assert (code, len(out), len(err)) == (3, 5, 3)


def test_no_input_is_written_over(refused, tiny):
    Path("out").mkdir()
    image = Path("out/0.trunk.png")
    image.write_bytes(Path("in/0.png").read_bytes())
    args = ["--weights", tiny, "--layer", "trunk", "-o", "out"]
    assert "would overwrite the input" in refused("project", "in/0.png", image, *args)
    assert names("out") == {"0.trunk.png"}


def test_functions_without_a_rule(run, refused):
    args = [
        "project",
        "in/0.png",
        "--torch-model",
        "NETS:smooth",
        "--size",
        "24",
        "--layer",
        "deep",
    ]
    assert "the model calls silu, for which this rule says nothing" in refused(*args)
    for given in (["silu=relu"], ["gradient"], ["silu=gradient", "gelu=relu"]):
        activations = [word for value in given for word in ("--activations", value)]
        assert run(*args, *activations, "-o", given[0])[0] == 0
    shown = [
        Path(f"{n}/0.deep.png").read_bytes() for n in ("silu=relu", "gradient", "silu=gradient")
    ]
    assert shown[0] != shown[1] == shown[2]
    assert "name a function in each" in refused(
        *args, "--activations", "silu=relu", "--activations", "relu"
    )


def test_top(run, tiny):
    Path("in/3.png").write_bytes(b"broken")
    args = ["top", "in", "nowhere.png", "--weights", tiny, "--shown", 2, "--count", 4, "-o", "out"]
    code, out, err = run(*args, "--json")
    assert (code, err, len(out)) == (3, [], 1)
    told = json.loads(out[0])
    assert (told["images"], sorted(told["failed"])) == (5, ["in/3.png", "nowhere.png"])
    assert [(one["layer"], one["units"]) for one in told["layers"]] == [
        ("trunk.stages.0", 4),
        ("trunk.stages.1", 6),
        ("trunk", 6),
    ]
    figures = {
        f"{one['layer']}/{u:04}.png" for one in told["layers"] for u in (0, one["units"] // 2)
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
    told = json.loads(Path("out/top.json").read_text())
    assert len(told["images"]) == 10
    assert names("out") == {"index.html", "top.json", "deep/0003.png", "head/0003.png"}
    assert run(*args, "--split", "train")[0] == 0
    assert len(json.loads(Path("out/top.json").read_text())["images"]) < 10


def test_layers_are_listed(run, tiny):
    code, out, err = run("top", "--list-layers", "--torch-model", "NETS:build", "--size", 24)
    assert (code, err) == (0, [])
    assert [line.split()[0] for line in out] == ["layer", "stem", "act", "pool", "deep", "head"]
    code, out, _ = run("project", "--list-layers", "--weights", tiny, "--json")
    assert code == 0
    told = [json.loads(line) for line in out]
    assert told[0] == {"name": "trunk.stages.0.conv1_1", "kind": "Conv2d", "shape": [4, 32, 32]}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("project in/0.png --weights TINY --layer trunk.stage.1", "did you mean 'trunk.stages.1'"),
        ("project in/0.png --weights TINY --layer trunk --unit 6", "which has 6; wanted 0 to 5"),
        ("project in/0.png --weights TINY --layer trunk --place 8,0", "whose maps are"),
        ("project in/0.png --weights TINY --place here", "wanted max, all, or ROW,COLUMN"),
        ("project --weights TINY", "got no input; name files"),
        ("top - --weights TINY", "each is read twice; name files or folders"),
        ("top in --data in --weights TINY", "got images and --data; leave one of them out"),
        ("top in --split val --weights TINY", "got --split without --data"),
        ("top in --weights TINY --unit 1 --shown 3", "got --unit and --shown"),
        ("top in --weights TINY --torch-model a:b", "got --weights and --torch-model"),
        ("top in --weights TINY --preprocess caffe", "got --preprocess caffe for weights"),
        ("top in --torch-model NETS:build --preprocess own", "is not one of"),
        ("top in --torch-model NETS:bild", "has no 'bild': did you mean 'build'"),
        ("top in --torch-model nothing:build", "there is no module 'nothing'"),
        ("top in --torch-model NETS:build --size 4", "the model cannot be run on (1, 3, 4, 4)"),
        ("top in --torch-model NETS:build --rule guide", "got rule 'guide'; the rules are"),
        ("project in/0.png --weights TINY --class dog", "got class 'dog' for"),
        ("project in/0.png --weights TINY --class 1 --unit 1", "--unit or --place; a score is"),
        (
            "project in/0.png --torch-model NETS:build --layer score --size 24",
            "model that segments",
        ),
        ("decode in/0.png --torch-model NETS:build --size 24", "model that segments"),
        ("decode in/0.png --weights TINY --unit 4", "got unit 4 of layer 'deconv2_1'"),
        ("decode in/0.png --weights TINY --crop 5,0,2,9", "wanted the left, upper, right and"),
        ("decode in/0.png --weights TINY --crop here", "wanted numbers with commas"),
        ("decode --weights TINY", "got no input; name files"),
        ("project in/0.png --weights TINY --size 20000", "20000 is not in the range 1<=x<=4096"),
        ("top in --weights nowhere", "got weights 'nowhere'; wanted"),
    ],
)
def test_what_is_refused(refused, tiny, args, message):
    assert message in refused(*args.replace("TINY", tiny).split())
    assert not Path("top/index.html").exists()


def shares(tiny, path, box=None):
    """Class fractions of what the network sees, by the network alone."""
    loaded = load_model(tiny, device="cpu")
    image = np.array(Image.open(path))
    if box is not None:
        image = image[box[1] : box[3], box[0] : box[2]]
    labels = loaded.model(loaded.prepare([loaded.preprocessing.crop(image)])).argmax(1)
    return {n: float((labels == n).float().mean()) for n in range(3)}


def test_project_scores(run, tiny):
    args = ["project", "in/0.png", "--weights", tiny, "--layer", "score", "-o", "out"]
    code, out, err = run(*args, "--json")
    assert (code, err) == (0, [])
    share = shares(tiny, "in/0.png")
    told = json.loads(out[0])["projections"]
    wanted = sorted((n for n in (1, 2) if share[n] >= 0.01), key=lambda n: -share[n])
    assert [one["unit"] for one in told] == wanted
    for one in told:
        assert (one["layer"], one["class"]) == ("score", f"class {one['unit']}")
        assert one["share"] == pytest.approx(share[one["unit"]])
        assert one["place"] is one["box"] is None
        assert Path(one["file"]).name == f"0.score.class%20{one['unit']}.png"
    files = {Path(one["file"]).name for one in told}
    assert names("out") == {"0.json", "0.input.png"} | files
    label = next(n for n in share if share[n])
    code, out, err = run(*args, "--class", f"class {label}", "--rule", "saliency")
    assert (code, err) == (0, [])
    assert f"score class {label}, {100 * share[label]:.1f} % of it: " in out[0]


def test_decode(run, tiny):
    share = shares(tiny, "in/0.png", (5, 0, 37, 32))
    label = max((1, 2), key=lambda n: share[n])
    args = ["decode", "in/0.png", "--weights", tiny, "--crop", "5,0,37,32", "-o", "out"]
    code, out, err = run(*args, "--json")
    assert (code, err) == (0, [])
    told = json.loads(out[0])
    assert (told["class"], told["file"]) == (f"class {label}", "out/0.png")
    assert told["share"] == pytest.approx(share[label])
    layers = ["unpool2", "deconv2_1", "unpool1", "deconv1_1"]
    assert [one["layer"] for one in told["maps"]] == layers
    assert [one["size"] for one in told["maps"]] == [[16, 16], [16, 16], [32, 32], [32, 32]]
    assert json.loads(Path("out/0.json").read_text())["maps"] == told["maps"]
    assert names("out") == {"0.png", "0.json"}
    code, out, err = run(*args, "--class", label, "--unit", 2)
    assert (code, err) == (0, [])
    assert {one["unit"] for one in json.loads(Path("out/0.json").read_text())["maps"]} == {2}
    assert out[0].startswith(f"in/0.png: class {label}, ")


def test_a_class_that_is_not_there(run, refused, filled, tmp_path):
    net = filled(DeconvNet(3, ((1, 4), (1, 6)), None, 32))
    net.score.bias.data[2] = -1e6
    card = {"classes": ["ground", "cat", "dog"]}
    weights = save_pretrained(net, tmp_path / "dogless", card)
    Path("in/1.png").write_bytes(b"broken")
    for verb in (["decode"], ["project", "--layer", "score"]):
        args = [*verb, "in/0.png", "in/1.png", "--weights", weights, "--class"]
        code, out, err = run(*args, "dog")
        assert (code, out, len(err)) == (3, [], 2)
        assert "got class dog, which is predicted nowhere in this image; there is " in err[0]
        assert run(*args, "cat")[0] == 3
        assert "got class 'dot' for " in (message := refused(*args, "dot"))
        assert "did you mean 'dog'?" in message
        assert "which has 3" in refused(*args, "3")


def test_help(run):
    for args in ([], ["project"], ["top"], ["decode"]):
        code, out, err = run(*args, "--help")
        assert (code, err) == (0, [])
        assert "Example: unpool visualize " in " ".join(out)


def test_models_stay_as_they_are(run, tmp_path, monkeypatch):
    made = []
    load = torch.nn.Module.eval
    monkeypatch.setattr(torch.nn.Module, "eval", lambda self: made.append(self) or load(self))
    assert run("top", "in", "--torch-model", "NETS:build", "--size", 24, "--shown", 1)[0] == 0
    fresh = load_model(torch_model=f"nets_{tmp_path.name}:build").model.state_dict()
    (model, *_) = made
    assert all(torch.equal(fresh[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
