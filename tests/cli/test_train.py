"""`unpool train`: validations and the summary are printed; interrupted runs continue."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from unpool.cli import main

TINY = (
    "start=null trunk=vgg11 size=32 crop_long_side=[32,64] batch=2 bf16=false long_side=48 "
    "statistics_passes=1 validate_every=20 phases.0.steps=8 "
    + " ".join(f"phases.{i}.steps=1 phases.{i}.stages=1" for i in range(1, 5))
)
SETTINGS = [word for setting in TINY.split() for word in ("--set", setting)]


def start(data, run, save_every=1):
    arguments = ["finetune", "--data", str(data), "-o", str(run), *SETTINGS, "--device", "cpu"]
    return ["train", *arguments, "--set", f"save_every={save_every}", "--quiet"]


def steps(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [(r["n"], r["loss"]) for r in map(json.loads, lines) if "loss" in r]


def wait_for(path, process):
    for _ in range(1200):
        if path.exists():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    pytest.fail(f"{path} was not written")


def test_validations_and_the_summary_are_printed(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [word for word in start(data, "my run") if word != "--quiet"]
    arguments += ["--set", "phases.0.steps=2"]
    assert main(arguments) == 0
    first, *rows, protocol, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"step 6 of 6, 224 x 224: mean IoU \d+\.\d %", first)
    titles = ["background", "square", "mean IoU", "95 % interval"]
    titles += ["pixel accuracy", "mean accuracy", "boundary f1", "calibration error"]
    assert [row[:17].rstrip() for row in rows] == titles
    assert "images" in protocol
    weights = "'my run/weights'"
    assert last == f"weights in {weights}; try unpool segment PHOTOS --weights {weights}"
    assert main([*arguments, "--resume", "--json"]) == 0
    (summary,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert summary == json.loads((tmp_path / "my run/eval/summary.json").read_text())
    card = json.loads((tmp_path / "my run/weights/card.json").read_text())
    assert "-o 'my run' --set start=null" in card["command"]
    assert main([*arguments, "--resume", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_with_json_each_validation_is_a_line(data, tmp_path, capsys):
    assert main([*start(data, tmp_path / "run"), "--set", "phases.0.steps=2", "--json"]) == 0
    validation, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert set(validation) == {"n", "phase", "miou"}
    assert summary["mode"] == "whole"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetun"], r"got recipe 'finetun'; did you mean 'finetune'\? The choices are"),
        (["finetune", "--set", "bach=2"], r"got --set bach=2; there is no 'bach': did you mean"),
        (["finetune", "--device", "tpu"], r"tpu.*this machine has cpu"),
        (["finetune", "--trunk-inputs", "bgr"], r"'bgr' is not one of 'caffe', 'torchvision'"),
        (["chairs", "--val", "test"], r"got --val test for the recipe chairs, which takes no such"),
        (["zfnet", "--trunk-weights", "x"], r"got --trunk-weights x .* takes split, val; leave"),
    ],
)
def test_wrong_options_are_refused(arguments, message, data, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", *arguments, "--data", str(data), "-o", str(run)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not run.exists()


@pytest.mark.parametrize(
    ("how", "save_every", "after"),
    [
        (signal.SIGKILL, 1, "checkpoints/last.pt"),
        (signal.SIGINT, 1, "checkpoints/last.pt"),
        (signal.SIGKILL, 100, "metrics.jsonl"),  # before the first checkpoint
    ],
)
def test_a_run_goes_on_bit_for_bit(how, save_every, after, data, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(start(data, whole, save_every)) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "unpool", *start(data, broken, save_every)],
        stderr=subprocess.PIPE,
        text=True,
        # Sums depend on the number of threads, and this process has one (tests/conftest.py).
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wait_for(broken / after, process)
    process.send_signal(how)
    _, err = process.communicate()
    finished = (broken / "eval/summary.json").exists()  # before the signal came
    if how == signal.SIGINT and process.returncode == 130 and not finished:
        assert f"resume with: unpool train --resume {broken}" in err
    assert main(["train", "--resume", str(broken), "--quiet"]) == 0
    assert steps(broken) == steps(whole)
    tensors = [(run / "weights/model.safetensors").read_bytes() for run in (whole, broken)]
    assert tensors[0] == tensors[1]


def test_other_values_are_named(data, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(start(data, run)) == 0
    wrong = {
        ("--set", "batch=4"): "got --set batch=4 to resume",
        ("--split", "val"): "got --split val to resume",
        ("--data", str(tmp_path)): "got --data",
        ("objects",): "got the recipe objects to resume",
        ("finetune",): "with --set batch=2, not the recipe's 8; leave the recipe out",
    }
    for arguments, message in wrong.items():
        assert main(["train", "--resume", str(run), *arguments]) == 2
        assert message in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path / "nowhere")]) == 2
    assert "holds no run to resume" in capsys.readouterr().err
    assert main(["train", "finetune"]) == 2
    assert "got no --data, --output; wanted" in capsys.readouterr().err
    assert main(["train", "--resume"]) == 2
    assert "got no RUN after --resume; wanted" in capsys.readouterr().err


def test_several_folders_with_soft_labels(data, tmp_path, capsys, monkeypatch):
    """Parts with weights, both validation sets, distillation; resumed from the run alone."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data, "more")
    Path("soft").mkdir()
    for path in (data / "images").rglob("*.*"):
        name = path.relative_to(data / "images").with_suffix(".npy")
        (Path("soft") / name).parent.mkdir(exist_ok=True)
        np.save(Path("soft") / name, np.random.default_rng(0).normal(size=(2, 5, 6)))
    arguments = [*start(data, "run"), "--data", "more:train=0.5", "--soft", "soft"]
    assert main([*arguments, "--set", "phases.0.steps=4"]) == 2
    assert "got --set distill=0 and --soft soft; wanted both" in capsys.readouterr().err
    arguments += ["--set", "distill=0.5", "--set", 'distill_without=["square"]']
    assert main([*arguments, "--set", "phases.0.steps=4"]) == 0
    summary = json.loads(Path("run/eval/summary.json").read_text())
    assert summary["protocol"].startswith(f"{data.name} val + more val, ")
    card = json.loads(Path("run/weights/card.json").read_text())
    assert card["data"].startswith(f"{data.name} train + more train (weight 0.5), ")
    assert main(["train", "--resume", "run", "--quiet"]) == 0
    assert (
        main(["evaluate", "--weights", "run", "--data", str(data), "--data", "more", "--json"]) == 0
    )
    out = json.loads(capsys.readouterr().out)
    assert out["images"] == summary["images"]
    assert out["miou"] == pytest.approx(summary["miou"], abs=1e-6)
    assert main(["train", "--resume", "run", "--data", "more"]) == 2
    assert "to resume run, which was started with --data" in capsys.readouterr().err


def test_one_folder_for_other_recipes(data, tmp_path, capsys):
    many = ["--data", str(data), "--data", str(data)]
    assert main(["train", "zfnet-small", *many, "-o", str(tmp_path / "run")]) == 2
    assert "for the recipe zfnet-small, which takes one folder" in capsys.readouterr().err
