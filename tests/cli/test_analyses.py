"""`unpool visualize evolve | invariance | correspond | filters`, on small networks."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unpool.cli import main
from unpool.models import ZFNet, save_pretrained

NETS = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 25, 5), nn.ReLU(), nn.Linear(5, 4),
    )
"""


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command where there are images and models; gives the code and both streams."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = f"nets_{tmp_path.name}"
    Path(f"{module}.py").write_text(NETS)
    Path("in").mkdir()
    for i in range(4):
        coarse = np.random.default_rng(i).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((50, 40)).save(f"in/{i}.png")

    def run(text):
        capsys.readouterr()
        model = f"--torch-model {module}:build --size 24"
        code = main(["visualize", *text.replace("MODEL", model).split()])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def epochs(run, tmp_path):
    """Two files of tensors of the model, one after the other."""
    scope = {}
    exec(NETS, scope)
    for i in range(2):
        net = scope["build"]()
        with torch.no_grad():
            net[3].weight.mul_(1 - 2 * i)
        torch.save(net.state_dict(), tmp_path / f"e{i}.pt")
    return "--checkpoint e0.pt --checkpoint e1.pt"


def names(folder):
    return {path.name for path in Path(folder).iterdir()}


def test_evolve(run, epochs):
    Path("in/3.png").write_bytes(b"")
    text = f"evolve in {epochs} MODEL --layer 1 --layer 4 --shown 2 -o out"
    code, out, err = run(f"{text} --json")
    assert (code, err, len(out)) == (3, [], 1)
    told = json.loads(out[0])
    assert (told["checkpoints"], told["images"]) == (["e0", "e1"], 3)
    assert list(told["failed"]) == ["in/3.png"]
    assert [(layer["layer"], len(layer["units"])) for layer in told["layers"]] == [
        ("1", 2),
        ("4", 2),
    ]
    assert names("out") == {"evolution.png", "evolution.json"}
    code, out, err = run(f"{text} --gray --rule guided --from one")
    assert (code, len(err)) == (3, 1)
    assert out[0].split() == ["layer", "maps", "jumps"]
    assert out[-1] == "3 images, into out/evolution.png"


def test_evolve_weights(run, tmp_path):
    for i in range(2):
        torch.manual_seed(i)
        save_pretrained(ZFNet(3, (4,) * 5, 8, 47), tmp_path / f"{i}/weights", {})
    text = "evolve in --checkpoint 0/weights --checkpoint 1/weights --layer features.relu2"
    assert run(f"{text} --unit 1 --quiet") == (0, [], [])
    told = json.loads(Path("evolution/evolution.json").read_text())
    assert told["checkpoints"] == ["0", "1"]
    code, out, _ = run("evolve --list-layers --checkpoint 0/weights")
    assert code == 0
    assert out[1].split() == ["features.conv1", "Conv2d", "4", "x", "22", "x", "22"]


def test_invariance(run):
    text = "invariance in/0.png in/1.png MODEL --rotation 0,90,45 --scale 1,1.2,.1 -o out"
    code, out, err = run(f"{text} --class 2 --json")
    assert (code, err) == (0, [])
    told = json.loads(out[0])
    assert told["layers"] == {"first": "1", "top": "8"}
    assert told["classes"] == [2, 2]
    assert {kind: curve["values"] for kind, curve in told["curves"].items()} == {
        "scale": [1, 1.1, 1.2],
        "rotation": [0, 45, 90],
    }
    assert told["curves"]["rotation"]["first"][1][0] == 0 < told["curves"]["rotation"]["top"][1][1]
    assert names("out") == {"invariance.png", "invariance.json"}
    assert run(text)[1] == ["2 images, into out/invariance.png"]


def test_correspond(run):
    box = "--part eye=10,10,20,20"
    code, out, err = run(f"correspond in/0.png in/1.png MODEL {box} {box} --draws 2 -o out")
    assert (code, err) == (0, [])
    assert [line.split()[0] for line in out] == ["part", "eye", "random", "2"]
    assert "+-" in out[1]
    assert names("out") == {"correspondence.png", "correspondence.json"}
    rows = [("0.png", "eye"), ("1.png", "eye"), ("2.png", "nose"), ("0.png", "nose")]
    lines = [f"{name},{part},10,10,20,20" for name, part in rows]
    Path("in/boxes.csv").write_text("image,part,x0,y0,x1,y1\n" + "\n".join(lines))
    keys = ("image", "part", "x0", "y0", "x1", "y1")
    made = [dict(zip(keys, (*row, 10, 10, 20, 20), strict=True)) for row in rows]
    Path("in/boxes.json").write_text(json.dumps(made))
    told = []
    for name in ("boxes.csv", "boxes.json"):
        code, out, err = run(f"correspond --boxes in/{name} MODEL --layer 4 --draws 1 --json")
        assert (code, err) == (0, [])
        told.append(json.loads(out[0]))
    assert told[0]["agreements"] == told[1]["agreements"]
    assert {found["part"] for found in told[0]["agreements"]} == {"eye", "nose", "random"}
    assert told[0]["boxes"]["nose"].keys() == {"in/0.png", "in/2.png"}


