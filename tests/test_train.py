"""The training loop and its run folder, on a tiny network and drawn pictures."""

import dataclasses
import json
import shutil

import pytest
import torch

from unpool import Segmenter
from unpool.errors import OptionError, WeightsError
from unpool.recipes import Phase, Recipe
from unpool.train import train
from unpool.vision.images import read_image

TINY = Recipe(
    "tiny",
    phases=(
        Phase("coarse", stages=1, steps=3, lr=1e-2),
        Phase("fine", stages=2, steps=4, lr=1e-2, older_lr=1e-3, trunk_lr=1e-3),
    ),
    trunk=((1, 6), (1, 8)),
    code=None,
    size=32,
    batch=2,
    long_side=(32, 64),
    balance=0.5,
    dropout=0.2,
    validate_every=2,
    save_every=2,
    statistics_passes=2,
    whole_side=48,
)


def weights(folder):
    return (folder / "weights/model.safetensors").read_bytes()


def test_a_run_leaves_all_that_it_promises_and_its_weights_segment(data, tmp_path):
    records = []
    summary = train(data, tmp_path / "run", TINY, report=records.append, command="unpool train …")
    run = tmp_path / "run"
    assert summary["images"] == 2  # every fifth picture
    assert json.loads((run / "eval/summary.json").read_text())["miou"] == summary["miou"]
    assert Recipe.from_json(json.loads((run / "config.json").read_text())) == TINY
    assert "torch" in json.loads((run / "env.json").read_text())
    written = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert written == [record._asdict() for record in records]
    assert [r["n"] for r in written if "loss" in r] == [1, 2, 3, 4, 5, 6, 7]
    assert [r["n"] for r in written if "miou" in r] == [2, 4, 6, 7]
    assert read_image(run / "plots/predictions.png").ndim == 3
    card = json.loads((run / "weights/card.json").read_text())
    assert card["classes"] == ["background", "square"]
    assert card["command"] == "unpool train …"
    found = Segmenter.from_pretrained(run / "weights")(read_image(data / "images/0.png"))
    assert found.labels.shape == (40, 52)


def test_a_run_that_was_stopped_goes_on_bit_for_bit(data, tmp_path):
    train(data, tmp_path / "whole", TINY)

    class StopError(Exception):
        pass

    for stop in (1, 3, 5, 7):  # before, between and after checkpoints; 3 ends a phase

        def interrupt(record, stop=stop):
            if record.n == stop:
                raise StopError

        folder = tmp_path / f"stopped-{stop}"
        with pytest.raises(StopError):
            train(data, folder, TINY, report=interrupt)
        train(data, folder, TINY, resume=True)
        assert weights(folder) == weights(tmp_path / "whole")
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["n"] for line in lines if "loss" in line]
        assert steps == [1, 2, 3, 4, 5, 6, 7]


def test_a_run_is_not_overwritten_nor_resumed_as_another(data, tmp_path):
    train(data, tmp_path / "run", TINY)
    with pytest.raises(OptionError, match="holds a run already; pass --resume"):
        train(data, tmp_path / "run", TINY)
    other = dataclasses.replace(TINY, batch=3)
    with pytest.raises(OptionError, match="begun with another recipe"):
        train(data, tmp_path / "run", other, resume=True)
    (tmp_path / "run/checkpoints/last.pt").write_bytes(b"half")
    with pytest.raises(WeightsError, match=r"cannot read the checkpoint .*last\.pt"):
        train(data, tmp_path / "run", TINY, resume=True)


def test_a_full_disk_leaves_the_last_checkpoint_whole(data, tmp_path, monkeypatch):
    train(data, tmp_path / "run", TINY)
    before = (tmp_path / "run/checkpoints/last.pt").read_bytes()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")

    def fail(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    longer = dataclasses.replace(TINY, phases=(TINY.phases[0],))
    with pytest.raises(OSError, match="No space left"):
        train(data, tmp_path / "new", longer)
    assert list((tmp_path / "new/checkpoints").iterdir()) == []
    assert (tmp_path / "run/checkpoints/last.pt").read_bytes() == before
