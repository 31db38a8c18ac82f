"""Training networks that deblur, on tiny images."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from unpool import train
from unpool.cards import read_card
from unpool.cli import main
from unpool.errors import DataError, OptionError, ShapeError, WeightsError
from unpool.models import from_pretrained
from unpool.recipes import RECIPES, RestorationRecipe
from unpool.recipes.restore import CRCNET, DEBLUR_GIVEN, MSRESNET, SRN
from unpool.restore.evaluate import psnr
from unpool.restore.examples import draw_examples, validation_cases
from unpool.restore.train import (
    RestorationObjective,
    RestorationScores,
    build,
    restoration_loss,
    restored,
)
from unpool.training.loop import Step, fit


def last_model(folder):
    return torch.load(folder / "checkpoints/last.pt", weights_only=True)["model"]


def small(name, tiny):
    """The recipe of another network, as tiny."""
    values = {"steps": 2, "batch": 2, "width": 4, "psf_side": 9, "bf16": False, "validate_every": 2}
    sizes = {"deblur-blind": {"patch": 24}, "crcnet": {"patch": 24, "psf": "shake:0,9"},
             "msresnet": {"patch": 24}, "srn": {"patch": 32, "halved": 0.0}}  # fmt: skip
    return dataclasses.replace(RECIPES[name], **values, blocks=1, **sizes[name])


def test_what_a_run_leaves(trained, photos, tiny):
    folder, summary, events = trained
    assert [e.n for e in events if isinstance(e, Step)] == [1, 2, 3, 4]
    scores = [e for e in events if isinstance(e, RestorationScores)]
    assert [e.n for e in scores] == [2, 4]
    card = read_card(folder / "weights")
    assert (card.architecture, card.mode) == ("IRDNet", "restore")
    assert RestorationRecipe.from_json(card.recipe) == tiny
    assert card.figures == {photos.name: {k: v for k, v in summary.items() if k != "notes"}}
    assert summary["images"] == 2
    assert "held-out" in summary["protocol"]
    assert max(e.psnr for e in scores) == pytest.approx(
        np.mean([row["psnr"] for row in summary["cases"]]), abs=1e-3
    )
    with Image.open(folder / "plots/restored.png") as sheet:
        assert sheet.size[1] > 300


def test_figures_are_those_of_the_stored_weights(trained, photos, tiny):
    """Computed anew from the images that were held out, the first and the fifth."""
    folder, summary, _ = trained
    net, _ = from_pretrained(folder)
    images = sorted(photos.glob("*.png"))
    cases = validation_cases([images[0], images[4]], tiny)
    for row, (name, sigma, batch) in zip(summary["cases"], cases, strict=True):
        assert (row["psf"], row["noise"]) == (name, sigma)
        found = restored(net, batch).numpy()[..., 8:-8, 8:-8]
        truth = batch.sharp.numpy()[..., 8:-8, 8:-8]
        mean = np.mean([psnr(a, b) for a, b in zip(found, truth, strict=True)])
        assert row["psnr"] == pytest.approx(mean, abs=1e-3)
        assert row["psnr"] > row["blurred"]  # it begins with total variation


def test_resumed_bit_for_bit(trained, photos, tiny, tmp_path, stopped_at):
    with stopped_at(3) as report:
        train(photos, tmp_path, tiny, device="cpu", report=report)
    train(resume=tmp_path, device="cpu", report=False)
    whole, parted = last_model(trained[0]), last_model(tmp_path)
    assert all(torch.equal(whole[k], parted[k]) for k in whole)


def test_it_learns(photos, tiny):
    """The loss of a fixed batch falls."""
    batch = next(draw_examples(sorted(photos.glob("*.png")), tiny, 3))
    recipe = dataclasses.replace(tiny, steps=60, width=8, lr=1e-2, variation=False)
    torch.manual_seed(0)
    losses = [
        step.loss for step in fit(RestorationObjective(build(recipe), recipe), iter([batch] * 60))
    ]
    assert losses[-1] < 0.8 * losses[0]


def test_a_warm_start(trained, photos, tiny):
    recipe = dataclasses.replace(tiny, start=str(trained[0]))
    task = recipe.make_task(photos)
    task.objective = task.build(torch.device("cpu"))
    task.warm_start()
    expected = from_pretrained(trained[0])[0].state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in task.objective.learner.state_dict().items())
    other = dataclasses.replace(recipe, width=8).make_task(photos)
    other.objective = other.build(torch.device("cpu"))
    with pytest.raises(WeightsError, match="weights of another network; pass those of IRDNet"):
        other.warm_start()


@pytest.mark.parametrize("name", ["deblur-blind", "crcnet", "msresnet", "srn"])
def test_the_other_networks_train(name, photos, tiny, tmp_path):
    recipe = small(name, tiny)
    summary = train(photos, tmp_path / "run", recipe, device="cpu", report=False)
    net, card = from_pretrained(tmp_path / "run")
    assert card.architecture == recipe.network
    assert len(summary["cases"]) == {"deblur-blind": 3, "crcnet": 1}.get(name, 6)
    y = torch.rand(1, 3, 33, 38)
    assert net(y).shape == y.shape


def test_sizes_are_the_papers():
    counts = {
        r.name: sum(p.numel() for p in build(r).parameters()) for r in (CRCNET, MSRESNET, SRN)
    }
    assert counts == {"crcnet": 421_733, "msresnet": 11_721_321, "srn": 6_881_251}
    assert sum(p.numel() for p in build(RECIPES["deblur-blind"]).parameters()) == 498_052


def test_losses_by_hand():
    found, truth = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.zeros(1, 1, 2, 2)
    assert restoration_loss("l1", found, truth) == 2.5
    assert restoration_loss("mse", found, truth) == 7.5
    # slopes: down 2, 2; right 1, 1
    expected = 2500 * 7.5 + 100 * (8**0.5 + 2**0.5)
    assert restoration_loss("psnr", 0.1 * torch.ones(2, 1, 20, 20), torch.zeros(2, 1, 20, 20)) == (
        pytest.approx(np.log10(0.011 + 1e-7))
    )
    assert restoration_loss("crcnet", found, truth) == pytest.approx(expected)


def test_published_rates(tiny):
    def rate(recipe, n):
        return RestorationObjective(torch.nn.Linear(1, 1), recipe).rate(n).factor

    assert [rate(CRCNET, n) for n in (999, 1000, 2500)] == pytest.approx([1, 0.8, 0.64])
    assert [rate(MSRESNET, n) for n in (0, 65_500, 130_000)] == [1, 0.5, 0.125]
    assert rate(SRN, 262_000) == pytest.approx(0.5**0.3)
    assert rate(dataclasses.replace(tiny, steps=100), 50) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("recipe", "values", "message"),
    [
        ("deblur-given", {"psf_side": 8}, "psf_side=8 in a recipe; wanted an odd number"),
        ("deblur-given", {"noise": (0.1, 0.01)}, "noise=.* wanted two, above 0, rising"),
        ("deblur-given", {"psfs": (0.0, 0.0, 0.0, 0.0)}, "got psfs of 0"),
        ("deblur-given", {"channels": 3}, "channels=3 for IRDNet in a recipe; wanted 1"),
        ("msresnet", {"channels": 2}, "channels=2 for MSResNet in a recipe; wanted 1 or 3"),
        ("deblur-blind", {"patch": 81}, "patch=81 for BlindNet in a recipe; wanted a multiple"),
        ("deblur-given", {"margin": 68}, "margin=68 for patch=136 in a recipe; wanted an even"),
        ("deblur-given", {"lstm": True}, "got lstm for IRDNet"),
        ("deblur-given", {"network": "IRDNe"}, "IRDNet"),
        ("deblur-given", {"psf": "shook:1"}, "got psf 'shook:1'"),
        ("deblur-given", {"psf": "none"}, "psf='none' in a recipe; leave it out"),
        ("deblur-given", {"psf": "disk:20"}, "psf='disk:20' of 41 x 41 pixels for psf_side=21"),
    ],
)
def test_refused_values(photos, tmp_path, recipe, values, message):
    with pytest.raises(OptionError, match=message):
        train(photos, tmp_path / "run", recipe, **values, report=False)
    assert not (tmp_path / "run").exists()


def test_a_volume_as_the_psf(photos, tmp_path):
    """It is said before the run starts; networks restore images."""
    bead = tmp_path / "bead.npy"
    np.save(bead, np.ones((3, 5, 5)))
    with pytest.raises(ShapeError, match=r"psf=.bead\.npy. of 3 x 5 x 5 .* choose one page"):
        train(photos, tmp_path / "run", "deblur-given", psf=str(bead), report=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "values", "psf"),
    [
        ("deblur-given", {}, "motion:13,30"),
        ("deblur-given", {"psf": "my bead.tif"}, "'my bead.tif'"),
        ("deblur-blind", {}, "none"),
        ("crcnet", {}, "none"),  # it has learned its PSF, and takes none
    ],
)
def test_the_command_that_is_advised(photos, name, values, psf):
    task = dataclasses.replace(RECIPES[name], **values).make_task(photos)
    assert task.usage == f"unpool restore blurred.png --psf {psf} --weights"


def test_images_that_are_too_small(photos, tmp_path):
    with pytest.raises(DataError, match="crops need 156"):
        train(photos, tmp_path / "run", DEBLUR_GIVEN)


def test_command(photos, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "tiny", tiny)
    arguments = ["train", "tiny", "--data", str(photos), "-o", str(tmp_path / "run")]
    assert main([*arguments, "--json", "--quiet"]) == 0
    *validations, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert [v["n"] for v in validations] == [2, 4]
    assert set(summary) == {"cases", "images", "protocol", "notes"}
    assert main([*arguments, "--resume"]) == 0
    assert "shake, noise 0.001" in capsys.readouterr().out
