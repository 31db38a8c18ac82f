"""`unpool generate list`, `view`, `grid` and `compare`, with a small network."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.cli.generate.files import size
from unpool.cli import main
from unpool.generate import Generator
from unpool.generate.baselines import baselines, errors, generate_views, premultiplied
from unpool.generate.batches import load_views
from unpool.generate.result import enlarge
from unpool.models import GenerativeNet, save_pretrained
from unpool.rendering.dataset import AZIMUTHS, open_chairs

NAMES = ["armchair", "bar_stool", "stool"]
CARD = {"styles": [f"bar_{i}" for i in range(5)], "recipe": {"held_out": [4, 9]}}


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


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("view --style stol", "got style 'stol'; did you mean 'stool'"),
        ("view --style 7", "got style 7; wanted an index, 0 to 2"),
        ("view --style 0 --change twist=1", "got the change 'twist'; the choices are translate-x"),
        ("view --style 0 --change zoom", "got 'zoom'; wanted NAME=AMOUNT"),
        ("view --style a=b", "got 'a=b' in the style"),
        ("view --style 0 --azimuth nan", "wanted finite degrees"),
        ("view --style 0 --change angle=inf", "wanted NAME=AMOUNT"),
    ],
)
def test_unusable_options(refused, args, message):
    assert message in refused(args)


@pytest.fixture
def net():
    return GenerativeNet(5, 16, 2, 28, 8, 12, (6,), (4,), 1)


def test_errors_on_held_out_views(net, turning_bars, tmp_path, capsys):
    folder = save_pretrained(net, tmp_path / "tiny", CARD)
    arguments = ["generate", "compare", "--data", str(turning_bars), "--weights", str(folder)]
    sheet = tmp_path / "sheet.png"
    assert main([*arguments, "-o", str(sheet), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["views"] == 10
    chairs = open_chairs(turning_bars)
    hidden = [i for i, v in enumerate(chairs.views) if v.azimuth in (AZIMUTHS[4], AZIMUTHS[9])]
    images = load_views(chairs, 16).images
    seen = [i for i in range(len(images)) if i not in hidden]
    made = baselines(chairs, images, seen, hidden)["nearest"]
    each = errors(made, premultiplied(images[hidden]))
    assert printed["mse"]["nearest"] == pytest.approx(each.mean())
    network = generate_views(
        Generator.from_pretrained(folder, device="cpu"),
        *zip(*(chairs.views[i][:3] for i in hidden), strict=True),
    )
    own = errors(network, premultiplied(images[hidden]))
    assert printed["network_better"]["nearest"] == pytest.approx((own < each).mean())
    with Image.open(sheet) as found:
        assert found.size == (8 * 18 - 2, 4 * 18 - 2)  # 8 views: truth, network, two baselines


@pytest.mark.parametrize(
    "recipe", [None, {"held_out": []}, {"held_out": [99]}, {"held_out": "all"}]
)
def test_weights_without_held_out_azimuths_are_refused(recipe, net, turning_bars, tmp_path, capsys):
    bare = save_pretrained(net, tmp_path / "bare", {**CARD, "recipe": recipe})
    arguments = ["generate", "compare", "--data", str(turning_bars), "--weights", str(bare)]
    assert main([*arguments, "-o", str(tmp_path / "sheet.png")]) == 2
    assert "names no azimuths that were held out" in capsys.readouterr().err