def test_what_correspond_cannot_read(run):
    Path("in/1.png").write_bytes(b"")
    box = "--part eye=10,10,20,20"
    text = f"correspond in/0.png in/1.png in/2.png MODEL {box} {box} {box} -o out"
    code, out, err = run(text)
    assert (code, len(err)) == (3, 1)
    assert out[-1].startswith("2 images")


def test_filters(run):
    code, out, err = run("filters MODEL -o out")
    assert (code, err) == (0, [])
    assert out[0].split()[:2] == ["layer", "filters"]
    assert [line.split()[0] for line in out[1:3]] == ["0", "3"]
    assert out[-1].startswith("frequencies of 0: low ")
    assert names("out") == {"filters.png", "filters.json"}
    Path("in/1.png").write_bytes(b"")
    code, out, err = run("filters in nowhere.png MODEL --layer 3 --share 0.5 --json")
    assert (code, err) == (3, [])
    told = json.loads(out[0])
    assert (told["shown"], set(told["failed"])) == ("3", {"in/1.png", "nowhere.png"})
    assert all(isinstance(layer["silent"], list) for layer in told["layers"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("evolve in MODEL", "got neither --run nor --checkpoint"),
        ("evolve in --run in --checkpoint in", "got --run and --checkpoint"),
        ("evolve in --run in", "which has no checkpoints/epochs"),
        ("evolve in --run in MODEL", "got --torch-model and --size with --run"),
        ("evolve in --checkpoint e.pt", "name their model with --torch-model"),
        ("evolve in --checkpoint e.pt MODEL", "e.pt"),
        ("invariance in MODEL --layer 1", "got 1 layers; wanted the first and a top one"),
        ("invariance in MODEL --layer 1 --layer 44", "did you mean"),
        ("invariance in MODEL --scale 1,2", "got --scale 1,2; wanted FROM,TO,STEP"),
        ("invariance in MODEL --scale 0,1,.5", "got scale by 0.0; wanted"),
        ("invariance in MODEL --class 4", "has classes 0 to 3"),
        ("invariance MODEL", "got no input"),
        ("correspond in MODEL", "got no --part for 4 images"),
        ("correspond in/0.png MODEL --part a=1,1,9,9", "give it in two or more"),
        ("correspond in/0.png MODEL --part a=1,1,9", "wanted a box x0, y0, x1, y1 in pixels"),
        ("correspond in MODEL --boxes bad.csv", "got --boxes, and images or --part"),
        ("correspond MODEL --boxes bad.csv", "whose entry 1 lacks some of image, part"),
        ("correspond MODEL --boxes bad.json", "cannot be read"),
        ("filters MODEL --layer 1", "which is no two-dimensional convolution"),
        ("filters MODEL --layer 0 broken.png", "none of 1 images can be used"),
    ],
)
def test_what_is_refused(run, text, message):
    Path("bad.csv").write_text("image,x0\n0.png,3\n")
    Path("bad.json").write_text("[")
    Path("broken.png").write_bytes(b"")
    code, out, err = run(text)
    assert (code, out, len(err)) == (2, [], 1), (out, err)
    assert message in err[0]


def test_help(run):
    for verb in ("evolve", "invariance", "correspond", "filters"):
        code, out, err = run(f"{verb} --help")
        assert (code, err) == (0, [])
        assert f"Example: unpool visualize {verb} " in " ".join(out)


def test_a_class_by_name(run, tmp_path):
    card = {"classes": ["cat", "dog", "cow"]}
    save_pretrained(ZFNet(3, (4,) * 5, 8, 47), tmp_path / "w", card)
    text = "invariance in/0.png --weights w --rotation 0,90,90 --json"
    told = json.loads(run(f"{text} --class dog")[1][0])
    assert told["classes"] == [1]
    assert told["curves"] == json.loads(run(f"{text} --class 1")[1][0])["curves"]
    code, out, err = run(f"{text} --class dock")
    assert (code, out, len(err)) == (2, [], 1)
    assert "got class 'dock' for w; the choices are cat, dog" in err[0]


def test_boxes_that_are_refused(run):
    head = "image,part,x0,y0,x1,y1\n0.png,eye,9,9,20,20\n1.png,eye,9,9,20,20\n"
    for more, message in (
        ("./0.png,eye,1,1,9,9\n", "whose entry 3 is a second box of eye in ./0.png"),
        (f'2.png,"{"x" * 140_000}\n', "cannot be read (field larger than field limit"),
        ("0.png,random,1,1,9,9\n1.png,random,1,1,9,9\n", "got a part 'random'"),
    ):
        Path("in/boxes.csv").write_text(head + more)
        code, out, err = run("correspond --boxes in/boxes.csv MODEL --layer 4")
        assert (code, out, len(err)) == (2, [], 1)
        assert message in err[0]
