import dataclasses
import functools
import json
import math
import os
import shutil
import warnings
from typing import NamedTuple

import pytest
import torch
from torch import nn

from tests.segment.test_train import FILES, TINY, files, weights
from unpool import train
from unpool.errors import DataError, OptionError, TrainingError, WeightsError
from unpool.recipes.segment import FINETUNE
from unpool.training.run import (
    Run,
    has_checkpoint,
    has_run,
    load_state,
    read_arguments,
    save_state,
    writing,
)

RECIPE = dataclasses.replace(FINETUNE, patience=2)
ARGUMENTS = {"data": "/data", "split": "train", "trunk_weights": None}


class Score(NamedTuple):
    n: int
    miou: float


def start(folder, classes=("a", "b"), recipe=RECIPE, **options):
    torch.manual_seed(0)
    learner = nn.Linear(2, 1)
    run = Run(folder, recipe, list(classes), learner, arguments=ARGUMENTS, **options)
    run.state.optimizer = torch.optim.SGD(learner.parameters(), 0.1, momentum=0.9)
    return run


@pytest.fixture
def folder(tmp_path):
    """A run of three validations and a checkpoint after the second."""
    run = start(tmp_path / "run")
    for n, miou in ((1, 0.5), (2, 0.4), (3, 0.3)):
        run.state.step = n
        run.learner.bias.data.fill_(n)
        run.log(Score(n, miou), None)
        if n < 3:
            run.keep_best(miou)
        if n == 2:
            run.save()
    return run.folder


def test_a_resumed_run_has_the_state_of_its_checkpoint(folder):
    run = start(folder, resume=True)
    assert (run.state.step, run.best, run.since_best) == (2, 0.5, 1)
    assert run.learner.bias.item() == 2
    assert run.optimizer_state["param_groups"][0]["momentum"] == 0.9
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["n"] for record in records] == [1, 2]  # the third came after the checkpoint
    run.load_best()
    assert run.learner.bias.item() == 1


def test_early_stopping_counts_validations_without_a_better_one(folder):
    run = start(folder, resume=True)
    assert not run.stopped_early
    run.keep_best(0.5)  # as good is not better
    assert run.stopped_early
    run.keep_best(0.6)
    assert (run.stopped_early, run.since_best) == (False, 0)


def test_another_run_is_refused(folder):
    with pytest.raises(OptionError, match="holds a run already; pass resume=True"):
        start(folder)
    with pytest.raises(DataError, match="started on other classes"):
        start(folder, classes=("a", "c"), resume=True)
    with pytest.raises(OptionError, match="started with another recipe"):
        start(folder, recipe=FINETUNE, resume=True)


def test_the_arguments_are_those_of_the_run(folder, tmp_path):
    assert read_arguments(folder) == (RECIPE, ARGUMENTS)
    assert has_checkpoint(folder)
    assert has_run(folder)
    (folder / "checkpoints/last.pt").unlink()
    assert has_run(folder)  # interrupted before the first checkpoint
    (folder / "eval").mkdir()
    (folder / "eval/summary.json").touch()
    assert not has_run(folder)  # finished, and its checkpoints deleted
    with pytest.raises(OptionError, match="holds no run to resume"):
        read_arguments(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "music", "data": "/data"}'])
def test_damaged_arguments_are_refused(folder, text):
    (folder / "arguments.json").write_text(text)
    with pytest.raises(WeightsError, match="pass the recipe and the data to resume"):
        read_arguments(folder)


def test_a_checkpoint_is_read_whole_or_refused(tmp_path):
    path = tmp_path / "last.pt"
    save_state(path, {"model": {"weight": torch.arange(4.0)}})
    assert torch.equal(load_state(path)["model"]["weight"], torch.arange(4.0))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(WeightsError, match=r"cannot read the checkpoint .*last\.pt"):
        load_state(path)
    save_state(path, {"weights": {}})
    with pytest.raises(WeightsError, match="KeyError: 'model'"):
        load_state(path)


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"5",
        b'{"n": "2"}',
        b'{"n": 2',
        b"[" * 10**5,
        b"\xff\xfe",
        b'{"n": ' + b"1" * 5000 + b"}",
    ],
    ids=range(7),
)
def test_damaged_records_are_left_out(folder, line):
    path = folder / "metrics.jsonl"
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + line + b"\n" + b"".join(others) + b'{"n": 1')
    start(folder, resume=True)
    assert [json.loads(one)["n"] for one in path.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((lambda s, k=k: s.pop(k), f"without its {k}") for k in ("optimizer", "step", "recipe")),
        *((lambda s, k=k: s.pop(k), f"without its {k}") for k in ("best", "since_best", "classes")),
        (lambda s: s.update(step="2"), "without its step"),
        (lambda s: s.update(best=math.nan), "without its best"),
        (lambda s: s.update(recipe="{"), "started with another recipe"),
        (lambda s: s.update(recipe="[" * 10**5), "started with another recipe"),
        (lambda s: s["model"].pop("bias"), "bias is missing"),
        (lambda s: s["model"].update(more=torch.zeros(1)), "more is not wanted"),
        (lambda s: s["model"].update(bias=torch.zeros(2)), r"bias is \(2,\), wanted \(1,\)"),
        (lambda s: s["model"].update(bias=torch.tensor([math.nan])), "where bias is not finite"),
        (lambda s: s["model"].update(bias=1.0), "more than named tensors"),
        (lambda s: s.update(model=[1]), "more than named tensors"),
        (lambda s: s.pop("model"), "cannot read the checkpoint"),
    ],
)
def test_checkpoints_of_another_network_or_damaged_ones(folder, change, message):
    path = folder / "checkpoints/last.pt"
    state = torch.load(path)
    change(state)
    torch.save(state, path)
    with pytest.raises((WeightsError, OptionError), match=message):
        start(folder, resume=True)


