"""`unpool visualize invariance`, on small networks."""

import json

import pytest

from tests.cli.visualize.files import names
from unpool.models import ZFNet, save_pretrained


def test_invariance(run):
    text = "invariance in/0.png in/1.png MODEL --rotation 0,90,45 --scale 1,1.2,.1 -o out"
    code, out, err = run(f"{text} --class 2 --json")
    assert (code, err) == (0, [])
    result = json.loads(out[0])
    assert result["layers"] == {"first": "1", "top": "8"}
    assert result["classes"] == [2, 2]
    assert {kind: curve["values"] for kind, curve in result["curves"].items()} == {
        "scale": [1, 1.1, 1.2],
        "rotation": [0, 45, 90],
    }
    turned = result["curves"]["rotation"]
    assert turned["first"][1][0] == 0 < turned["top"][1][1]
    assert names("out") == {"invariance.png", "invariance.json"}
    assert run(text)[1] == ["2 images, into out/invariance.png"]


def test_a_class_by_name(run, tmp_path):
    card = {"classes": ["cat", "dog", "cow"]}
    save_pretrained(ZFNet(3, (4,) * 5, 8, 47), tmp_path / "w", card)
    text = "invariance in/0.png --weights w --rotation 0,90,90 --json"
    result = json.loads(run(f"{text} --class dog")[1][0])
    assert result["classes"] == [1]
    assert result["curves"] == json.loads(run(f"{text} --class 1")[1][0])["curves"]
    code, out, err = run(f"{text} --class dock")
    assert (code, out, len(err)) == (2, [], 1)
    assert "got class 'dock' for w; the choices are cat, dog" in err[0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("invariance in MODEL --layer 1", "got 1 layers; wanted the first and a top one"),
        ("invariance in MODEL --layer 1 --layer 44", "did you mean"),
        ("invariance in MODEL --scale 1,2", "got --scale 1,2; wanted FROM,TO,STEP"),
        ("invariance in MODEL --scale 0,1,.5", "got scale by 0.0; wanted"),
        ("invariance in MODEL --class 4", "has classes 0 to 3"),
        ("invariance MODEL", "got no input"),
    ],
)
def test_unusable_options(refused, args, message):
    assert message in refused(args)
