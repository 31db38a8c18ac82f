"""A training run that is killed ten times, at moments of chance, ends as the one that was not."""

import json
import random
import signal
import subprocess
import sys
import time
import zipfile

import pytest
import torch

from unpool.recipes import SegmentationRecipe
from unpool.recipes.segment import Phase

RECIPE = SegmentationRecipe(
    "killed",
    phases=(
        Phase("coarse", stages=1, steps=12, lr=1e-2),
        Phase("fine", stages=2, steps=28, lr=1e-2, older_lr=1e-3, trunk_lr=1e-3),
    ),
    trunk=((1, 6), (1, 8)),
    code=None,
    size=32,
    batch=2,
    crop_long_side=(32, 64),
    dropout=0.2,
    trunk_norm=True,
    checkpointing=True,
    validate_every=3,
    save_every=2,
    statistics_passes=4,
    long_side=48,
)
STEPS = 40
CHILD = """
import json, sys, torch
from pathlib import Path
from unpool.recipes import SegmentationRecipe
from unpool import train
from unpool.training.run import has_run
torch.set_num_threads(1)
recipe = SegmentationRecipe.from_json(json.loads(sys.argv[3]))
print(0, flush=True)
resume = has_run(Path(sys.argv[2]))
train(sys.argv[1], sys.argv[2], recipe, resume=resume, report=lambda r: print(r.n, flush=True))
"""


def begin(data, folder):
    command = [sys.executable, "-c", CHILD, data, folder, json.dumps(RECIPE.to_json())]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_after(child, step, delay):
    """Kill the run some time after it has reported a step."""
    for line in child.stdout:
        if int(line) >= step:
            break
    time.sleep(delay)
    child.kill()
    child.wait()
    child.stdout.close()
    return child.returncode


def whole(path):
    """Whether a checkpoint is as it was written; by the standard library, and by torch."""
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None and "model" in torch.load(path, weights_only=True)


def leftovers(folder):
    return [path for path in folder.rglob(".*") if path.is_file()]


def times(data, folder):
    """Seconds of a step, and from the last record to the end; of a run that nothing disturbs."""
    child = begin(data, folder)
    reports = [time.perf_counter() for _ in child.stdout]
    assert child.wait() == 0
    child.stdout.close()
    return (reports[-1] - reports[1]) / STEPS, time.perf_counter() - reports[-1]


@pytest.mark.slow
def test_ten_kills_change_nothing(data, tmp_path):
    seed = time.time_ns() % 1_000_000
    chance = random.Random(seed)
    each, end = times(data, tmp_path / "whole")
    print(f"seed {seed}; {each:.3f} s a step, {end:.2f} s to end")
    steps = [*sorted(chance.randint(1, STEPS) for _ in range(8)), STEPS, 0]  # two at the end
    folder = tmp_path / "killed"
    for number, step in enumerate(steps):
        code = 0
        while code == 0:  # the end of a run may come before its kill
            delay = chance.uniform(0, 3 * each if number < 8 else end / 2)
            code = kill_after(begin(data, folder), step, delay)
            step = 0 if code == 0 else step  # it has ended: the next one reports no step
        halves = leftovers(folder)
        print(f"{delay:.3f} s after step {step}: {code}, {[path.name for path in halves]}")
        assert code == -signal.SIGKILL
        assert len(halves) <= 2  # of this kill: a resumed run removes what it finds
        for path in (folder / "checkpoints").glob("[!.]*.pt"):
            assert whole(path)
    child = begin(data, folder)
    child.communicate()
    assert child.returncode == 0
    for name in ("weights/model.safetensors", "eval/summary.json"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert leftovers(folder) == []
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["n"] for r in records if "loss" in r] == list(range(1, STEPS + 1))
