"""Figures of classifiers, against counts by hand and scikit-learn."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, recall_score, top_k_accuracy_score
from torch import nn

from unpool.classify.evaluate import (
    _interval,
    accuracies,
    plot_confusion,
    rank,
    sheet,
    summarize,
    write_confusion,
)
from unpool.classify.folders import ClassFolders, LabeledImage
from unpool.models import SqueezeNet, prepare
from unpool.vision.boxes import Crops
from unpool.vision.images import read_image

CLASSES = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"]
CROPS = Crops(32, 40)


@pytest.fixture
def data(tmp_path):
    """Seventy images of noise."""
    rng, samples = np.random.default_rng(0), []
    for i in range(70):
        path = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (36, 50, 3), dtype=np.uint8)).save(path)
        samples.append(LabeledImage(path.name, path, i * i % 6))
    return ClassFolders(tmp_path, "val", samples, CLASSES)


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = SqueezeNet(7, 8, (((4, 8),),), size=32)
    nn.init.normal_(net.classifier[1].weight, std=0.1)
    nn.init.normal_(net.classifier[1].bias, 5)
    return net


def test_ranks_and_figures_are_those_of_scikit_learn(data, net):
    net.train()
    ranked = rank(net, data, CROPS)
    assert not net.training
    assert ranked.shape == (70, 6)
    truth = np.array([sample.label for sample in data.samples])
    images = np.stack([CROPS.center(read_image(sample.path)) for sample in data.samples])
    scores = net(prepare(torch.from_numpy(images), net.mean)).detach().numpy()
    assert (ranked[:, 0] == truth).all()
    assert (ranked[:, 1] == scores.argmax(1)).all()
    labels = range(7)
    wanted = [top_k_accuracy_score(truth, scores, k=k, labels=labels) for k in (1, 5)]
    assert accuracies(ranked) == pytest.approx(wanted)
    assert 0 < wanted[0] < wanted[1] < 1
    found = summarize(ranked, data, CROPS)
    matrix = confusion_matrix(truth, scores.argmax(1), labels=labels)
    assert found["confusion"] == matrix.tolist()
    recall = recall_score(truth, scores.argmax(1), labels=labels, average=None, zero_division=0)
    present = sorted(set(truth.tolist()))
    assert [found["recall"][CLASSES[i]] for i in present] == pytest.approx(recall[present].tolist())
    assert [found["recall"][CLASSES[i]] for i in labels if i not in present] == [None] * 3
    assert json.loads(json.dumps(found)) == found
    assert (found["images"], found["mode"]) == (70, "classify")
    assert "resized to 40 pixels, of which the center of 32 is seen" in found["protocol"]


def test_with_fewer_than_five_classes_the_rest_is_left_out(data, net):
    data = data._replace(samples=[s._replace(label=s.label % 2) for s in data.samples[:5]])
    net = SqueezeNet(2, 8, (((4, 8),),), size=32)
    ranked = rank(net, data._replace(classes=["ant", "bee"]), CROPS)
    assert (ranked[:, 3:] == -1).all()
    assert (np.sort(ranked[:, 1:3]) == [0, 1]).all()
    assert accuracies(ranked)[1] == 1


@pytest.mark.parametrize(
    ("right", "count", "wanted"),
    [(15, 20, (0.531, 0.888)), (0, 10, (0.0, 0.278)), (10, 10, (0.722, 1.0))],
)
def test_the_interval_is_wilsons(right, count, wanted):
    """As tables give it."""
    assert _interval(right / count, count) == pytest.approx(wanted, abs=1e-3)


def test_the_interval_holds_the_share_that_was_drawn_from():
    rng = np.random.default_rng(0)
    for fraction in (0.05, 0.3, 0.9):
        found = [_interval(n / 60, 60) for n in rng.binomial(60, fraction, 2000)]
        assert 0.92 < np.mean([low <= fraction <= high for low, high in found]) < 0.99


def test_the_matrix_is_written_and_drawn(tmp_path):
    matrix = [[3, 1], [0, 0]]
    write_confusion(tmp_path / "confusion.csv", matrix, ["a, b", "c"])
    with (tmp_path / "confusion.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["true / found", "a, b", "c"], ["a, b", "3", "1"], ["c", "0", "0"]]
    plot_confusion(tmp_path / "confusion.png", matrix, ["a, b", "c"])
    assert read_image(tmp_path / "confusion.png").shape[2] == 3


def test_the_sheet_has_images_from_first_to_last(data, net, monkeypatch):
    captions = []
    monkeypatch.setattr(
        "unpool.classify.evaluate.contact_sheet", lambda tiles, columns: captions.append(tiles)
    )
    ranked = rank(net, data, CROPS)
    ranked[:, 1] = 3
    for count, last in ((6, 69), (200, 69)):
        sheet(ranked, data, CROPS, count)
        tiles = captions.pop()
        assert len(tiles) == min(count, 70)
        for place, i in ((0, 0), (-1, last)):
            image, caption = tiles[place]
            assert (image == CROPS.center(read_image(data.samples[i].path))).all()
            name = CLASSES[data.samples[i].label]
            assert caption == ("dog" if name == "dog" else f"dog (is {name})")
