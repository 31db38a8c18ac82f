"""Scores on disk: there and back, and what is refused."""

import io
import os
import random
import tracemalloc
import zipfile
from contextlib import suppress

import numpy as np
import pytest

from unpool.errors import DataError, ShapeError
from unpool.limits import MIB
from unpool.segment.scores import Scores, read_scores, write_scores
from unpool.vision.boxes import reduced_size
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
        (VALUES[None], r"save scores\[0\], those of one image"),
        (np.zeros((300, 400, 3)), r"classes first, np.moveaxis\(scores, -1, 0\)"),
        (VALUES[:0], "got scores of"),
        (VALUES[:1], r"of one class, \(1, 5, 7\), .*: of a single .* np.stack\(\[1 - p, p\]\)"),
        (VALUES > 0, r"got scores of \(3, 5, 7\) bool"),
        (np.zeros((257, 1, 1)), "of 2 to 256 classes"),
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


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 5, 7)), "the same for all classes at every pixel"),
        (2 * softmax(VALUES), r"sums over the classes are 2 to 2, as scaled .*divided by their su"),
        ((255 * softmax(VALUES)).astype(np.uint8), r"as scaled probabilities have"),
        (100 * softmax(VALUES), "as scaled probabilities have; wanted a sum of 1"),
        (1 / (1 + np.exp(-VALUES)), "as of a sigmoid, .* save the raw scores before the sigmoid"),
        (np.moveaxis(softmax(VALUES), 0, -1), "sum up to 1 over the last axis; wanted the classes"),
    ],
)
def test_values_that_are_neither_scores_nor_probabilities(tmp_path, values, message, probabilities):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(DataError, match=message):
        read_scores(tmp_path / "a.npy", probabilities=probabilities)


def test_own_scores_are_raw_whatever_their_values(tmp_path):
    for values in (np.zeros_like(VALUES), softmax(VALUES)):
        write_scores(tmp_path / "a.npz", Scores(values, CLASSES))
        np.testing.assert_allclose(read_scores(tmp_path / "a.npz").values, values, atol=1e-3)


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i8", ">i2", "|u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_types_and_orders_of_arrays(tmp_path, dtype, order):
    values = np.rint(VALUES * 3 + 90).astype(dtype, order=order)
    np.save(tmp_path / "a.npy", values)
    np.savez_compressed(tmp_path / "a.npz", scores=values, other=VALUES)
    for name in ("a.npy", "a.npz"):
        found = read_scores(tmp_path / name).values
        assert found.dtype == np.float32
        assert (found == values.astype(np.float32)).all()


def write_bomb(path, **shapes):
    """A .npz whose arrays are zeros, a thousandth of their size on disk."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, shape in shapes.items():
            header = io.BytesIO()
            about = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(header, about)
            with archive.open(f"{name}.npy", "w") as file:
                file.write(header.getvalue())
                file.write(bytes(2**20))


@pytest.mark.parametrize(
    ("shapes", "size", "error", "message"),
    [
        ({"scores": (21, 8000, 8000)}, None, DataError, "134217728 values; pass size="),
        ({"scores": (21, 8000, 8000)}, (50, 70), ShapeError, "for an image of .50, 70."),
        ({"scores": (2, 10**200, 10)}, (50, 70), ShapeError, "for an image of .50, 70."),
        ({"scores": (2, -5, -7)}, None, ShapeError, "got scores of"),
        ({"scores": (3, 50, 70), "classes": (10**9,)}, (50, 70), DataError, "with classes of"),
        ({"scores": (3, 5000, 7000)}, (5000, 7000), DataError, "or damaged"),  # too short
    ],
)
def test_sizes_are_checked_before_arrays_are_read(tmp_path, shapes, size, error, message):
    write_bomb(tmp_path / "a.npz", **shapes)
    tracemalloc.start()
    with pytest.raises(error, match=message):
        read_scores(tmp_path / "a.npz", size=size)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 512 * MIB


def test_scores_of_the_reduced_image_fit(tmp_path):
    values = np.zeros((2, *reduced_size((2000, 3000))), np.float32)
    values[1, 5] = 1
    write_scores(tmp_path / "a.npz", Scores(values, CLASSES[:2]))
    assert read_scores(tmp_path / "a.npz", size=(2000, 3000)).values.shape == values.shape
    with pytest.raises(ShapeError, match="for an image of"):
        read_scores(tmp_path / "a.npz", size=(2000, 2000))


def test_a_pipe_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(DataError, match="a pipe, device or socket"):
        read_scores(tmp_path / "a.npy")


@pytest.mark.parametrize("seed", range(200))
def test_damaged_files_give_scores_or_an_error_of_the_package(tmp_path, seed):
    write_scores(tmp_path / "a.npz", Scores(VALUES, CLASSES, voc_palette()))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    (tmp_path / "a.npz").write_bytes(content[: rng.choice([None, rng.randrange(len(content))])])
    with suppress(DataError, ShapeError):
        read_scores(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"probs": VALUES}, DataError, r"has no array `scores` \(probs\); wanted a .npz"),
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
