"""Training a classifier, on a tiny network and drawn shapes."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from tests.classify.shapes import make
from tests.runs import files
from unpool import Segmenter, recipes, train
from unpool.classify.train import Accuracy, ClassificationObjective, build
from unpool.cli import main
from unpool.data.crops import Batch
from unpool.errors import DataError, ImageError, OptionError, TrainingError, WeightsError
from unpool.models import AlexNet, ZFNet, from_pretrained, load_tensors, prepare
from unpool.ops import FastDeconv
from unpool.recipes import RECIPES, ClassificationRecipe, override
from unpool.training.loop import Step, fit
from unpool.training.run import load_state
from unpool.training.task import Plan
from unpool.vision.images import read_image

TINY = ClassificationRecipe(
    "tiny",
    widths=(8, 12, 16, 16, 12),
    code=24,
    size=48,
    deviation=None,
    dropout=0.2,
    batch=12,
    enlarged=52,
    corners=False,
    epochs=3,
    optimizer="adamw",
    lr=2e-3,
    plateau=None,
    save_every=2,
    keep=(1, 3, 40),
)
FILES = {
    "config.json",
    "arguments.json",
    "env.json",
    "metrics.jsonl",
    "checkpoints/last.pt",
    "checkpoints/best.pt",
    "checkpoints/epochs/001.safetensors",
    "checkpoints/epochs/003.safetensors",
    "weights/card.json",
    "weights/model.safetensors",
    "eval/summary.json",
    "eval/confusion.csv",
    "plots/predictions.png",
    "plots/curves.png",
    "plots/confusion.png",
}


def weights(folder):
    return (folder / "weights/model.safetensors").read_bytes()


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_all_that_it_promises(shapes, tmp_path):
    seen, run = [], tmp_path / "run"
    summary = train(shapes, run, TINY, report=seen.append, command="unpool train …")
    assert files(run) == FILES
    assert seen[0] == Plan("30 images of 3 classes: 3 epochs, 8 steps")
    assert [r.n for r in seen if isinstance(r, Step)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [(r.n, r.epoch) for r in seen if isinstance(r, Accuracy)] == [(3, 1), (5, 2), (8, 3)]
    assert records(run) == [record._asdict() for record in seen[1:]]
    assert json.loads((run / "eval/summary.json").read_text()) == summary
    assert (summary["images"], summary["notes"]) == (15, [])
    assert np.sum(summary["confusion"]) == 15
    assert ClassificationRecipe.from_json(json.loads((run / "config.json").read_text())) == TINY
    net, card = from_pretrained(run / "weights")
    assert isinstance(net, ZFNet)
    assert (net.classes, net.size) == (3, 48)
    assert card.classes == ["cross", "disk", "square"]
    assert card.input["enlarged"] == 52
    (figures,) = card.figures.values()
    assert figures["top1"] == summary["top1"] == max(r.top1 for r in seen if "top1" in dir(r))
    assert read_image(run / "plots/confusion.png").ndim == 3
    last = load_state(run / "checkpoints/last.pt")["model"]
    kept = ZFNet(**net.arguments)
    load_tensors(kept, run / "checkpoints/epochs/003.safetensors")
    assert all(torch.equal(value, last[name]) for name, value in kept.state_dict().items())
    first = load_file(run / "checkpoints/epochs/001.safetensors")
    assert any(not torch.equal(value, last[name]) for name, value in first.items())


def test_shapes_are_learned(tmp_path):
    data = make(tmp_path / "more shapes", 40, 20)
    recipe = override(TINY, ["epochs=15", "lr=3e-3", "dropout=0", "bf16=false", "keep=[]"])
    summary = train(data, tmp_path / "run", recipe)
    assert summary["top1"] > 0.7  # by chance 0.33
    losses = [r["loss"] for r in records(tmp_path / "run") if "loss" in r]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


@pytest.mark.parametrize(("optimizer", "stops"), [("adamw", (1, 6)), ("sgd", (3, 8))])
def test_a_resumed_run_equals_an_uninterrupted_one(shapes, tmp_path, optimizer, stops, stopped_at):
    recipe = dataclasses.replace(TINY, optimizer=optimizer, accumulate=2)
    train(shapes, tmp_path / "whole", recipe)
    for stop in stops:  # before a checkpoint, on the way; at an epoch's end, at the end
        folder = tmp_path / f"stopped-{stop}"
        with stopped_at(stop) as report:
            train(shapes, folder, recipe, report=report)
        train(shapes, folder, recipe, resume=True)
        assert weights(folder) == weights(tmp_path / "whole")
        assert files(folder) == FILES
        for name in ("001", "003"):
            kept = [
                f / f"checkpoints/epochs/{name}.safetensors" for f in (folder, tmp_path / "whole")
            ]
            assert kept[0].read_bytes() == kept[1].read_bytes()
        assert [r["n"] for r in records(folder) if "loss" in r] == list(range(1, 9))


def test_a_run_is_not_overwritten_nor_resumed_as_another(shapes, tmp_path):
    train(shapes, tmp_path / "run", TINY)
    with pytest.raises(OptionError, match="holds a run already; pass resume=True"):
        train(shapes, tmp_path / "run", TINY)
    with pytest.raises(OptionError, match="started with another recipe"):
        train(shapes, tmp_path / "run", dataclasses.replace(TINY, lr=0.5), resume=True)
    state = load_state(tmp_path / "run/checkpoints/last.pt")
    state["recipe"] = json.dumps(
        recipes.RECIPES["objects"].to_json()
    )  # a training run of the other kind
    torch.save(state, tmp_path / "run/checkpoints/last.pt")
    with pytest.raises(OptionError, match="started with another recipe"):
        train(shapes, tmp_path / "run", TINY, resume=True)


def random_batches(size=4, side=48, classes=3):
    rng = np.random.default_rng(0)
    while True:
        images = rng.integers(0, 256, (size, side, side, 3), dtype=np.uint8)
        yield Batch(images, rng.integers(0, classes, size))


def test_the_published_update_is_momentum_and_renormalization():
    """Against the rule written down with plain tensors; gradients from autograd."""
    recipe = dataclasses.replace(
        TINY, dropout=0.0, optimizer="sgd", lr=0.05, batch=8, accumulate=2, epochs=3, bf16=False,
        plateau=9, clip=None, rms=0.02,
    )  # fmt: skip
    torch.manual_seed(0)
    net = build(recipe, 3)
    velocity = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    twin = build(recipe, 3)
    twin.load_state_dict(net.state_dict())
    stream, cut = random_batches(), 0
    for _ in range(6):
        twin.zero_grad()
        for _ in range(2):
            batch = next(stream)
            scores = twin(prepare(torch.from_numpy(batch.images)))
            (F.cross_entropy(scores, torch.from_numpy(batch.labels)) / 2).backward()
        with torch.no_grad():
            for name, p in twin.named_parameters():
                velocity[name] = 0.9 * velocity[name] + p.grad
                p -= 0.05 * velocity[name]
                if p.dim() == 4:
                    for one in p:
                        rms = one.square().mean().sqrt()
                        if rms > 0.02:
                            one *= 0.02 / rms
                            cut += 1
    steps = list(fit(ClassificationObjective(net, recipe, 16), random_batches()))
    assert len(steps) == 6
    assert cut > 20
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6, msg=name)


def test_the_rate_falls_where_validations_stand_still(shapes, tmp_path, stopped_at):
    """With a rate of next to nothing they do so from the first on; also in a resumed run."""
    recipe = dataclasses.replace(TINY, optimizer="sgd", lr=1e-12, plateau=2, epochs=6)
    train(shapes, tmp_path / "whole", recipe)
    found = records(tmp_path / "whole")
    assert len({r["top1"] for r in found if "top1" in r}) == 1
    rates = {r["n"]: r["lr"] for r in found if "loss" in r}
    wanted = {n: 1e-12 if n <= 8 else 1e-13 if n <= 13 else 1e-14 for n in range(1, 16)}
    assert rates == pytest.approx(wanted, rel=1e-6, abs=0)  # epochs 3 and 5 end at steps 8 and 13
    with stopped_at(11) as report:
        train(shapes, tmp_path / "stopped", recipe, report=report)
    train(shapes, tmp_path / "stopped", recipe, resume=True)
    again = {r["n"]: r["lr"] for r in records(tmp_path / "stopped") if "loss" in r}
    assert again == rates


def test_early_stopping(shapes, tmp_path):
    recipe = dataclasses.replace(TINY, optimizer="sgd", lr=1e-12, patience=2, epochs=9)
    train(shapes, tmp_path / "run", recipe)
    assert [r["epoch"] for r in records(tmp_path / "run") if "top1" in r] == [1, 2, 3]


def test_a_loss_that_is_not_finite_stops_the_training():
    net = build(TINY, 3)
    with torch.no_grad():
        net.classifier.fc8.bias.fill_(torch.nan)
    recipe = dataclasses.replace(TINY, batch=4)
    with pytest.raises(TrainingError, match=r"the loss is nan .* such as lr=0\.0002"):
        next(fit(ClassificationObjective(net, recipe, 12), random_batches()))


@pytest.mark.parametrize(("images", "batch"), [(30, 12), (7, 3), (5, 5), (3, 8), (100, 1)])
def test_epochs_count_passes_over_the_images(images, batch):
    recipe = dataclasses.replace(TINY, batch=batch, epochs=4)
    objective, seen = ClassificationObjective(build(recipe, 3), recipe, images), 0
    for n in range(1, sum(objective.steps()) + 1):
        seen += batch
        assert objective.epochs(n) == min(seen // images, 4)
    assert 4 * images <= seen < 4 * images + batch


ALONE = dataclasses.replace(
    TINY, accumulate=2, dropout=0.0, bf16=False, optimizer="sgd", lr=0.02, clip=1.0
)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(shapes, tmp_path):
    one = train(shapes, tmp_path / "one", ALONE)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *torchrun, __file__, shapes, tmp_path / "two"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert files(tmp_path / "two") == FILES
    assert json.loads((tmp_path / "two/eval/summary.json").read_text())["top1"] == one["top1"]
    alone, shared = (
        load_file(tmp_path / f"{name}/checkpoints/epochs/003.safetensors")
        for name in ("one", "two")
    )
    for name, tensor in alone.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-5, atol=1e-6)


def test_the_network_may_be_an_alexnet_and_no_other():
    recipe = dataclasses.replace(TINY, network="AlexNet", size=64)
    assert isinstance(build(recipe, 4), AlexNet)
    with pytest.raises(OptionError, match="got network=FCN in a recipe; the choices are ZFNet, Al"):
        override(TINY, ["network=FCN"])


def test_normalization_is_an_option(shapes, tmp_path, stopped_at):
    recipe = override(TINY, ["norm=deconv", "widths=4,4,4,4,4", "epochs=2", "keep=[]"])
    summary = train(shapes, tmp_path / "whole", recipe)
    with stopped_at(4) as report:
        train(shapes, tmp_path / "stopped", recipe, report=report)
    train(shapes, tmp_path / "stopped", recipe, resume=True)  # the statistics, too
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    net, card = from_pretrained(tmp_path / "whole/weights")
    assert (card.arguments["norm"], type(net.features.conv1)) == ("deconv", FastDeconv)
    assert summary["images"] == 15
    with pytest.raises(OptionError, match="got norm=layer in a recipe; the choices are batch, dec"):
        override(TINY, ["norm=layer"])


def test_runs_from_before_there_was_normalization_go_on(shapes, tmp_path, stopped_at):
    with stopped_at(3) as report:
        train(shapes, tmp_path, TINY, report=report)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("norm") is None
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert train(shapes, tmp_path, TINY, resume=True)["images"] == 15


# ---- what cannot be used -------------------------------------------------------------------------


def test_bad_data_is_found_before_the_first_step(shapes, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    (root / "val/disk/9.png").write_bytes(b"\x89PNG")
    with pytest.raises(ImageError, match=r"disk/9\.png"):
        train(root, tmp_path / "run", TINY)
    shutil.rmtree(root / "val/disk")
    shutil.copytree(root / "val/cross", root / "val/star")
    with pytest.raises(DataError, match="with the classes star, which the training split does"):
        train(root, tmp_path / "run", TINY)
    assert not (tmp_path / "run").exists()


def test_classes_without_validation_images_are_noted(shapes, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    shutil.rmtree(root / "val/disk")
    with pytest.warns(UserWarning, match="val has no image of disk, which are not evaluated"):
        summary = train(root, tmp_path / "run", override(TINY, ["epochs=1"]))
    assert summary["recall"]["disk"] is None
    assert len(summary["notes"]) == 1


def test_without_matplotlib_only_the_plots_are_missing(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr("unpool.training.task.find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="curves.png is left out"):
        train(shapes, tmp_path / "run", TINY)
    assert files(tmp_path / "run") == FILES - {"plots/curves.png", "plots/confusion.png"}


def test_classifiers_are_not_taken_for_segmenters(shapes, data, tmp_path):
    train(shapes, tmp_path / "run", override(TINY, ["epochs=1"]))
    with pytest.raises(WeightsError, match=r"classif"):
        Segmenter.from_pretrained(tmp_path / "run/weights")
    warm = override(recipes.RECIPES["finetune"], [f"start={tmp_path / 'run/weights'}"])
    with pytest.raises(OptionError, match="got ZFNet weights to start from"):
        train(data, tmp_path / "other", warm)


# ---- on the command line -------------------------------------------------------------------------


@pytest.fixture
def run(capsys, tmp_path, monkeypatch, shapes):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(RECIPES, "tiny", TINY)

    def run(*args):
        code = main([str(arg) for arg in ("train", *args)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


def test_a_run_is_reported_line_by_line(run, shapes):
    code, out, err = run("tiny", "--data", shapes, "-o", "my run")
    assert (code, err) == (0, [])
    assert out[0] == "30 images of 3 classes: 3 epochs, 8 steps"
    assert [line.split(":")[0] for line in out[1:4]] == [f"epoch {i} of 3" for i in (1, 2, 3)]
    assert [line.split()[0] for line in out[4:10]] == [
        "cross",
        "disk",
        "square",
        "top-1",
        "95",
        "top-5",
    ]
    assert out[-1] == "weights in 'my run/weights'"
    assert run("tiny", "--data", shapes, "-o", "my run", "--resume", "--quiet") == (0, [], [])


def test_a_run_is_reported_as_json(run, shapes):
    code, out, err = run("tiny", "--data", shapes, "-o", "run", "--json", "--set", "epochs=2")
    assert (code, err) == (0, [])
    *validations, summary = map(json.loads, out)
    assert [v["epoch"] for v in validations] == [1, 2]
    assert summary == json.loads(Path("run/eval/summary.json").read_text())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--trunk-weights", "vgg.pth"], "vgg.pth for the recipe tiny, which takes split, val"),
        (["--val", "test"], r"got split 'test' of .*, which has train, val; pass one of these"),
        (["--set", "size=20"], "got --set size=20 in a recipe; wanted 32 to 4096"),
        (["--set", "size=40"], "size=40, too small for the last pooling"),
    ],
)
def test_unusable_input_is_reported_in_one_line(run, shapes, args, message):
    code, out, err = run("tiny", "--data", shapes, "-o", "run", *args)
    assert (code, out, len(err)) == (2, [], 1)
    assert re.search(message, err[0])


def test_a_folder_of_masks_is_recognized(run, data):
    code, _, err = run("tiny", "--data", data, "-o", "run")
    assert (code, len(err)) == (2, 1)
    assert "images/ and masks/, a data set with masks; wanted a folder for each class" in err[0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(sys.argv[1], sys.argv[2], ALONE)
