"""A task that no application knows: a line through points, trained by the engine alone."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest
import torch
from torch import nn

from tests.runs import records
from unpool.errors import OptionError, TrainingError, WeightsError
from unpool.recipes import Recipe
from unpool.training import loop, progress
from unpool.training.task import Task, train

STEPS = 30
FILES = {
    "config.json",
    "arguments.json",
    "env.json",
    "metrics.jsonl",
    "checkpoints/last.pt",
    "checkpoints/best.pt",
    "eval/summary.json",
    "plots/curves.png",
    "line.json",
}
CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent))
from test_task import RECIPE, Line
from unpool.training.task import train
train(Line(RECIPE), sys.argv[2], report=lambda r: print(r.n, flush=True))
"""


@dataclasses.dataclass(frozen=True)
class LineRecipe(Recipe):
    kind: ClassVar[str] = "line"

    lr: float = 0.05


RECIPE = LineRecipe("line", batch=8, accumulate=2, validate_every=4, save_every=5, warmup=3)


class Error(NamedTuple):
    n: int
    mse: float


class LineObjective(loop.Objective):
    def steps(self):
        return [STEPS]

    def groups(self):
        return loop.filters_and_biases(self.learner, self.recipe.lr, self.recipe)

    def losses(self, part):
        x, y = part
        x = nn.functional.dropout(x, 0.2)  # so that the seed of each step counts
        loss = (self.network(x) - y).square().mean()
        return loss, loss


class Line(Task):
    panels = ({"mse": "MSE"},)

    def __init__(self, recipe):
        self.recipe, self.classes = recipe, ["y"]

    def open(self):
        chance = torch.Generator().manual_seed(0)
        self.x = torch.rand(64, 1, generator=chance)
        self.y = 3 * self.x - 1

    def build(self, device):
        return LineObjective(nn.Linear(1, 1).to(device), self.recipe)

    def batches(self, run, start, size):
        while True:
            rows = torch.arange(start * size, (start + 1) * size) % len(self.x)
            yield self.x[rows], self.y[rows]
            start += 1

    @torch.no_grad()
    def validate(self, run, n):
        return Error(n, float((self.objective.learner(self.x) - self.y).square().mean()))

    def score(self, record):
        return -record.mse

    def finish(self, run, stream, command):
        line = {k: v.tolist() for k, v in self.objective.learner.state_dict().items()}
        (run.folder / "line.json").write_text(json.dumps(line))
        return {**self.validate(run, STEPS)._asdict(), "notes": run.notes}


def test_a_new_task_learns_and_writes_its_run_folder(tmp_path):
    pytest.importorskip("matplotlib")
    summary = train(Line(RECIPE), tmp_path)
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == FILES
    errors = [record["mse"] for record in records(tmp_path) if "mse" in record]
    assert errors[-1] < errors[0] / 2
    assert summary["mse"] == min(errors)  # the best is taken, whatever comes last
    assert json.loads((tmp_path / "eval/summary.json").read_text()) == summary
    assert [r["n"] for r in records(tmp_path) if "mse" in r] == [4, 8, 12, 16, 20, 24, 28, 30]


def test_a_killed_run_resumes_bit_for_bit(tmp_path):
    train(Line(RECIPE), tmp_path / "whole")
    command = [sys.executable, "-c", CHILD, Path(__file__), tmp_path / "killed"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    for line in child.stdout:
        if int(line) == 18:  # the last checkpoint is that of step 16 or before
            break
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    checkpoint = torch.load(tmp_path / "killed/checkpoints/last.pt", weights_only=True)
    assert 0 < checkpoint["step"] < STEPS
    train(Line(RECIPE), tmp_path / "killed", resume=True)
    assert records(tmp_path / "killed") == records(tmp_path / "whole")
    for name in ("line.json", "eval/summary.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_progress_is_printed_unless_silenced(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PERIOD", 0)
    monkeypatch.setattr(Line, "plan", lambda line: f"a line through {len(line.x)} points")
    train(Line(RECIPE), tmp_path / "a")
    out, err = capsys.readouterr()
    first, *others = err.splitlines()
    assert first == "a line through 64 points"
    steps = [line for line in others if line.startswith("unpool: training, loss ")]
    validations = [line for line in others if line.startswith("Error(n=")]
    assert (out, len(steps), len(validations)) == ("", STEPS, 8)
    assert "30 of 30 (100 %)" in steps[-1]
    train(Line(RECIPE), tmp_path / "b", report=False)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(OptionError, match=r"got report=True; wanted a function"):
        train(Line(RECIPE), tmp_path / "c", report=True)
    assert not (tmp_path / "c").exists()


def test_early_stopping_ends_a_run(tmp_path):
    recipe = dataclasses.replace(RECIPE, lr=0.0, patience=2)
    train(Line(recipe), tmp_path)
    assert [r["n"] for r in records(tmp_path) if "mse" in r] == [4, 8, 12]
    assert records(tmp_path)[-1]["n"] == 12


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    train(Line(RECIPE), tmp_path)
    with pytest.raises(OptionError, match=r"holds a run already; pass resume=True"):
        train(Line(RECIPE), tmp_path)
    with pytest.raises(OptionError, match=r"started with another recipe"):
        train(Line(dataclasses.replace(RECIPE, lr=0.01)), tmp_path, resume=True)


def test_a_checkpoint_of_a_later_step_than_the_last_is_refused(tmp_path):
    train(Line(RECIPE), tmp_path)
    path = tmp_path / "checkpoints/last.pt"
    torch.save(torch.load(path) | {"step": 10**30}, path)
    with pytest.raises(WeightsError, match=r"last\.pt of step 10+ of 30; put back a copy"):
        train(Line(RECIPE), tmp_path, resume=True)


def test_a_loss_that_is_not_finite_names_a_cure(tmp_path):
    with pytest.raises(TrainingError, match=r"\(training, learning rate .*such as a tenth of lr"):
        train(Line(dataclasses.replace(RECIPE, lr=9.0, momentum=0.999, warmup=0)), tmp_path)
