"""Figures of a small data set against scikit-learn's and against a count by hand."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics
import torch
from PIL import Image

from unpool import distributed
from unpool.cli.evaluate import print_figures
from unpool.data.datasets import open_data
from unpool.errors import DataError, OptionError
from unpool.models import DeconvNet, save_pretrained
from unpool.segment.evaluate import evaluate, measure, summarize
from unpool.segment.result import Segmentation
from unpool.segment.segmenter import Segmenter
from unpool.vision.images import voc_palette

CLASSES = ["background", "cat", "dog", "never"]


class Fake(Segmenter):
    """Predicts what the red channel of the image says."""

    def __init__(self):
        super().__init__(DeconvNet(4, ((1, 2),), None, 8), CLASSES, precision="fp32")
        self.calls = []

    def __call__(self, image, **options):
        self.calls.append(options)
        labels = image[..., 0].copy()
        scores = np.zeros((4, *labels.shape), np.float32)
        return Segmentation(image, labels, scores, CLASSES, voc_palette())


def write(root, name, prediction, truth):
    for folder, array in (("images", np.stack([prediction] * 3, 2)), ("masks", truth)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / folder / f"{name}.png")


@pytest.fixture
def pairs():
    random = np.random.default_rng(0)
    pairs = {}
    for name, shape in (("a", (20, 30)), ("b", (15, 15)), ("c", (31, 8))):
        truth = random.integers(0, 3, (4, 4)).repeat(8, 0).repeat(8, 1)[: shape[0], : shape[1]]
        truth = np.pad(truth, [(0, shape[0] - truth.shape[0]), (0, shape[1] - truth.shape[1])])
        prediction = np.where(random.random(shape) < 0.7, truth, random.integers(0, 3, shape))
        truth = np.where(random.random(shape) < 0.1, 255, truth)
        pairs[name] = prediction.astype(np.uint8), truth.astype(np.uint8)
    return pairs


@pytest.fixture
def root(pairs, tmp_path):
    root = tmp_path / "tiny"
    for name, (prediction, truth) in pairs.items():
        write(root, name, prediction, truth)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


def pooled(pairs):
    prediction = np.concatenate([p.ravel() for p, _ in pairs.values()])
    truth = np.concatenate([t.ravel() for _, t in pairs.values()])
    return prediction[truth != 255], truth[truth != 255]


def test_figures_are_sklearns(root, pairs):
    summary = evaluate(Fake(), open_data(root, "all"))
    prediction, truth = pooled(pairs)
    iou = sklearn.metrics.jaccard_score(truth, prediction, labels=[0, 1, 2], average=None)
    assert [summary["iou"][c] for c in CLASSES[:3]] == pytest.approx(list(iou))
    assert summary["iou"]["never"] is None
    assert summary["miou"] == pytest.approx(iou.mean())
    accuracy = sklearn.metrics.accuracy_score(truth, prediction)
    assert summary["pixel_accuracy"] == pytest.approx(accuracy)
    balanced = sklearn.metrics.balanced_accuracy_score(truth, prediction)
    assert summary["mean_accuracy"] == pytest.approx(balanced)
    low, high = summary["miou_interval"]
    assert 0 < low <= summary["miou"] <= high < 1
    assert 0 <= summary["boundary_f1"] <= 1
    assert (summary["images"], summary["dropped"], summary["mode"]) == (3, {}, "whole")


def test_the_presence_is_an_option(root):
    data = open_data(root, "all")
    torch.manual_seed(0)
    net = DeconvNet(len(CLASSES), ((1, 4),), None, 32)
    net.score.bias.data[1] = 5
    segmenter = Segmenter(net, CLASSES, device="cpu", precision="fp32")
    every, none = (
        evaluate(segmenter, data, presence_threshold=presence_threshold)
        for presence_threshold in (0, 1)
    )
    assert every["iou"] != none["iou"]
    assert {k: v for k, v in none["iou"].items() if v} == {CLASSES[0]: none["pixel_accuracy"]}
    assert "only classes with a probability of 1 on 1 % of the image" in none["protocol"]


def test_figures_by_hand(tmp_path):
    prediction = np.array([[0, 0, 1, 1]] * 4, np.uint8)
    truth = np.array([[0, 1, 1, 255]] * 4, np.uint8)
    write(tmp_path, "one", prediction, truth)
    write(tmp_path, "two", np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8))
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    summary = evaluate(Fake(), open_data(tmp_path, "all"))
    assert summary["iou"] == {"background": 20 / 24, "cat": 4 / 8, "dog": None, "never": None}
    assert summary["miou"] == pytest.approx((20 / 24 + 1 / 2) / 2)
    assert summary["pixel_accuracy"] == pytest.approx(24 / 28)
    assert summary["mean_accuracy"] == pytest.approx((1 + 1 / 2) / 2)


def test_a_perfect_prediction_is_perfect(tmp_path):
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 2
    write(tmp_path, "a", labels, labels)
    write(tmp_path, "b", labels, labels)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    summary = evaluate(Fake(), open_data(tmp_path, "all"))
    figures = [summary[k] for k in ("miou", "pixel_accuracy", "mean_accuracy", "boundary_f1")]
    assert figures == [1, 1, 1, 1]
    assert summary["miou_interval"] == [1, 1]


def test_a_single_image_has_no_interval(tmp_path, capsys):
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 2
    write(tmp_path, "a", labels, labels)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    summary = evaluate(Fake(), open_data(tmp_path, "all"))
    assert summary["miou_interval"] is None
    print_figures({"whole": summary}, quiet=False)
    assert re.search(r"^95 % interval +-$", capsys.readouterr().out, re.MULTILINE)


def test_the_summary_is_plain_json(root):
    data = open_data(root, "all")
    flat = np.zeros((9, 9), np.uint8)
    write(root, "a", flat, flat)  # no boundary in this image
    text = json.dumps(evaluate(Fake(), data), allow_nan=False)
    summary = json.loads(text)
    assert set(summary) == {
        "mode", "miou", "miou_interval", "iou", "pixel_accuracy", "pixel_accuracy_interval",
        "mean_accuracy", "boundary_f1", "boundary_f1_interval",
        "calibration_error", "images", "class_images", "dropped", "protocol",
    }  # fmt: skip
    for name in data.samples:
        write(root, name.name, flat, flat)
    summary = json.loads(json.dumps(evaluate(Fake(), data), allow_nan=False))
    assert summary["boundary_f1"] is None
    assert summary["iou"] == {"background": 1.0, "cat": None, "dog": None, "never": None}


def test_unreadable_images_are_dropped_and_reported(root, pairs):
    (root / "images" / "a.png").write_bytes(b"no image")
    Image.fromarray(np.full((15, 15), 7, np.uint8)).save(root / "masks" / "b.png")
    reports = []
    summary = evaluate(
        Fake(),
        open_data(root, "all"),
        progress=lambda done, total, doing: reports.append((done, total)),
    )
    assert summary["images"] == 1
    assert sorted(summary["dropped"]) == ["a", "b"]
    assert "a.png" in summary["dropped"]["a"]
    assert "7" in summary["dropped"]["b"]
    prediction, truth = pooled({"c": pairs["c"]})
    accuracy = sklearn.metrics.accuracy_score(truth, prediction)
    assert summary["pixel_accuracy"] == pytest.approx(accuracy)
    assert "1 of 3 images" in summary["protocol"]
    assert reports == [(1, 3), (2, 3), (3, 3)]


def test_color_coded_masks_are_dropped(root):
    Image.new("RGB", (15, 15), (90, 0, 0)).save(root / "masks" / "b.png")
    summary = evaluate(Fake(), open_data(root, "all"))
    assert list(summary["dropped"]) == ["b"]
    assert "b.png: has mode RGB, as a color-coded mask does" in summary["dropped"]["b"]


def test_missing_images_count_as_dropped(root):
    reports = []
    summary = evaluate(
        Fake(),
        open_data(root, "all"),
        missing={"d": "found no mask"},
        progress=lambda done, total, doing: reports.append((done, total)),
    )
    assert (summary["images"], summary["dropped"]) == (3, {"d": "found no mask"})
    assert "3 of 4 images" in summary["protocol"]
    assert reports == [(2, 4), (3, 4), (4, 4)]
    figures = evaluate(Fake(), open_data(root, "all"))
    assert {k: summary[k] for k in ("miou", "iou")} == {k: figures[k] for k in ("miou", "iou")}
    with pytest.raises(DataError, match="could be evaluated: found no mask"):
        evaluate(
            Fake(), open_data(root, "all")._replace(samples=[]), missing={"d": "found no mask"}
        )


def test_nothing_to_measure_is_an_error(root):
    for path in (root / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no image of .*tiny could be evaluated: .*a\.png"):
        evaluate(Fake(), open_data(root, "all"))


def test_void_alone_is_an_error(tmp_path):
    write(tmp_path, "a", np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8))
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    with pytest.raises(DataError, match="could be evaluated: every pixel is void"):
        evaluate(Fake(), open_data(tmp_path, "all"))


def test_masks_of_0_and_255_are_refused_before_anything_is_segmented(tmp_path):
    for name in "ab":
        write(tmp_path, name, np.zeros((4, 4), np.uint8), 255 * np.eye(4, dtype=np.uint8))
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    with pytest.raises(
        DataError, match=r"masks of all in .* contain only 0 \(background\) and 255"
    ):
        evaluate(Fake(), open_data(tmp_path, "all"))


def test_other_classes_are_an_error(root):
    (root / "classes.txt").write_text("background\ndog\ncat\nnever\nmore\nmost\n")
    with pytest.raises(
        DataError,
        match=r"data with the classes background, dog, cat, never, more … \(6\), but the weights "
        r"know background, cat, dog, never; evaluate on data with the same classes\.txt",
    ):
        evaluate(Fake(), open_data(root, "all"))


def test_options_reach_the_segmenter_and_the_protocol(root):
    fake, data = Fake(), open_data(root, "all")
    options = {"mode": "instance", "preset": "reference", "proposals": 7, "method": "grid"}
    summary = evaluate(fake, data, **options)
    assert fake.calls == [options] * 3
    assert summary["mode"] == "instance"
    for part in ("tiny all, 3 of 3", "instance-wise, 7 grid", "preset reference", "float32", "255"):
        assert part in summary["protocol"]
    whole = evaluate(fake, data)["protocol"]
    assert "whole images, long side 320, float32" in whole


def test_measuring_and_summing_up_are_apart(root):
    data = open_data(root, "all")
    measured = list(measure(Fake(), data))
    assert [m.name for m in measured] == ["a", "b", "c"]
    assert all(m.matrix.dtype == np.int64 and m.matrix.shape == (4, 4) for m in measured)
    summary = summarize(measured, data, "in some way")
    assert "in some way" in summary["protocol"]
    assert summary["miou"] == evaluate(Fake(), data)["miou"]


# ---- several processes ---------------------------------------------------------------------------


@pytest.fixture
def share_of(monkeypatch):
    """Be one of several processes, whose results are gathered from `parts`."""

    def be(rank, parts):
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        monkeypatch.setattr(distributed, "world", lambda: len(parts))

        def gather(found):
            parts[rank] = found
            total = sum(map(len, parts))
            return [parts[i % len(parts)][i // len(parts)] for i in range(total)]

        monkeypatch.setattr(distributed, "gather", gather)

    return be


def test_the_share_of_a_process_is_measured(root, share_of):
    data = open_data(root, "all")
    alone = evaluate(Fake(), data)
    parts, reports = [[], []], []
    for rank, mine in ((1, ["b"]), (0, ["a", "c"])):
        share_of(rank, parts)
        assert [m.name for m in measure(Fake(), data)] == mine
    parts[1] = list(measure(Fake(), data._replace(samples=data.samples[1:2])))
    share_of(0, parts)
    summary = evaluate(
        Fake(), data, progress=lambda done, total, doing: reports.append((done, total))
    )
    assert summary == alone
    assert reports == [(2, 3), (3, 3)]


MATRICES = """
import sys
import numpy as np, torch
from unpool import distributed
from unpool.data.datasets import open_data
from unpool.segment.evaluate import measure
from unpool.segment.segmenter import Segmenter

