"""What cards say about post-processing, chosen by images that were not learned from."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import unpool
from experiments import tune
from experiments.tune import Choice, choose, fit_temperature, main, merge_crops, search_crf
from tests.experiments.test_results import CLASSES, data, weights  # noqa: F401 (fixtures)
from unpool.cards import read_card
from unpool.data import open_data
from unpool.segment.ensemble import EDeconvNet
from unpool.segment.segmenter import Segmenter


def test_each_fold_is_measured_by_what_the_others_chose():
    """One value is best in the first fold alone, which so is measured by the other."""
    good, bad = np.diag([9, 9]), np.array([[9, 0], [9, 0]])
    odd = np.array([good, *[bad] * 4])
    even = np.array([bad, *[good] * 4])
    found = choose({"odd": odd, "even": even})
    total = even.sum(0)
    iou = [total[0, 0] / (total[0].sum() + total[1, 0]), total[1, 1] / total[1].sum()]
    assert found == Choice("even", *[pytest.approx(np.mean(iou), abs=1e-4)] * 2)


def test_the_temperature_is_that_of_torchs_optimizer():
    rng = np.random.default_rng(1)
    scores, truth = rng.normal(0, 3, (500, 4)).astype(np.float32), rng.integers(0, 4, 500)
    scores[np.arange(500), truth] += 2
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameter], max_iter=100)

    def closure():
        optimizer.zero_grad()
        logits = torch.from_numpy(scores) / parameter.exp()
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(truth))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(scores, truth) == pytest.approx(
        float(parameter.detach().exp()), rel=1e-2
    )


def test_the_search_for_a_crf_walks_to_the_best():
    """The nearer the color weight is to 32, the better; the largest to begin with is 10."""

    def measure(crf):
        distance = 6 if crf is None else abs(np.log2(crf.kernels[-1].weight / 32))
        wrong = round(8 * distance)
        return np.tile([[100 - wrong, wrong], [wrong, 100 - wrong]], (5, 1, 1))

    tried = search_crf(measure, rounds=5)
    assert None in tried
    best = choose(tried).value
    assert [kernel.weight for kernel in best.kernels] == [3, 40]
    assert choose(search_crf(measure, rounds=1)).value.kernels[-1].weight == 20


def test_crops_are_merged_as_the_segmenter_does(weights):  # noqa: F811
    segmenter = Segmenter.from_pretrained(weights)
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    found = merge_crops(image, segmenter, 5)
    for how in ("max", "mean"):
        own = segmenter.predict(image, mode="instance", proposals=5, aggregate=how)
        np.testing.assert_array_equal(found[how], own.logits)
    assert (found["max"] != found["mean"]).any()


def test_smoothing_is_chosen_as_the_segmenter_does_it(data, weights, monkeypatch):  # noqa: F811
    """With one value to choose from, the counts are those of `Segmenter` with this smoothing."""
    monkeypatch.setattr(tune, "SMOOTHINGS", (2.0,))
    monkeypatch.setattr(tune, "FEW_PRESENCES", (0.0,))
    found = tune.choose_smoothing(open_data(data, "val"), Segmenter.from_pretrained(weights))
    assert found.value == (2.0, 0.0)
    segmenter = Segmenter.from_pretrained(weights, smoothing=2.0, presence_threshold=0)
    expected = unpool.evaluate(segmenter, data, split="val", mode="whole")
    assert found.fitted == round(expected["miou"], 4)


def test_the_choices_are_written_to_the_cards(data, weights, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    partner = weights.parent / "fcn"
    given = ["--data", f"{data}:val", "--weights", str(weights), "--partner", str(partner)]
    given += ["--proposals", "2", "--rounds", "1", "--write"]
    done = CliRunner().invoke(main, given, catch_exceptions=False)
    assert done.exit_code == 0
    lines = [line for line in done.output.splitlines() if line.startswith("card of ")]
    wanted = json.loads(lines[0].partition(": ")[2])
    both = EDeconvNet.from_pretrained(weights)
    assert both.weight == wanted["ensemble_weight"]
    assert both.deconvnet.smoothing == wanted["smoothing"]
    assert both.presence_threshold == wanted["presence_threshold"]
    assert both.deconvnet.temperature == wanted["temperature"]
    assert set(wanted["temperature"]) == {"whole", "instance", "edeconvnet"}
    assert both.deconvnet.aggregate == wanted["aggregate"]
    assert (both.crf is None) == (wanted["crf"] is None)
    assert read_card(weights).classes == CLASSES
    theirs = json.loads(lines[1].partition(": ")[2])
    assert Segmenter.from_pretrained(partner).temperature == theirs["temperature"]
