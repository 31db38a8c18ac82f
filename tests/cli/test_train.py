"""`unpool train --resume RUN`: an interrupted run goes on by itself."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from unpool.cli import main

TINY = (
    "start=null trunk=vgg11 size=32 crop_long_side=[32,64] batch=2 bf16=false long_side=48 "
    "statistics_passes=1 validate_every=20 save_every=1 phases.0.steps=8 phases.0.stages=1"
)
SETTINGS = [word for setting in TINY.split() for word in ("--set", setting)]


def start(data, run):
    arguments = ["finetune", "--data", str(data), "-o", str(run), *SETTINGS, "--device", "cpu"]
    return ["train", *arguments, "--quiet"]


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


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_goes_on_bit_for_bit(how, data, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(start(data, whole)) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "unpool", *start(data, broken)],
        stderr=subprocess.PIPE,
        text=True,
        # Sums depend on the number of threads, and this process has one (tests/conftest.py).
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wait_for(broken / "checkpoints/last.pt", process)
    process.send_signal(how)
    _, err = process.communicate()
    if how == signal.SIGINT and process.returncode == 130:
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
    }
    for arguments, message in wrong.items():
        assert main(["train", "--resume", str(run), *arguments]) == 2
        assert message in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path / "nowhere")]) == 2
    assert "holds no run with a checkpoint" in capsys.readouterr().err
    assert main(["train", "finetune"]) == 2
    assert "got no --data, --output; wanted" in capsys.readouterr().err
