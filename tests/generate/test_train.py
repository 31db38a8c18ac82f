"""Training a network that draws, on a tiny one and images made by chance."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from tests.runs import records
from unpool import train
from unpool.cards import read_card
from unpool.cli import main
from unpool.errors import DataError, TrainingError
from unpool.generate import batches as module
from unpool.generate.batches import Views, as_targets, codes, load_views, split_views, view_batches
from unpool.generate.evaluate import measure
from unpool.generate.train import GenerationErrors, GenerationObjective, build, generation_loss
from unpool.models import from_pretrained, save_pretrained
from unpool.recipes import RECIPES, GenerationRecipe
from unpool.recipes.generate import Rate
from unpool.rendering.dataset import AZIMUTHS, open_chairs, view_name
from unpool.training.loop import LoopState, Step, fit

TINY = GenerationRecipe(
    "tiny",
    (Rate(3, 2e-3), Rate(5, 1e-3)),
    size=16,
    code=8,
    shared=12,
    widths=(8,),
    mask_widths=(6,),
    mask_maps=1,
    initialization="xavier",
    batch=4,
    held_out=(1, 3),
    gamma=0.1,
    optimizer="adamw",
    validate_every=3,
    save_every=2,
    bf16=False,
)
STYLES = ("round", "square")
FILES = {
    "config.json",
    "arguments.json",
    "env.json",
    "metrics.jsonl",
    "checkpoints/last.pt",
    "weights/card.json",
    "weights/model.safetensors",
    "eval/summary.json",
    "plots/views.png",
    "plots/curves.png",
}


def image(style, azimuth, side=16):
    """A disk or square whose color and place tell its view."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    x = x - 3 * math.sin(math.radians(azimuth))
    inside = x * x + y * y < 20 if style == "round" else np.maximum(abs(x), abs(y)) < 4
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[...] = [40, 100 + 100 * math.cos(math.radians(azimuth)), 200, 0]
    rgba[..., 3] = 255 * inside
    return rgba


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("views")
    for style in STYLES:
        (root / style / "renders").mkdir(parents=True)
        for number, azimuth in enumerate(AZIMUTHS[:6]):
            path = root / style / "renders" / view_name(number, azimuth, 20.0)
            Image.fromarray(image(style, azimuth)).save(path)
    return root


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run, and what it told."""
    folder, events = tmp_path_factory.mktemp("run"), []
    summary = train(data, folder, TINY, device="cpu", report=events.append, command="x")
    return folder, summary, events


def last_model(folder):
    return torch.load(folder / "checkpoints/last.pt", weights_only=True)


def test_loss_is_that_of_the_paper():
    """10 ||rgb - image * mask||^2 / (2 N) + ||mask' - mask||^2 / (2 N), transcribed."""
    rng = np.random.default_rng(0)
    rgb, image = rng.normal(size=(2, 5, 3, 6, 6))
    drawn, mask = rng.normal(size=(5, 3, 6, 6)), rng.random((5, 1, 6, 6))
    wanted = 0.0
    for n in range(5):
        target = image[n] * mask[n]
        wanted += 10 * np.linalg.norm(rgb[n] - target) ** 2 / (2 * 5)
        wanted += np.linalg.norm(drawn[n] - np.concatenate([mask[n]] * 3)) ** 2 / (2 * 5)
    targets = torch.from_numpy(np.concatenate([image * mask, mask], 1))
    found = generation_loss(torch.from_numpy(rgb), torch.from_numpy(drawn), targets)
    assert float(found) == pytest.approx(wanted)


def test_background_counts_less():
    targets = torch.zeros(1, 4, 2, 2)
    targets[:, :, 0] = 1
    rgb, mask = torch.zeros(1, 3, 2, 2), targets[:, 3:]
    inside = 6 / 2
    assert float(generation_loss(rgb, mask, targets, 1, 1, background=0.1)) == pytest.approx(inside)
    found = generation_loss(rgb + 1, mask, targets, 1, 1, background=0.1)
    assert float(found) == pytest.approx(0.1 * inside)


def test_held_out_views_are_never_seen(data, tmp_path, monkeypatch):
    """The weights do not depend on a single value of the held-out images."""
    seen = []
    chairs = open_chairs(data)
    _, held = split_views(chairs, TINY.held_out)

    def spoiled(*args, **named):
        images = read(*args, **named)
        images[held] = np.random.default_rng(0).integers(0, 256, images[held].shape)
        return images

    train(data, tmp_path / "a", TINY, device="cpu")
    read = module.read_views
    monkeypatch.setattr(module, "read_views", spoiled)
    report = seen.append
    train(data, tmp_path / "b", TINY, device="cpu", report=report)
    a, b = (last_model(tmp_path / name)["model"] for name in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)
    lines = [(tmp_path / n / "metrics.jsonl").read_text().splitlines() for n in "ab"]
    mse = [[json.loads(x)["mse"] for x in found if "mse" in x] for found in lines]
    assert mse[0] != mse[1]


