"""Training a sparse coder, on tiny images."""

import dataclasses
import itertools
import json
import re

import pytest
import torch
from PIL import Image

from unpool import distributed, train
from unpool.cards import read_card
from unpool.cli import main
from unpool.coding.images import center_crops, draw_crops
from unpool.coding.parts import rebuild
from unpool.coding.train import CodingObjective, CodingScores, build
from unpool.data.unlabeled import find_training_images
from unpool.errors import DataError, OptionError
from unpool.models import from_pretrained
from unpool.recipes import RECIPES, CodingRecipe
from unpool.training.loop import Step, fit


def last_model(folder):
    return torch.load(folder / "checkpoints/last.pt", weights_only=True)["model"]


def test_what_a_run_leaves(trained, photos, tiny):
    folder, summary, events = trained
    assert [e.n for e in events if isinstance(e, Step)] == [1, 2, 3, 4, 5]
    assert [e.phase for e in events if isinstance(e, Step)][2:4] == ["layer 1 of 2", "layer 2 of 2"]
    scores = [e for e in events if isinstance(e, CodingScores)]
    assert [(e.n, e.layer) for e in scores] == [(2, 1), (4, 2), (5, 2)]
    card = read_card(folder / "weights")
    assert (card.architecture, card.long_side) == ("SparseCoder", 60)
    assert CodingRecipe.from_json(card.recipe) == tiny
    assert card.figures == {photos.name: {k: v for k, v in summary.items() if k != "notes"}}
    assert summary["images"] == 2
    assert not summary["notes"]
    with Image.open(folder / "plots/filters.png") as sheet:
        assert sheet.size[1] > 100


def test_figures_are_those_of_the_stored_weights(trained, photos, tiny):
    folder, summary, _ = trained
    coder, _ = from_pretrained(folder)
    assert coder.lam == [0.5, 0.5]
    images = find_training_images(photos, tiny.crop, tiny.long_side)
    held = center_crops([images[0], images[4]], tiny.crop, tiny.long_side)
    for layer, row in enumerate(summary["layers"], start=1):
        found = rebuild(coder, held, layer).quality
        assert found.snr == pytest.approx(row["snr"], abs=1e-3)
        assert found.nonzeros == pytest.approx(row["nonzeros"], abs=1e-3)


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_resumed_bit_for_bit(trained, photos, tiny, tmp_path, stopped_at, stop):
    """Within a layer, and between two."""
    with stopped_at(stop) as report:
        train(photos, tmp_path, tiny, device="cpu", report=report)
    train(resume=tmp_path, device="cpu", report=False)
    whole, parted = last_model(trained[0]), last_model(tmp_path)
    assert all(torch.equal(whole[k], parted[k]) for k in whole)


def test_each_phase_learns_its_layer_alone(photos, tiny):
    images = find_training_images(photos, tiny.crop, tiny.long_side)
    torch.manual_seed(0)
    net = build(tiny)
    stream = draw_crops(images, 4, 24, long_side=60)
    states = [[net.filters(layer).detach().clone() for layer in (1, 2)]]
    for _ in fit(CodingObjective(net, tiny), stream):
        states.append([net.filters(layer).detach().clone() for layer in (1, 2)])
    kept = [[torch.equal(a[k], b[k]) for a, b in itertools.pairwise(states)] for k in (0, 1)]
    assert kept[0][:3] == [False] * 3
    assert kept[0][3:] == [True] * 2
    assert kept[1][:3] == [True] * 3
    assert False in kept[1][3:]


def test_layers_settle_at_the_lam_of_the_network(tiny):
    objective = CodingObjective(build(tiny), tiny)
    assert objective.steps() == [2, 1, 2, 0]
    found = []
    for objective.phase in range(4):
        found.append((objective.layer, objective.lam))
    assert found == [(1, 3.0), (1, 0.5), (2, 3.0), (2, 0.5)]


def test_it_learns(photos, tiny):
    """The cost of a fixed batch falls."""
    images = find_training_images(photos, tiny.crop, tiny.long_side)
    batch = next(draw_crops(images, 8, 24, long_side=60))
    recipe = dataclasses.replace(
        tiny,
        layers=(dataclasses.replace(tiny.layers[0], steps=25, settling=0),),
        learning_iterations=15,
    )
    torch.manual_seed(0)
    objective = CodingObjective(build(recipe), recipe)
    losses = [step.loss for step in fit(objective, iter([batch] * 25))]
    assert losses[-1] < 0.9 * losses[0]


def test_few_images_are_all_trained_on(photos, tiny, tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    for name in ("0.png", "2.png"):
        (folder / name).write_bytes((photos / name).read_bytes())
    recipe = dataclasses.replace(tiny, layers=tiny.layers[:1])
    with pytest.warns(UserWarning, match="no image is held out"):
        summary = train(folder, tmp_path / "run", recipe, device="cpu", report=False)
    assert summary["images"] == 0
    assert summary["protocol"].endswith("of training images")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "adamw"}, "optimizer=adamw, but the filters of a coder are set by"),
        ({"patience": 3}, "got patience=3, but"),
        ({"bf16": True}, "in single precision"),
        ({"layers.0.maps": 0}, r"layers\.0\.maps=0 in a recipe; wanted 1 or more"),
        ({"kernel": 1}, "kernel=1 in a recipe; wanted 2 to 64"),
    ],
)
def test_refused_values(photos, tmp_path, values, message):
    with pytest.raises(OptionError, match=message):
        train(photos, tmp_path / "run", "coder", **values)


def test_other_refusals(photos, tiny, tmp_path, monkeypatch):
    with pytest.raises(OptionError, match="without layers"):
        dataclasses.replace(tiny, layers=()).check()
    with pytest.raises(DataError, match="crops need 64"):
        train(photos, tmp_path / "run", "coder")
    assert not (tmp_path / "run").exists()
    task = tiny.make_task(photos)
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(OptionError, match="got 2 processes"):
        task.build(torch.device("cpu"))


def test_command(photos, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "tiny", tiny)
    arguments = ["train", "tiny", "--data", str(photos), "-o", str(tmp_path / "run")]
    assert main([*arguments, "--json", "--quiet"]) == 0
    *validations, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert [v["n"] for v in validations] == [2, 4, 5]
    wanted = {"layers", "oriented", "filters", "images", "protocol", "notes"}
    assert set(summary) == wanted
    assert main([*arguments, "--resume"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"layer 2, SNR +-?\d+\.\d dB\n", text)
    assert re.search(r"oriented filters +\d of 4\n", text)
