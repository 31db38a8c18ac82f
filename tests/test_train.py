"""The training loop and its run folder, on a tiny network and drawn pictures."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from unpool import Segmenter
from unpool.data.crops import Views, batches
from unpool.data.voc import open_data
from unpool.errors import OptionError, WeightsError
from unpool.fitting import TrainingError, estimate_statistics, fit
from unpool.models import DeconvNet
from unpool.models.scaffold import Scaffold
from unpool.recipes import Phase, Recipe
from unpool.train import train
from unpool.vision.images import read_image, write_mask

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


@pytest.fixture
def data(tmp_path):
    """Ten pictures with a bright square on dark ground."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for i in range(10):
        image = rng.integers(0, 60, (40, 52, 3), dtype=np.uint8)
        labels = np.zeros((40, 52), np.uint8)
        y, x = rng.integers(2, 16, 2)
        image[y : y + 20, x : x + 20] += 150
        labels[y : y + 20, x : x + 20] = 1
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "images" / f"{i}.png")
        write_mask(root / "masks" / f"{i}.png", labels)
    (root / "classes.txt").write_text("background\nsquare\n")
    return root


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


def test_the_loss_falls_and_a_frozen_trunk_stays(data):
    torch.manual_seed(0)
    scaffold = Scaffold(DeconvNet(2, TINY.trunk, None, 32))
    before = {k: v.clone() for k, v in scaffold.net.trunk.state_dict().items()}
    recipe = dataclasses.replace(
        TINY, phases=(Phase("coarse", 1, 40, 1e-2),), dropout=0.0, bf16=False
    )
    stream = batches(open_data(data, "train"), Views(32, (48, 64)), 4)
    losses = [step.loss for step in fit(scaffold, stream, recipe)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    for name, value in scaffold.net.trunk.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_loss_that_is_not_finite_stops_the_training(data):
    scaffold = Scaffold(DeconvNet(2, TINY.trunk, None, 32))
    with torch.no_grad():
        scaffold.heads[0].bias.fill_(torch.nan)
    stream = batches(open_data(data, "train"), Views(32, (48, 64)), 2)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 1 \(phase coarse"):
        next(fit(scaffold, stream, TINY))


def test_statistics_are_the_mean_over_the_batches(data):
    """Against the mean of each batch's own moments, taken by hooks."""
    net = DeconvNet(2, TINY.trunk, None, 32)
    norm = net.get_submodule("decoder.1.debn1_1")
    seen = []

    def hook(module, inputs):
        x = inputs[0].float()
        seen.append((x.mean((0, 2, 3)), x.var((0, 2, 3), correction=1)))

    handle = norm.register_forward_pre_hook(hook)
    net.train()
    estimate_statistics(net, batches(open_data(data, "train"), Views(32, (32, 64)), 3), 4)
    handle.remove()
    assert len(seen) == 4
    mean, variance = (torch.stack(parts).mean(0) for parts in zip(*seen, strict=True))
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-2, atol=1e-3)
    assert not net.training