def test_what_a_run_leaves(run, data):
    folder, summary, events = run
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == FILES
    assert [e.n for e in events if isinstance(e, Step)] == list(range(1, 9))
    assert [e.n for e in events if isinstance(e, GenerationErrors)] == [3, 6]
    card = read_card(folder / "weights")
    assert card.architecture == "GenerativeNet"
    assert card.styles == list(STYLES)
    assert card.more["command"] == "x"
    assert GenerationRecipe.from_json(card.recipe) == TINY
    (figures,) = card.figures.values()
    assert figures == {k: v for k, v in summary.items() if k != "notes"}
    assert summary["views"] == 4
    with Image.open(folder / "plots/views.png") as sheet:
        assert sheet.size == (4 * 16, 2 * 16)


def test_figures_are_those_of_the_stored_weights(run, data):
    folder, summary, _ = run
    net, _ = from_pretrained(folder / "weights")
    chairs = open_chairs(data)
    views = load_views(chairs, 16).take(split_views(chairs, TINY.held_out)[1])
    figures = [summary[name] for name in ("mse", "iou", "iou_mean")]
    assert measure(net, views) == pytest.approx(figures)


SLOW = dataclasses.replace(TINY, rates=(Rate(4, 1e-4), Rate(4, 1e-5)), optimizer="sgd")


@pytest.mark.parametrize(("recipe", "stop"), [(TINY, 1), (TINY, 5), (SLOW, 4), (SLOW, 7)])
def test_resumed_bit_for_bit(data, tmp_path, recipe, stop):
    """Also at the step at which a rate drops, and momentum grows."""
    require_resumed(data, tmp_path, recipe, stop)


def test_resumed_bit_for_bit_where_others_teach(data, run, tmp_path):
    recipe = dataclasses.replace(TINY, teachers=(str(run[0] / "weights"),))
    require_resumed(data, tmp_path, recipe, 5)
    plain, learned = last_model(run[0]), last_model(tmp_path / "whole")
    assert not all(torch.equal(plain["model"][k], learned["model"][k]) for k in plain["model"])


def require_resumed(data, folder, recipe, stop):
    """A run that was left after a step and resumed is the same as one that was not."""

    class Stop(Exception):
        pass

    def kill(event):
        if isinstance(event, Step) and event.n == stop:
            raise Stop

    whole, parted = folder / "whole", folder / "parted"
    train(data, whole, recipe, device="cpu")
    with pytest.raises(Stop):
        train(data, parted, recipe, device="cpu", report=kill)
    train(data, parted, recipe, device="cpu", resume=True)
    a, b = (last_model(folder) for folder in (whole, parted))
    assert all(torch.equal(a["model"][k], b["model"][k]) for k in a["model"])
    for old, new in zip(
        a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True
    ):
        assert all(torch.equal(old[k], new[k]) for k in old)
    name = "weights/model.safetensors"
    assert (whole / name).read_bytes() == (parted / name).read_bytes()
    assert records(whole) == records(parted)


def test_it_learns():
    """A few views are drawn well after some hundred steps."""
    views = some_views(6)
    for i in range(6):
        views.images[i] = image(STYLES[i % 2], views.azimuths[i])
    recipe = dataclasses.replace(
        TINY, rates=(Rate(300, 1e-2),), plain=1.0, code=16, shared=32, schedule="cosine"
    )
    torch.manual_seed(0)
    net = build(recipe, 2)
    before = measure(net, views)
    for _ in fit(GenerationObjective(net, recipe), view_batches(views, np.arange(6), recipe, 4)):
        pass
    mse, iou, _ = measure(net, views)
    assert mse < 0.2 * before[0]
    assert iou > 0.9


def rates_of(recipe):
    net, views = build(recipe, 2), some_views(6)
    progress = LoopState()
    stream = view_batches(views, np.arange(6), recipe, recipe.batch)
    for step in fit(GenerationObjective(net, recipe), stream, progress):
        groups = progress.optimizer.param_groups
        yield step.lr, groups[1]["lr"]


def test_rates():
    recipe = dataclasses.replace(TINY, rates=(Rate(2, 4e-3), Rate(1, 2e-3), Rate(2, 5e-4)))
    found = list(rates_of(recipe))
    assert [lr for lr, _ in found] == pytest.approx([4e-3, 4e-3, 2e-3, 5e-4, 5e-4])
    assert all(bias == pytest.approx(2 * lr) for lr, bias in found)


def test_falling_rates():
    recipe = dataclasses.replace(TINY, rates=(Rate(10, 1e-3),), schedule="cosine", warmup=2)
    found = [lr for lr, _ in rates_of(recipe)]
    assert found[0] == pytest.approx(5e-4)
    assert found[5] == pytest.approx(5e-4)
    assert found[1:] == sorted(found[1:], reverse=True)
    assert found[-1] == pytest.approx(max(0.02, (1 + math.cos(0.9 * math.pi)) / 2) * 1e-3)