torch.set_num_threads(1)
root, weights, target = sys.argv[1:]
with distributed.join(torch.device("cpu")):
    assert distributed.world() == 2
    segmenter = Segmenter.from_pretrained(weights, device="cpu", precision="fp32")
    found = distributed.gather(list(measure(segmenter, open_data(root, "all"))))
    np.save(f"{target}{distributed.rank()}.npy", np.stack([m.matrix for m in found]))
"""


@pytest.fixture
def odd(root, filled, tmp_path):
    """Seven images, one of them broken and one without mask; and weights."""
    random = np.random.default_rng(0)
    for name in "defg":
        write(root, name, *random.integers(0, 3, (2, 11, 17), dtype=np.uint8))
    (root / "images/d.png").write_bytes(b"no image")
    net = filled(DeconvNet(4, ((1, 4),), None, 16))
    return root, save_pretrained(net, tmp_path / "net", {"classes": CLASSES})


def torchrun(*args):
    two = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [sys.executable, "-m", *two, *args],
        check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_count_the_same_pixels(odd, tmp_path):
    """The confusion matrices of an odd number of images, byte for byte and in order."""
    root, weights = odd
    (tmp_path / "matrices.py").write_text(MATRICES)
    done = torchrun(tmp_path / "matrices.py", root, weights, tmp_path / "found")
    assert done.returncode == 0, done.stderr
    segmenter = Segmenter.from_pretrained(weights, device="cpu", precision="fp32")
    expected = np.stack([m.matrix for m in measure(segmenter, open_data(root, "all"))])
    assert len(expected) == 7
    for rank in (0, 1):
        found = np.load(tmp_path / f"found{rank}.npy")
        assert (found.dtype, found.tobytes()) == (expected.dtype, expected.tobytes())


@pytest.mark.slow
def test_two_processes_tell_once_what_one_tells(odd, tmp_path):
    root, weights = odd
    (root / "masks/e.png").unlink()
    args = ["evaluate", "--weights", weights, "--data", root, "--split=all", "--device=cpu"]
    (line,) = torchrun("-m", "unpool", *args, "--json", "-o", tmp_path / "out").stdout.splitlines()
    found = json.loads(line)
    assert json.loads((tmp_path / "out/summary.json").read_text()) == found
    assert (found["images"], list(found["dropped"])) == (5, ["e", "d"])
    data = open_data(root, "all", missing := {})
    segmenter = Segmenter.from_pretrained(weights, device="cpu")
    for mode, figures in found["modes"].items():
        expected = evaluate(segmenter, data, missing=missing, mode=mode)
        assert figures == json.loads(json.dumps(expected))


def test_means_over_classes_that_several_images_show(root, pairs):
    data = open_data(root, "all")
    shown = [np.unique(truth[truth != 255]) for _, truth in pairs.values()]
    counts = [sum(k in labels for labels in shown) for k in range(4)]
    every = evaluate(Fake(), data)
    assert list(every["class_images"].values()) == counts
    assert counts == [3, 2, 2, 0]
    for least, names in ((2, CLASSES[:3]), (3, CLASSES[:1])):
        frequent = evaluate(Fake(), data, min_images=least)
        assert frequent["miou"] == pytest.approx(np.mean([every["iou"][c] for c in names]))
        assert frequent["iou"] == every["iou"]
        assert f"mean over the {len(names)} classes in {least} images" in frequent["protocol"]
    with pytest.raises(OptionError, match="no class is in the truth of so many of 3 images"):
        evaluate(Fake(), data, min_images=4)


def test_the_calibration_error_is_of_all_pixels(root, pairs):
    class Sure(Fake):
        """Is sure by half of what it predicts, which is right seven times in ten."""

        def __call__(self, image, **options):
            found = super().__call__(image, **options)
            scores = np.where(found.labels == np.arange(4)[:, None, None], np.log(3), 0)
            return replace(found, stored_probabilities=scores + 1, logits=scores.astype(np.float32))

    summary = evaluate(Sure(), open_data(root, "all"))
    prediction, truth = pooled(pairs)
    wanted = abs((prediction == truth).mean() - 0.5)  # 3 / (3 + 1 + 1 + 1)
    assert summary["calibration_error"] == pytest.approx(wanted)
    assert evaluate(Fake(), open_data(root, "all"))["calibration_error"] is None
