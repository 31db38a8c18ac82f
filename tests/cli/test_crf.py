import json
import re

import numpy as np
import pytest

from tests.cli.files import CLASSES, hashes, photo, results, save
from unpool.vision.images import read_mask


def test_saved_scores_keep_the_presence_threshold(run, weights):
    save("cat.png")
    args = [
        "segment",
        "cat.png",
        "--weights",
        weights,
        "--presence-threshold=0.999",
        "--scores",
        "--json",
    ]
    assert run(*args, "-o", "out")[0] == 0
    args = ["crf", "out/cat.scores.npz", "cat.png", "--crf=deeplab", "--json"]
    kept = json.loads(run(*args)[1][0])
    assert list(kept["labels"]) == ["background"]
    assert kept["description"] == (
        "only classes with a probability of 0.999 on 1 % of the image, "
        "dense CRF deeplab of cat.scores.npz"
    )
    assert json.loads(run(*args, "--presence-threshold=0")[1][0])["labels"] != kept["labels"]


def test_scores_are_kept_and_refined(run, pair):
    save("photos/cat.png")
    args = ["photos", "--weights", pair, "--precision=fp32", "--json"]
    code, out, err = run("segment", *args, "-o", "out", "--scores", "--no-overlay")
    assert (code, err) == (0, [])
    record = json.loads(out[0])
    assert record["scores"] == "out/cat.scores.npz"
    assert results("out") == {"cat.png", "cat.scores.npz"}
    with np.load("out/cat.scores.npz") as file:
        assert (file["scores"].argmax(0) == read_mask("out/cat.png")).mean() > 0.99
        assert file["classes"].tolist() == CLASSES
        raw = file["scores"].astype(np.float64)
    expected = json.loads(run("segment", *args, "-o", "at-once", "--crf=deeplab")[1][0])
    args = ["crf", "out/cat.scores.npz", "photos/cat.png", "--crf=deeplab", "--json"]
    code, out, err = run(*args)
    assert (code, err, len(out)) == (0, [], 1)
    record = json.loads(out[0])
    keys = ["source", "mask", "size", "labels", "confidence", "description", "seconds"]
    assert list(record) == keys
    assert (record["source"], record["mask"]) == ("photos/cat.png", "refined/cat.png")
    assert (record["size"], record["description"]) == (
        [40, 30],
        "dense CRF deeplab of cat.scores.npz",
    )
    labels = read_mask("refined/cat.png")
    assert (labels == read_mask(expected["mask"])).mean() > 0.99
    assert results("refined") == {"cat.png", "cat.overlay.jpg"}
    e = np.exp(raw - raw.max(0))
    np.save("p.npy", e / e.sum(0))
    args = ["crf", "p.npy", "photos/cat.png", "--crf=deeplab", "--probabilities"]
    code, out, err = run(*args, "--no-overlay", "-o", "new")
    assert (code, err) == (0, [])
    assert re.fullmatch(r"photos/cat\.png: class \d .*%.* \([\d.]+ s\)", out[0])
    assert (read_mask("new/cat.png") == labels).mean() > 0.99
    assert results("new") == {"cat.png"}
    assert run(*args, "--quiet") == (0, [], [])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a.npy", "cat.png"], "Missing option '--crf'"),
        (["none.npy", "cat.png", "--crf=deeplab"], "got none.npy, which does not exist"),
        (["cat.png", "cat.png", "--crf=deeplab"], "cat.png is no .npz or .npy of numbers"),
        (["a.npy", "none.png", "--crf=deeplab"], "none.png"),
        (["a.npy", "cat.png", "--crf=deeplab", "--probabilities"], "pass no --probabilities for"),
        (["a.npy", "cat.png", "--crf=deeplab", "-o", "."], "overwrite the input cat.png; choose"),
    ],
)  # fmt: skip
def test_unusable_scores(refused, args, message):
    save("cat.png")
    save("dog.png", photo(30, 40))
    np.save("a.npy", np.random.default_rng(0).normal(size=(3, 30, 40)))
    before = hashes(".")
    assert re.search(message, refused("crf", *args))
    assert hashes(".") == before


def test_scores_of_another_image_are_refused(refused):
    save("dog.png", photo(30, 40))
    np.save("a.npy", np.random.default_rng(0).normal(size=(3, 30, 40)))
    message = "got scores of (3, 30, 40) for an image of (40, 30) (H, W); wanted (K, H, W): pass"
    assert message in refused("crf", "a.npy", "dog.png", "--crf=deeplab")
    assert results("refined") == set()


def test_of_several_images_those_of_another_size_fail(run):
    save("photos/cat.png")
    save("photos/dog.png", photo(30, 40))
    np.save("a.npy", np.random.default_rng(0).normal(size=(3, 30, 40)))
    code, out, err = run("crf", "a.npy", "photos", "--crf=deeplab")
    assert (code, len(out), len(err)) == (3, 1, 1)
    assert err[0].startswith("unpool: photos/dog.png: got scores of (3, 30, 40) for an image of")
    assert results("refined") == {"cat.png", "cat.overlay.jpg"}