def test_the_best_network_must_fit_too(folder):
    torch.save({"model": {"weight": torch.zeros(3, 1)}}, folder / "checkpoints/best.pt")
    with pytest.raises(WeightsError, match=r"best\.pt do not fit: bias is missing"):
        start(folder, resume=True)


@pytest.mark.parametrize("name", ["checkpoints/last.pt", "config.json", "metrics.jsonl"])
def test_pipes_in_a_run_folder_are_refused(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    read = read_arguments if name == "config.json" else functools.partial(start, resume=True)
    with pytest.raises(WeightsError, match="a pipe, device or socket"):
        read(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"batch": "8"}),
        ("config.json", [1]),
        ("arguments.json", [1]),
        ("arguments.json", {"kind": "segmentation"}),
        ("arguments.json", {"kind": ["segmentation"], "data": "d"}),
        ("arguments.json", {"kind": "segmentation", "data": []}),
        ("arguments.json", {"kind": "segmentation", "data": ["d", 5]}),
        ("arguments.json", {"kind": "segmentation", "data": "d", "val": [["v"]]}),
        ("arguments.json", {"kind": "segmentation", "data": 5}),
        ("arguments.json", {"kind": "segmentation", "data": "a\0b"}),
    ],
)
def test_damaged_recipes_and_arguments(folder, name, content):
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="cannot read the recipe and arguments of"):
        read_arguments(folder)


def test_errors_of_writing_say_how_to_continue(tmp_path):
    message = r"cannot write .*: No space left; .* make room"
    with pytest.raises(TrainingError, match=message), writing(tmp_path):
        raise OSError(28, "No space left")


def test_a_note_is_a_warning_at_the_callers_line(tmp_path):
    run = start(tmp_path / "run")
    with warnings.catch_warnings(record=True, action="always") as caught:
        run.note("no matplotlib")
    assert [(str(w.message), w.filename) for w in caught] == [("no matplotlib", __file__)]
    assert run.notes == ["no matplotlib"]


def flip(path):
    """Change a byte of the largest tensor."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def test_a_corrupt_checkpoint_is_refused(data, tmp_path):
    run = tmp_path / "run"
    train(data, run, TINY)
    shutil.copytree(run, tmp_path / "copy")
    last, best = run / "checkpoints/last.pt", run / "checkpoints/best.pt"

    def restore(path):
        shutil.copy(tmp_path / "copy" / path.relative_to(run), path)

    for path in (last, best):
        for spoil in (flip, lambda path: path.write_bytes(path.read_bytes()[:-100])):
            spoil(path)
            message = rf"cannot read the checkpoint .*{path.name} .*; put back a copy, or start"
            with pytest.raises(WeightsError, match=message):
                train(data, run, TINY, resume=True)
            restore(path)
    shutil.copy(best, last)
    with pytest.raises(WeightsError, match=r"last\.pt holds a network without its optimizer"):
        train(data, run, TINY, resume=True)
    restore(last)
    state = torch.load(last, weights_only=True)
    del state["since_best"]
    torch.save(state, last)
    with pytest.raises(WeightsError, match=r"last\.pt holds a network without its since_best"):
        train(data, run, TINY, resume=True)
    restore(last)
    before = weights(run)
    train(data, run, TINY, resume=True)
    assert weights(run) == before


def test_leftovers_of_a_run_without_checkpoint_are_removed(data, tmp_path):
    """One that was killed before its first checkpoint, but after a validation."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/best.pt").write_bytes(b"of another run")
    name = ".unpool-0123456789ab-4711-99-abcdef01"  # of another host
    leftovers = [f"checkpoints/{name}.pt", f"{name}.jsonl"]
    others = [".note", "checkpoints/.keep.txt"]
    for name in leftovers + others:
        (run / name).write_bytes(b"half")
    train(data, run, TINY)
    assert files(run) == FILES | set(others)


def test_a_full_disk_keeps_the_last_checkpoint(data, tmp_path, monkeypatch):
    train(data, tmp_path / "run", TINY)
    before = (tmp_path / "run/checkpoints/last.pt").read_bytes()

    def fail(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    message = r"cannot write .*best\.pt: No space left on device; .* make room and resume"
    with pytest.raises(TrainingError, match=message):
        train(data, tmp_path / "new", dataclasses.replace(TINY, phases=(TINY.phases[0],)))
    assert list((tmp_path / "new/checkpoints").iterdir()) == []
    assert (tmp_path / "run/checkpoints/last.pt").read_bytes() == before


def test_a_run_resumes_once_there_is_room(data, tmp_path):
    """The system refuses to write more than some bytes; a checkpoint, then the weights."""
    resource = pytest.importorskip("resource", reason="limits of files are those of Unix")
    train(data, tmp_path / "whole", TINY)
    run, (soft, hard) = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    try:

        def fill(record):
            if record.n == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

        with pytest.raises(TrainingError, match=r"cannot write .*last\.pt: File too large"):
            train(data, run, TINY, report=fill)
        assert files(run / "checkpoints") == {"best.pt", "last.pt"}
        assert torch.load(run / "checkpoints/last.pt")["step"] == 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        train(data, run, TINY, resume=True)
        assert weights(run) == weights(tmp_path / "whole")
        shutil.rmtree(run / "weights")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
        with pytest.raises(TrainingError, match=r"cannot write .*weights: .*nothing is lost up to"):
            train(data, run, TINY, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    train(data, run, TINY, resume=True)
    assert weights(run) == weights(tmp_path / "whole")
    assert files(run) == FILES
