"""`unpool visualize project`, on small networks."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.visualize.files import class_fractions, names
from unpool.visualize import load_model, project, to_images


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
    for result in first["projections"]:
        found = project(loaded.model, loaded.prepare([crop]), result["layer"], result["unit"])
        assert result["value"] == pytest.approx(float(found.values))
        shown = np.array(Image.open(result["file"]))
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
    result = json.loads(Path("projected/0.json").read_text())
    assert result["options"] == {"place": "all"}
    assert result["model"].endswith(":prepared")
    assert [record["layer"] for record in result["projections"]] == ["act", "deep"]
    assert all(record["place"] is record["box"] is None for record in result["projections"])


def test_unreadable_images_are_skipped(run, tiny, monkeypatch):
    Path("in/1.png").write_bytes(Path("in/0.png").read_bytes()[:60])
    stdin = io.TextIOWrapper(io.BytesIO(Path("in/0.png").read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    args = ["project", "-", "in", "nowhere.png", "--weights", tiny, "--layer", "trunk", "-o", "out"]
    code, out, err = run(*args, "--json")
    assert (code, err) == (3, [])
    result = {record["source"]: record for record in map(json.loads, out)}
    assert set(result) == {"-", "nowhere.png", *(f"in/{i}.png" for i in range(6))}
    assert "does not exist" in result["nowhere.png"]["error"]
    assert "is broken or cut short" in result["in/1.png"]["error"]
    assert result["-"]["projections"][0]["file"] == "out/stdin.trunk.png"
    assert not any("1." in name for name in names("out"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    code, out, err = run(*args)
    assert (code, len(out), len(err)) == (3, 6, 3)
    assert out[-1].startswith("5 skipped, finished by an earlier run")


def test_inputs_are_not_overwritten(refused, tiny):
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
    assert "the model calls silu, which this rule does not cover" in refused(*args)
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


def test_project_scores(run, tiny):
    args = ["project", "in/0.png", "--weights", tiny, "--layer", "score", "-o", "out"]
    code, out, err = run(*args, "--json")
    assert (code, err) == (0, [])
    fractions = class_fractions(tiny, "in/0.png")
    result = json.loads(out[0])["projections"]
    wanted = sorted((n for n in (1, 2) if fractions[n] >= 0.01), key=lambda n: -fractions[n])
    assert [one["unit"] for one in result] == wanted
    for one in result:
        assert (one["layer"], one["class"]) == ("score", f"class {one['unit']}")
        assert one["fraction"] == pytest.approx(fractions[one["unit"]])
        assert one["place"] is one["box"] is None
        assert Path(one["file"]).name == f"0.score.class%20{one['unit']}.png"
    files = {Path(one["file"]).name for one in result}
    assert names("out") == {"0.json", "0.input.png"} | files
    label = next(n for n in fractions if fractions[n])
    code, out, err = run(*args, "--class", f"class {label}", "--rule", "saliency")
    assert (code, err) == (0, [])
    assert (
        f"score class {label}, predicted on {100 * fractions[label]:.1f} % of the square: "
        in out[0]
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("project in/0.png --weights TINY --layer trunk.stage.1", "did you mean 'trunk.stages.1'"),
        ("project in/0.png --weights TINY --layer trunk --unit 6", "which has 6; wanted 0 to 5"),
        ("project in/0.png --weights TINY --layer trunk --place 8,0", "whose maps are"),
        ("project in/0.png --weights TINY --place here", "wanted max, all, or ROW,COLUMN"),
        ("project --weights TINY", "got no input; name files"),
        ("project in/0.png --weights TINY --class dog", "got class 'dog' for"),
        ("project in/0.png --weights TINY --class 1 --unit 1", "--unit or --place; a score is"),
        (
            "project in/0.png --torch-model NETS:build --layer score --size 24",
            "model that segments",
        ),
    ],
)
def test_unusable_options(refused, tiny, args, message):
    assert message in refused(args.replace("TINY", tiny))