def test_momentum_grows_where_the_rate_falls():
    """Caffe has the rate inside of the momentum: v <- m v + lr g, w <- w - v; transcribed."""
    recipe = dataclasses.replace(
        TINY, rates=(Rate(2, 1e-4), Rate(2, 1e-5)), optimizer="sgd", bias_lr=2.0, plain=1.0, batch=6
    )
    views = some_views(6)
    torch.manual_seed(0)
    net, twin = build(recipe, 2), build(recipe, 2)
    twin.load_state_dict(net.state_dict())
    for _ in fit(GenerationObjective(net, recipe), view_batches(views, np.arange(6), recipe, 6)):
        pass
    speed = {k: torch.zeros_like(p) for k, p in twin.named_parameters()}
    stream = view_batches(views, np.arange(6), recipe, 6)
    for lr in (1e-4, 1e-4, 1e-5, 1e-5):
        part = next(stream)
        device = torch.device("cpu")
        targets = as_targets(part.views.images, device)
        drawn = twin(*codes(part.views, 2, device), part.vectors)
        twin.zero_grad()
        generation_loss(*drawn, targets).backward()
        with torch.no_grad():
            for k, p in twin.named_parameters():
                speed[k] = 0.9 * speed[k] + lr * (2 if p.dim() < 2 else 1) * p.grad
                p -= speed[k]
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_stage_begins_with_the_one_before(tmp_path):
    """Stage 2: the last uconvs are new, and all else is as stage 1 has left it."""
    small = dataclasses.replace(TINY, size=32, widths=(8, 6, 4), mask_widths=(6, 4, 4))
    torch.manual_seed(0)
    first = build(small, 2)
    save_pretrained(first, tmp_path, {"recipe": small.to_json()})
    second = build(dataclasses.replace(small, size=64, start=str(tmp_path)), 2)
    old, new = first.state_dict(), second.state_dict()
    same = {k for k in new if k in old and torch.equal(old[k], new[k])}
    assert set(new) - same == {
        f"{stream}.stages.{n}.uconv.weight" for stream in ("rgb", "mask") for n in (1, 2)
    }


def test_no_view_held_out_is_said(data, tmp_path):
    recipe = dataclasses.replace(TINY, held_out=(), rates=(Rate(1, 1e-3),))
    with pytest.warns(UserWarning, match="no view is held out"):
        summary = train(data, tmp_path, recipe, device="cpu")
    assert summary["protocol"] == "training views"
    assert summary["notes"] == ["no view is held out; training views are evaluated"]


def test_a_loss_that_runs_away():
    recipe = dataclasses.replace(TINY, rates=(Rate(50, 10.0),), optimizer="sgd")
    stream = view_batches(some_views(6), np.arange(6), recipe, 4)
    with pytest.raises(TrainingError, match=r"such as rates.0.lr=1"):
        for _ in fit(GenerationObjective(build(recipe, 2), recipe), stream):
            pass


def test_bad_data(data, tmp_path):
    with pytest.raises(DataError, match=r"which is not a folder"):
        train(tmp_path / "none", tmp_path / "run", TINY)
    with pytest.raises(DataError, match=r"without images such as"):
        train(tmp_path, tmp_path / "run", TINY)
    assert not (tmp_path / "run").exists()


def test_other_styles_are_no_continuation(data, run, tmp_path):
    other = tmp_path / "other"
    for style in ("round", "oval"):
        (other / style).mkdir(parents=True)
        (other / style / "renders").symlink_to(data / "round/renders")
    with pytest.raises(DataError, match="started on other classes"):
        train(other, run[0], TINY, device="cpu", resume=True)


def test_command(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "tiny", TINY)
    arguments = ["train", "tiny", "--data", str(data), "-o", str(tmp_path / "run")]
    assert main([*arguments, "--json", "--quiet"]) == 0
    *validations, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert [v["n"] for v in validations] == [3, 6]
    assert set(summary) == {"mse", "iou", "iou_mean", "views", "protocol", "notes"}
    assert main([*arguments, "--resume"]) == 0
    text = capsys.readouterr().out
    assert re.search(
        r"MSE inside the mask +\d\.\d\de-\d\d\nIoU of the mask +\d+\.\d %\nviews +4\n", text
    )
    assert main([*arguments, "--resume", "--split", "val"]) == 2
    assert "got --split val for the recipe tiny, which takes no such options" in (
        capsys.readouterr().err
    )


def test_split(data):
    chairs = open_chairs(data)
    learned, held = split_views(chairs, (1, 3))
    assert sorted([*learned, *held]) == list(range(12))
    assert {chairs.views[i].azimuth for i in held} == {AZIMUTHS[1], AZIMUTHS[3]}
    assert len(held) == 4
    with pytest.raises(DataError, match=r"with 0 of 12 views at held-out azimuths"):
        split_views(chairs, (30,))
    with pytest.raises(DataError, match=r"wanted some of these and some others"):
        split_views(chairs, tuple(range(6)))


def some_views(count=6, side=16, seed=0):
    rng = np.random.default_rng(seed)
    return Views(
        rng.integers(0, 256, (count, side, side, 4), dtype=np.uint8),
        np.arange(count) % 2,
        np.array(AZIMUTHS[:count]),
        np.full(count, 20.0),
    )
