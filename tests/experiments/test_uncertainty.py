"""The figures of several passes with dropout."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.stats import rankdata

import unpool
from experiments.uncertainty import auroc, bins, main
from unpool.models import SegNet
from unpool.models.weights import save_pretrained


def test_auroc_is_the_fraction_of_pairs_in_order():
    generator = np.random.default_rng(0)
    wrong, right = generator.integers(0, 9, (2, 12))
    uncertain = np.repeat(np.arange(12), wrong)
    certain = np.repeat(np.arange(12), right)
    pairs = [(a > b) + (a == b) / 2 for a in uncertain for b in certain]
    assert auroc(wrong, right) == pytest.approx(np.mean(pairs))


def test_bins_grow_with_the_uncertainty():
    found = bins(np.array([0, 1e-6, 1e-4, 0.1, 0.25], np.float32))
    assert (np.diff(found) > 0).all()
    assert found[0] == 0


def test_the_figures_are_those_of_single_passes_and_of_samples(data, filled, tmp_path):
    net = filled(SegNet(2, ((1, 4), (1, 8)), dropout=0.5))
    weights = tmp_path / "weights"
    save_pretrained(net, weights, {"classes": ["background", "square"], "mean": [0, 0, 0]})
    arguments = ["--data", str(data), "--weights", str(weights), "--samples", "3"]
    out = CliRunner().invoke(main, arguments, catch_exceptions=False).output
    found = json.loads(out.splitlines()[-1])
    segmenter = unpool.load(weights)
    for name, samples in (("single", 0), ("mean", 3)):
        wanted = unpool.evaluate(segmenter, data, split="val", mode="whole", samples=samples)
        assert found[name] == pytest.approx(wanted["miou"])
    wrong, right = list[float](), list[float]()
    for n in (4, 9):  # every fifth image is held out
        truth = np.array(Image.open(data / f"masks/{n}.png"))
        result = segmenter(data / f"images/{n}.png", mode="whole", samples=3)
        wrong += result.uncertainty[result.labels != truth].tolist()
        right += result.uncertainty[result.labels == truth].tolist()
    ranks = rankdata(wrong + right)[: len(wrong)]
    exact = (ranks.sum() - len(wrong) * (len(wrong) + 1) / 2) / (len(wrong) * len(right))
    assert found["auroc"] == pytest.approx(exact, abs=0.01)
