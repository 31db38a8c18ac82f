"""`unpool check`, `train` and `evaluate` on a folder of every layout."""

import json

import pytest

from tests.cli.test_train import SETTINGS
from tests.data.layouts.examples import CLASSES, FOLDERS, coco_file, photos, write
from unpool.cli import main

FAST = "COCO, CVAT's brush masks"  # with the one warning
EACH = [name if name == FAST else pytest.param(name, marks=pytest.mark.slow) for name in FOLDERS]


@pytest.mark.filterwarnings("default:.*iscrowd=1:UserWarning")
@pytest.mark.parametrize("name", EACH)
def test_check_train_and_evaluate(name, tmp_path, capsys):
    root, run = tmp_path / "data", tmp_path / "run"
    FOLDERS[name](root)
    assert main(["check", str(root)]) == 0
    out, _ = capsys.readouterr()
    assert f"layout: {name.partition(',')[0]}" in out.splitlines()
    assert ("iscrowd=1" in out) == (name == FAST)
    arguments = [*SETTINGS, "--set", "phases.0.steps=2", "--device", "cpu", "--quiet"]
    assert main(["train", "finetune", "--data", str(root), "-o", str(run), *arguments]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == err.count("pass --crowd object or --crowd void") == (name == FAST)
    arguments = ["--data", str(root), "--mode", "whole", "--device", "cpu", "--json", "--quiet"]
    assert main(["evaluate", "--weights", str(run / "weights"), *arguments]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["dropped"] == {}
    assert summary["images"] in (1, 2)
    assert len(summary["iou"]) == len(CLASSES)
    assert ("7 of cat, 7 of dog as objects" in summary["protocol"]) == (name == FAST)


@pytest.mark.parametrize(
    ("crowd", "pixels", "read"),
    [
        ("object", True, "14 annotations with iscrowd=1, read 7 of cat, 7 of dog as objects"),
        ("void", False, "14 annotations with iscrowd=1, read 7 of cat, 7 of dog as void"),
    ],
)
def test_crowds_of_one_s_choice(crowd, pixels, read, tmp_path, capsys):
    photos(tmp_path, "images")
    content = coco_file(range(7), "{}.jpg", brush=True)
    write(tmp_path / "annotations/instances_default.json", content)
    code = main(["check", str(tmp_path), "--crowd", crowd])
    out, err = capsys.readouterr()
    assert f"has {read} (" in out
    assert "pass --crowd object or --crowd void (crowds)" in out
    assert (code, err == "") == ((0, True) if pixels else (2, False))
    assert ("contain only 0 (background) and 255 (void)" in out) == (not pixels)
