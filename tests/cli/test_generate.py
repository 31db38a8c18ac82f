"""The commands of `unpool generate`, with a small network."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from unpool.cli import main
from unpool.generate import CHANGES, PATTERNS, Generator
from unpool.generate.result import enlarge
from unpool.models import GenerativeNet, save_pretrained

NAMES = ["armchair", "bar_stool", "stool"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    torch.manual_seed(0)
    net = GenerativeNet(3, 32, 2, 28, code=8, shared=12, widths=(6, 5), mask_widths=(4, 3))
    for name, values in net.named_parameters():
        torch.nn.init.normal_(values, 0.02, 0.5 if "fc" in name else 0.1)
    torch.nn.init.constant_(net.mask.fc5.bias, 2.0)  # so that there is an object
    folder = tmp_path_factory.mktemp("generated") / "tiny"
    return str(save_pretrained(net, folder, {"styles": NAMES}))


@pytest.fixture
def run(capsys, tmp_path, monkeypatch, weights):
    """Run a command in an empty folder; gives the code and both streams."""
    monkeypatch.chdir(tmp_path)

    def run(command, *args):
        capsys.readouterr()
        code = main(["generate", command, "--weights", weights, *map(str, args)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def printed(run):
    """Run a command with --json successfully; gives the object that it prints."""

    def printed(*args):
        code, out, err = run(*args, "--json")
        assert (code, err, len(out)) == (0, [], 1), (out, err)
        return json.loads(out[0])

    return printed


def size(path):
    with Image.open(path) as found:
        return found.size


def frames(path):
    with Image.open(path) as found:
        return found.n_frames


def test_list(run):
    code, out, err = run("list", "-o", "sheet.png", "--json")
    assert (code, err) == (0, [])
    assert [json.loads(line)["style"] for line in out] == NAMES
    assert size("sheet.png")[0] > 3 * 100
    assert run("list") == (0, ["   0 armchair", "   1 bar_stool", "   2 stool"], [])
    assert run("list", "--quiet") == (0, [], [])


def test_view(printed, run, weights):
    record = printed("view", "--style", "stool", "--azimuth", 30, "-o", "deep/chair.png")
    assert record["output"] == "deep/chair.png"
    assert (record["azimuth"], record["elevation"], record["notes"]) == (30, 20, [])
    generator = Generator.from_pretrained(weights, device="cpu")
    with Image.open("deep/chair.png") as found:
        wanted = generator.view("stool", azimuth=30).rgba
        assert np.array_equal(np.array(found), wanted)
    mix = "armchair=1,1=-1,stool=1"
    printed("view", "--style", mix, "-o", "mix.png", "--background", "red", "--scale", 2)
    image = generator.view({"armchair": 1, "bar_stool": -1, "stool": 1})
    with Image.open("mix.png") as found:
        assert np.array_equal(np.array(found), enlarge(image.on("red"), 2))
    printed("view", "--style", 1, "--change", "angle=0.3", "--change", "hue=-1", "-o", "turned.png")
    code, out, err = run("view", "--style", 1, "--elevation", 50, "-o", "above.png")
    assert (code, out) == (0, ["above.png: style 1, azimuth 0.0, elevation 50.0"])
    assert err == ["unpool: note: elevation 50 is beyond the 20 to 30 of the training"]


def test_grid(printed):
    record = printed("grid", "--style", "stool", "--style", 0, "--columns", 3, "-o", "grid.jpg")
    assert record["size"] == [3 * 34 - 2, 2 * 34 - 2] == list(size("grid.jpg"))
    assert record["azimuths"] == [0, 120, 240]
    assert printed("grid", "--columns", 2, "-o", "all.png")["styles"] == NAMES


def test_interpolate(printed):
    assert printed("interpolate", "--style", 0, "--count", 6)["images"] == 6
    assert frames("turn.gif") == 6
    record = printed(
        "interpolate", "--style", 0, "--azimuth", "30,60", "--elevation", "20,60", "--count", 4,
        "-o", "there.gif",
    )  # fmt: skip
    assert (frames("there.gif"), record["images"]) == (6, 6)  # and back
    assert record["notes"] == [
        "elevation 33.3333 is beyond the 20 to 30 of the training",
        "elevation 46.6667 is beyond the 20 to 30 of the training",
        "elevation 60 is beyond the 20 to 30 of the training",
    ]
    printed("interpolate", "--style", 0, "--azimuth", "0,90", "--count", 3, "-o", "row.png")
    assert size("row.png") == (3 * 34 - 2, 32)


def test_morph(printed):
    record = printed(
        "morph", "--from", "armchair", "--to", "stool", "--count", 5, "-o", "morph.gif"
    )
    assert frames("morph.gif") == record["images"] == 8
    assert record["fractions"][0] == 1
    assert printed("morph", "--from", 0, "--to", 1, "-o", "row.png")["fractions"] == [
        1, 0.65, 0.57, 0.5, 0.43, 0.35, 0,
    ]  # fmt: skip
    assert size("row.png") == (7 * 34 - 2, 32)
    printed("morph", "--from", 0, "--to", 1, "--count", 3, "-o", "film.mp4", "--scale", 2)
    film = cv2.VideoCapture("film.mp4")
    read = 0
    while (found := film.read())[0]:
        assert found[1].shape == (64, 64, 3)
        read += 1
    assert read == 4


def test_transform(printed):
    record = printed("transform", "--style", "stool")
    assert record["changes"] == list(CHANGES)
    assert size("transform.png") == tuple(record["size"]) == (7 * (32 + 10) + 10, 500)
    args = ["--change", "zoom", "--ends", "0,0.5", "--count", 3, "-o", "zoom.gif"]
    printed("transform", "--style", 0, *args)
    assert frames("zoom.gif") == 4


def test_correspond(printed):
    record = printed("correspond", "--from", 0, "--to", 2, "--steps", 3, "--points", 5)
    assert len(record["points"]) == len(record["matches"]) == 5
    assert size("correspond.png") == (2 * 32 * 4, 32 * 4)
    args = ["--point", "10,12", "--point", "3,4", "-o", "way.gif"]
    record = printed("correspond", "--from", 0, "--to", 2, "--steps", 3, *args)
    assert record["points"] == [[10, 12], [3, 4]]
    assert frames("way.gif") == 5


def test_masks_units_and_filters(printed, run):
    assert printed("mask", "--style", 0)["cells"] == list(PATTERNS)
    assert printed("mask", "--style", 0, "--cells", "border", "-o", "b.png")["cells"] == ["border"]
    assert printed("unit", "--value", 3)["units"] == list(range(12))
    record = printed(
        "unit", "--layer", "rgb.fc5", "--unit", 1, "--position", "2,2", "-o", "maps.png"
    )
    assert (record["layer"], record["units"]) == ("rgb.fc5", [1])
    record = printed("zoom", "--style", 1)
    assert 0 <= record["unit"] < 12
    assert record["explained"] <= 1
    printed("zoom", "--style", 1, "--unit", 3, "-o", "zoom.gif")
    assert frames("zoom.gif") == 8
    assert printed("filters", "-o", "f.png")["layer"] == "rgb.stages.1"
    for path in ("mask.png", "b.png", "unit.png", "maps.png", "zoom.png", "f.png"):
        assert min(size(path)) > 16
    code, out, err = run("unit", "--list-layers")
    assert (code, err) == (0, [])
    assert "shared.fc4" in out
    assert json.loads(run("filters", "--list-layers", "--json")[1][0]) == {"layer": "rgb.stages.0"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("view --style stol", "got style 'stol'; did you mean 'stool'"),
        ("view --style 7", "got style 7; wanted an index, 0 to 2"),
        ("view --style 0 -o a.gif", "a.gif does not end in .png, .jpg, .jpeg"),
        ("view --style 0 --change twist=1", "got the change 'twist'; the choices are translate-x"),
        ("view --style 0 --change zoom", "got 'zoom'; wanted NAME=AMOUNT"),
        ("view --style 0 --background paper", "got the color 'paper'"),
        ("view --style a=b", "got 'a=b' in the style"),
        ("view --style 0 --azimuth nan", "wanted finite degrees"),
        ("interpolate --style 0 --azimuth 3", "got '3'; wanted numbers such as 0,360"),
        ("view --style 0 -o /dev/null/x.png", "/dev/null is not writable"),
        ("interpolate --style 0 --azimuth 0,nan", "wanted numbers such as"),
        ("view --style 0 --change angle=inf", "wanted NAME=AMOUNT"),
        ("interpolate --style 0 --count 1", "1 is not in the range 2<=x<=1000"),
        ("morph --from 0 --to nobody", "got style 'nobody'"),
        ("morph --from 0 --to 1 -o m.avi", "m.avi does not end in"),
        ("correspond --from 0 --to 1 --point 99,1", "got the point 99, 1, which is outside"),
        ("mask --style 0 --cells ring", "got the pattern 'ring'; the choices are"),
        ("unit --layer fc1", "choices are style.fc1"),
        ("unit --unit 99", "got unit 99 of shared.fc4; wanted 0 to 11"),
        ("unit --layer rgb.fc5 --position 9", "got '9'; wanted ROW,COLUMN"),
        ("zoom --unit 50 --style 0", "got unit 50 of shared.fc4"),
        ("filters --layer fc1", "got layer 'fc1'; "),
    ],
)
def test_unusable_options(run, args, message):
    code, out, err = run(*args.split())
    assert (code, out, len(err)) == (2, [], 1), (out, err)
    assert message in err[0]
    assert not list(Path().iterdir())


def test_help(capsys):
    for command in (
        "",
        "list",
        "view",
        "grid",
        "interpolate",
        "morph",
        "transform",
        "mask",
        "unit",
    ):
        assert main(["generate", *([command] if command else []), "--help"]) == 0
        assert "Example: unpool generate " in capsys.readouterr().out
