"""Scores on disk: there and back, and what is refused."""

import numpy as np
import pytest

from unpool.errors import DataError, ShapeError
from unpool.segment.scores import Scores, read_scores, write_scores
from unpool.vision.images import voc_palette

VALUES = np.random.default_rng(0).normal(0, 5, (3, 5, 7)).astype(np.float32)
CLASSES = ["background", "cat", "Größe"]


def softmax(values):
    e = np.exp(values - values.max(0))
    return e / e.sum(0)


def test_there_and_back(tmp_path):
    path = tmp_path / "new" / "cat.scores.npz"
    write_scores(path, Scores(VALUES, CLASSES, voc_palette()))
    with np.load(path) as file:
        assert (file["scores"].dtype, file["scores"].shape) == (np.float16, VALUES.shape)
        assert file["classes"].tolist() == CLASSES
    found = read_scores(path)
    assert found.values.dtype == np.float32
    np.testing.assert_allclose(found.values, VALUES, rtol=1e-3)
    assert found.classes == CLASSES
    assert (found.palette == voc_palette()).all()
    assert found.presence_threshold == 0
    write_scores(path, Scores(VALUES, CLASSES, presence_threshold=0.75))
    assert read_scores(path).presence_threshold == 0.75
    assert [p.name for p in path.parent.iterdir()] == ["cat.scores.npz"]


def test_scores_beyond_half_precision_stay_finite(tmp_path):
    values = np.array([1e9, -1e9, -np.inf], np.float32).reshape(3, 1, 1)
    write_scores(tmp_path / "a.npz", Scores(values, CLASSES))
    found = read_scores(tmp_path / "a.npz")
    assert found.values.ravel().tolist() == [65504, -65504, -65504]
    assert found.palette is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_of_other_programs(tmp_path, dtype):
    np.save(tmp_path / "a.npy", VALUES.astype(dtype))
    found = read_scores(tmp_path / "a.npy")
    np.testing.assert_allclose(found.values, VALUES, rtol=1e-3)
    assert found.classes == ["class 0", "class 1", "class 2"]
    probabilities = softmax(VALUES)
    probabilities[:, 0, 0] = 1, 0, 0
    np.save(tmp_path / "p.npy", probabilities.astype(dtype))
    found = read_scores(tmp_path / "p.npy", probabilities=True)
    np.testing.assert_allclose(softmax(found.values), probabilities, atol=1e-3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (VALUES[0], r"got scores of \(5, 7\) float32 in .*; wanted \(K, H, W\), numbers"),
        (VALUES[None], "got scores of"),
        (VALUES[:0], "got scores of"),
        (VALUES > 0, r"got scores of \(3, 5, 7\) bool"),
        (np.zeros((257, 1, 1)), "of 1 to 256 classes"),
        (np.full((3, 5, 7), "a"), "got scores of"),
    ],
)
def test_arrays_that_are_no_scores(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ShapeError, match=message):
        read_scores(tmp_path / "a.npy")


@pytest.mark.parametrize("bad", [np.nan, np.inf, [-np.inf] * 3])
def test_scores_that_are_not_finite(tmp_path, bad):
    values = VALUES.copy()
    values[:, 1, 1] = bad
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(DataError, match="with NaN, or with pixels of no finite score"):
        read_scores(tmp_path / "a.npy")


def test_scores_and_probabilities_are_not_taken_for_one_another(tmp_path):
    np.save(tmp_path / "scores.npy", VALUES)
    np.save(tmp_path / "shares.npy", softmax(VALUES).astype(np.float16))
    with pytest.raises(DataError, match=r"whose sums over .*: pass probabilities=False for raw"):
        read_scores(tmp_path / "scores.npy", probabilities=True)
    with pytest.raises(DataError, match="sum up to 1, as probabilities do; pass prob"):
        read_scores(tmp_path / "shares.npy")


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"probs": VALUES}, DataError, "has no array `scores`; wanted a .npz with an array"),
        ({"scores": VALUES, "classes": np.array(["a"])}, ShapeError, r"\(1,\) .*3 names"),
        ({"scores": VALUES, "classes": np.arange(3)}, ShapeError, r"classes of \(3,\) int64"),
        ({"scores": VALUES, "palette": np.zeros((3, 3))}, ShapeError, r"got a palette of \(3, 3\)"),
        (
            {"scores": VALUES, "presence_threshold": np.float64(2)},
            ShapeError,
            "presence threshold of .* wanted a single",
        ),
        (
            {"scores": VALUES, "presence_threshold": np.zeros(2)},
            ShapeError,
            r"presence threshold of \(2,\) float64",
        ),
        (
            {"scores": VALUES, "presence_threshold": np.array("a")},
            ShapeError,
            "wanted a single probability",
        ),
        ({"scores": np.array([{}, 1], object)}, DataError, "is no .npz or .npy of numbers"),
    ],
)
def test_files_with_other_arrays(tmp_path, arrays, error, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(error, match=message):
        read_scores(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"no array", b"PK\x03\x04 no zip", b"\x93NUMPY\x01"])
@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_files_that_hold_no_arrays(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"is no .npz or .npy of numbers.* save a result"):
        read_scores(tmp_path / name)
