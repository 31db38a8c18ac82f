"""The page of results: cross-validation of the threshold, and the page itself."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from experiments.results import __main__ as command
from experiments.results import rows as module
from experiments.results.measure import by_others, by_size, found_objects
from experiments.results.page import page
from unpool.data import open_data
from unpool.models import FCN, DeconvNet, save_pretrained
from unpool.segment.ensemble import EDeconvNet
from unpool.segment.evaluate import Measured, evaluate
from unpool.vision.images import voc_palette

CLASSES = ["background", "cat", "dog"]


def drawn(rng, images, ways):
    """Counts of three classes in images, by ways that are good at some of them."""
    counts = rng.integers(0, 30, (ways, images, 3, 3)) + np.diag([40, 0, 0])
    for way in range(ways):
        counts[way, way::ways] += 60 * np.eye(3, dtype=int)
    return [[Measured(str(i), m, 0.0) for i, m in enumerate(way)] for way in counts]


def mean_iou(matrices):
    total = sum(matrices)
    return np.mean(
        [total[k, k] / (total[k].sum() + total[:, k].sum() - total[k, k]) for k in range(3)]
    )


def test_each_image_uses_what_is_best_on_the_other_tenths():
    ways = drawn(np.random.default_rng(0), 37, 4)
    chosen = set()
    for i, one in enumerate(by_others(ways)):
        others = [j for j in range(37) if j % 10 != i % 10]
        best = np.argmax([mean_iou([way[j].matrix for j in others]) for way in ways])
        assert one is ways[best][i]
        chosen.add(best)
    assert len(chosen) > 1


def test_an_image_does_not_affect_its_own_threshold():
    ways = drawn(np.random.default_rng(1), 37, 4)

    def way_of_the_fifth():
        (chosen,) = (n for n, way in enumerate(ways) if way[5] is by_others(ways)[5])
        return chosen

    before = way_of_the_fifth()
    for way in ways:
        way[5] = Measured("5", 10_000 * np.ones((3, 3), np.int64), 0.0)
    ways[before - 1][5] = Measured("5", 10_000 * np.eye(3, dtype=np.int64), 0.0)  # now far better
    assert way_of_the_fifth() == before


def test_objects_by_their_size(data):
    sample = open_data(data, "val").samples[0]
    labels = np.zeros((30, 40), np.uint8)
    labels[5:10, 5:25] = 1  # half of the cat, which is 10 x 20 of 30 x 40 pixels
    assert found_objects(sample, labels, 3) == [(200 / 1200, 0.5), (9 / 1200, 0.0)]
    found = by_size(found_objects(sample, labels, 3))
    assert [one["objects"] for one in found] == [1, 0, 1, 0]
    assert [one["found"] for one in found] == [0, 0, 0.5, 0]


@pytest.fixture
def data(tmp_path):
    """Four images with a cat and a small dog, in VOC's layout."""
    root, random = tmp_path / "tiny", np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    names = [f"image{i}" for i in range(4)]
    for name in names:
        image = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / f"JPEGImages/{name}.jpg")
        labels = np.zeros((30, 40), np.uint8)
        labels[5:15, 5:25], labels[20:23, 30:33] = 1, 2
        mask = Image.fromarray(labels)
        mask.putpalette(voc_palette().tobytes())
        mask.save(root / f"SegmentationClass/{name}.png")
    for split, own in (("train", names[:2]), ("val", names[2:])):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(own))
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


@pytest.fixture
def weights(filled, tmp_path):
    card = {"classes": CLASSES, "long_side": 48}
    more = {"partner": "../fcn", "class_images": {"cat": 7}, "temperature": {"whole": 2.0}}
    net = filled(DeconvNet(3, ((1, 6), (1, 8)), None, 32), seed=3)
    save_pretrained(filled(FCN(3, ((1, 6), (1, 8)), None, stride=4, pad=1)), tmp_path / "fcn", card)
    return save_pretrained(net, tmp_path / "net", {**card, **more})


def test_the_command_writes_the_page(data, weights, tmp_path, monkeypatch):
    photo = np.zeros((24, 32, 3), np.uint8)
    monkeypatch.setattr(command, "PHOTOS", ("coffee",))
    monkeypatch.setattr(command, "read_image", lambda path: photo)
    monkeypatch.setattr("experiments.results.measure.FREQUENT", 1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    given = ["--data", str(data), "--data", f"{data}:train", "--weights", str(weights)]
    done = CliRunner().invoke(command.main, given, catch_exceptions=False)
    assert done.exit_code == 0
    results = json.loads((tmp_path / "docs/results.json").read_text())
    about = results.pop("about")
    text = (tmp_path / "docs/results.md").read_text()
    assert page(results, about) == text
    assert "| cat | 7 | - | 4 |" in text
    names = {path.name for path in (tmp_path / "docs").iterdir()}
    charts = {"results-proposals.png", "results-confidence.png", "results-figure.jpg"}
    assert names == {"results.md", "results.json", *charts}
    # the same figures as of the package
    both = EDeconvNet.from_pretrained(weights, precision="fp32")
    of_val = results["rows"]["tiny val"]
    for name, segmenter, mode in (
        ("DeconvNet, whole image", both.deconvnet, "whole"),
        ("DeconvNet, instance-wise", both.deconvnet, "instance"),
        ("FCN-8s", both.fcn, "whole"),
        ("EDeconvNet", both, "instance"),
    ):
        wanted = evaluate(segmenter, open_data(data, "val"), mode=mode, min_images=1)
        for figure in ("miou", "miou_interval", "boundary_f1", "calibration_error", "iou"):
            assert of_val[name][figure] == pytest.approx(wanted[figure]), (name, figure)
    # all is both parts together; a second run reads what the first measured
    assert results["rows"]["all"]["FCN-8s"]["images"] == 4
    monkeypatch.setattr(module, "squares", None)
    monkeypatch.setattr(command, "figure", lambda both, instances: photo)
    (tmp_path / "runs/results/rows.json").unlink()
    assert CliRunner().invoke(command.main, given, catch_exceptions=False).exit_code == 0
    assert (tmp_path / "docs/results.md").read_text() == text


def test_the_page_is_what_the_script_makes_of_the_measurements():
    docs = Path(__file__).parents[2] / "docs"
    results = json.loads((docs / "results.json").read_text(encoding="utf-8"))
    about = results.pop("about")
    assert page(results, about) == (docs / "results.md").read_text(encoding="utf-8")
