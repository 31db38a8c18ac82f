"""Scores against scikit-learn and against loops over sets of pixels."""

import itertools
import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torchmetrics.functional.classification import binary_calibration_error

from unpool.errors import DataError, OptionError, ShapeError
from unpool.vision.metrics import (
    bootstrap_interval,
    bootstrap_ratio,
    boundary_f1,
    calibration_error,
    confusion_matrix,
    in_images,
    reliability,
    scores,
)

K = 4


def label_maps(values):
    return arrays.arrays(np.uint8, (5, 6), elements=st.sampled_from(values))


def random_pair(seed=0, classes=21, shape=(40, 50)):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, shape, dtype=np.uint8)
    prediction = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, classes, shape))
    truth[rng.random(shape) < 0.1] = 255
    return prediction.astype(np.uint8), truth


@settings(deadline=None)  # the first call loads libraries
@given(label_maps([0, 1, 2, 3]), label_maps([0, 1, 2, 3, 255]))
def test_confusion_matrix_counts(prediction, truth):
    matrix = confusion_matrix(prediction, truth, K)
    expected = np.zeros((K, K), np.int64)
    for p, t in zip(prediction.flat, truth.flat, strict=True):
        if t != 255:
            expected[t, p] += 1
    assert matrix.dtype == np.int64
    assert (matrix == expected).all()


def test_confusion_matrix_is_sklearns():
    prediction, truth = random_pair()
    valid = truth != 255
    expected = sklearn.metrics.confusion_matrix(
        truth[valid], prediction[valid], labels=np.arange(21)
    )
    matrix = confusion_matrix(prediction, truth, 21)  # 21 * 20 + 20 does not fit in their uint8
    assert (matrix == expected).all()
    truth.flags.writeable = False  # as an image of Pillow is
    assert (confusion_matrix(prediction.astype(np.int32), truth, 21) == expected).all()


def test_matrices_of_parts_add_up():
    prediction, truth = random_pair()
    parts = sum(confusion_matrix(p, t, 21) for p, t in zip(prediction, truth, strict=True))
    assert (parts == confusion_matrix(prediction, truth, 21)).all()


def test_the_ignore_value_may_be_one_of_the_classes():
    truth = np.array([0, 1, 2, 2])
    assert confusion_matrix(truth, truth, 3, ignore=0).tolist() == [[0] * 3, [0, 1, 0], [0, 0, 2]]


def test_scores_are_sklearns():
    prediction, truth = random_pair(classes=5)
    prediction[prediction == 3] = 2  # a class that is never predicted
    found = scores(confusion_matrix(prediction, truth, 5))
    p, t = prediction[truth != 255], truth[truth != 255]
    iou = sklearn.metrics.jaccard_score(t, p, average=None)
    np.testing.assert_allclose(found.iou, iou)
    assert found.miou == pytest.approx(iou.mean())
    assert found.pixel_accuracy == pytest.approx(sklearn.metrics.accuracy_score(t, p))
    assert found.mean_accuracy == pytest.approx(sklearn.metrics.balanced_accuracy_score(t, p))
    weighted = sklearn.metrics.jaccard_score(t, p, average="weighted")
    assert found.frequency_weighted_iou == pytest.approx(weighted)


@settings(deadline=None)  # the first call loads libraries
@given(label_maps([0, 1, 3]), label_maps([0, 1, 2, 255]))
def test_scores_count_pixels(prediction, truth):
    found = scores(confusion_matrix(prediction, truth, K))
    valid = [i for i, t in enumerate(truth.flat) if t != 255]
    predicted = [{i for i in valid if prediction.flat[i] == k} for k in range(K)]
    true = [{i for i in valid if truth.flat[i] == k} for k in range(K)]
    both = list(zip(predicted, true, strict=True))
    iou = [len(p & t) / len(p | t) if p | t else math.nan for p, t in both]
    accuracy = [len(p & t) / len(t) for p, t in both if t]
    np.testing.assert_allclose(found.iou, iou)
    if not valid:
        assert all(math.isnan(x) for x in (found.miou, found.pixel_accuracy, found.mean_accuracy))
        assert math.isnan(found.frequency_weighted_iou)
        return
    assert found.miou == pytest.approx(np.nanmean(iou))
    assert found.mean_accuracy == pytest.approx(np.mean(accuracy))
    assert found.pixel_accuracy == pytest.approx(sum(len(p & t) for p, t in both) / len(valid))
    weighted = [len(t) / len(valid) * i for i, t in zip(iou, true, strict=True) if t]
    assert found.frequency_weighted_iou == pytest.approx(sum(weighted))


def test_a_class_that_does_not_occur_is_left_out_and_one_only_predicted_is_not():
    assert math.isnan(scores(np.diag([4, 0, 2])).iou[1])
    assert scores(np.diag([4, 0, 2])).miou == 1
    found = scores(np.array([[4, 0, 1], [0, 0, 0], [0, 0, 0]]))
    assert found.miou == pytest.approx((4 / 5 + 0) / 2)
    assert found.mean_accuracy == pytest.approx(4 / 5)


def images(count, seed=0):
    return np.stack([confusion_matrix(*random_pair(seed + i, 3, (8, 8)), 3) for i in range(count)])


def test_bootstrap_is_a_loop_over_samples_of_images():
    matrices = images(12) * np.arange(1, 13)[:, None, None] ** 2  # of very different sizes
    rng = np.random.default_rng(99)
    loop = [scores(matrices[rng.integers(0, 12, 12)].sum(0)).miou for _ in range(3000)]
    expected = np.quantile(loop, [0.1, 0.9])
    found = bootstrap_interval(matrices, level=0.8, samples=20000)
    np.testing.assert_allclose(found, expected, atol=0.004)


def test_bootstrap_is_the_same_for_the_same_seed_and_wider_for_a_higher_level():
    matrices = images(10)
    low, high = bootstrap_interval(matrices)
    assert bootstrap_interval(matrices) == (low, high)
    assert bootstrap_interval(matrices, seed=1) != (low, high)
    assert low < scores(matrices.sum(0)).miou < high
    wide = bootstrap_interval(matrices, level=0.99)
    assert wide[0] <= low
    assert wide[1] >= high


def test_bootstrap_of_a_ratio_is_a_loop_over_samples_of_images():
    rng = np.random.default_rng(7)
    right, pixels = rng.integers(0, 50, 12), rng.integers(50, 90, 12)
    drawn = rng.integers(0, 12, (3000, 12))
    expected = np.quantile(right[drawn].sum(1) / pixels[drawn].sum(1), [0.1, 0.9])
    found = bootstrap_ratio(right, pixels, level=0.8, samples=20000)
    np.testing.assert_allclose(found, expected, atol=0.006)


def test_bootstrap_of_a_mean_is_as_wide_as_its_standard_error():
    values = np.random.default_rng(8).random(400)
    low, high = bootstrap_ratio(values, np.ones(400), samples=5000)
    error = 1.96 * values.std() / 20
    np.testing.assert_allclose(
        [low, high], [values.mean() - error, values.mean() + error], atol=2e-3
    )


def test_bootstrap_with_images_that_hold_nothing():
    matrices = images(3)
    matrices[1:] = 0
    miou = pytest.approx(scores(matrices[0]).miou)
    assert bootstrap_interval(matrices) == (miou, miou)


def slow_boundary_f1(prediction, truth, classes, ignore, tolerance):
    """Loops over pixels, neighbors and pairs of outline pixels."""
    height, width = truth.shape
    reach = tolerance * math.sqrt(height**2 + width**2)
    void = {p for p in np.ndindex(height, width) if truth[p] == ignore}

    def outline(labels, k):
        found = set()
        for y, x in np.ndindex(height, width):
            for beside in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= beside[0] < height and 0 <= beside[1] < width
                if not inside or (y, x) in void or beside in void:
                    continue
                if labels[y, x] == k != labels[beside]:
                    found.add((y, x))
        return found

    def near(points, others):
        return sum(min(map(math.dist, [p] * len(others), others)) <= reach for p in points)

    scored = []
    for k in range(classes):
        found, wanted = outline(prediction, k), outline(truth, k)
        if not (truth == k).any() or k == ignore or not (found or wanted):
            scored.append(math.nan)
        elif not found or not wanted:
            scored.append(0.0)
        else:
            precision = near(found, list(wanted)) / len(found)
            recall = near(wanted, list(found)) / len(wanted)
            total = precision + recall
            scored.append(2 * precision * recall / total if total else 0.0)
    return scored


@settings(deadline=None)  # the first call loads libraries
@given(
    label_maps([0, 1, 2, 3]),
    label_maps([0, 1, 2, 255]),
    st.sampled_from([0.0, 0.13, 0.2, 0.3, 0.6]),
)
def test_boundary_f1_is_the_slow_loop(prediction, truth, tolerance):
    found = boundary_f1(prediction, truth, K, tolerance=tolerance)
    np.testing.assert_allclose(found, slow_boundary_f1(prediction, truth, K, 255, tolerance))


def two_halves(edge=20):
    labels = np.zeros((30, 40), np.uint8)  # diagonal 50
    labels[:, edge:] = 1
    return labels


def test_boundary_f1_forgives_shifts_within_the_tolerance():
    for shift, tolerance, expected in [(0, 0, 1), (1, 0.02, 1), (2, 0.039, 0), (2, 0.04, 1)]:
        found = boundary_f1(two_halves(20 + shift), two_halves(), 2, tolerance=tolerance)
        assert found.tolist() == [expected, expected]


def test_boundary_f1_scores_the_line_between_two_objects():
    # an erosion of the label map, or of foreground against background, would not see it
    truth = two_halves() + 1
    assert boundary_f1(truth, truth, 3).tolist()[1:] == [1, 1]
    assert boundary_f1(np.ones_like(truth), truth, 3).tolist()[1:] == [0, 0]


def test_boundary_f1_leaves_out_void():
    truth = two_halves()
    truth[:, 15:25] = 255
    assert np.isnan(boundary_f1(two_halves(18), truth, 2)).all()  # the line may be anywhere in it
    truth[:5, 19:21] = [0, 1]
    assert boundary_f1(two_halves(), truth, 2).tolist() == [1, 1]


def test_boundary_f1_of_one_class_alone():
    whole = np.zeros((6, 7), int)
    assert np.isnan(boundary_f1(whole, whole, 2)).all()
    prediction = whole.copy()
    prediction[2:4, 2:4] = 1
    assert boundary_f1(prediction, whole, 2)[0] == 0
    assert math.isnan(boundary_f1(prediction, whole, 2)[1])


@pytest.mark.parametrize("measure", [confusion_matrix, boundary_f1])
def test_label_maps_that_cannot_be_compared(measure):
    truth = np.array([[0, 1], [2, 255]])
    right = np.array([[0, 1], [2, 0]])
    for dtype, wrong in itertools.product((np.int64, np.int16), (3, -1)):
        prediction = right.astype(dtype)
        prediction[1, 1] = wrong  # even where the truth is ignored
        with pytest.raises(DataError, match=rf"prediction of {wrong}, wanted 0\.\.2; predict"):
            measure(prediction, truth, 3)
    with pytest.raises(DataError, match=r"prediction of 2, wanted 0\.\.1"):
        measure(right.astype(np.uint8), truth, 2)
    with pytest.raises(DataError, match=r"truth of 2, 255, wanted 0\.\.1, or 9 for ignored pixels"):
        measure(np.zeros_like(right), truth, 2, ignore=9)
    with pytest.raises(DataError, match=r"truth of 10, 11, 12, 13, 14, wanted"):
        measure(np.zeros((1, 9), int), np.arange(10, 19)[None], 3)
    with pytest.raises(ShapeError, match=r"prediction of \(2, 1\) for a truth of \(2, 2\); resize"):
        measure(right[:, :1], truth, 3)
    with pytest.raises(ShapeError, match="prediction of float64, wanted class ids as integers"):
        measure(right.astype(float), truth, 3)
    with pytest.raises(ShapeError, match="truth of bool"):
        measure(right, truth > 0, 3)


def test_messages_about_shapes_and_options():
    with pytest.raises(ShapeError, match=r"label maps of \(2, 3, 4\), wanted \(H, W\)"):
        boundary_f1(np.zeros((2, 3, 4), int), np.zeros((2, 3, 4), int), 2)
    with pytest.raises(ShapeError, match=r"matrix of \(2, 3\), wanted \(K, K\)"):
        scores(np.zeros((2, 3)))
    with pytest.raises(ShapeError, match=r"matrices of \(3, 3\), wanted \(N, K, K\)"):
        bootstrap_interval(np.ones((3, 3)))
    for nothing in (np.zeros((2, 3, 3)), np.zeros((0, 3, 3))):
        with pytest.raises(DataError, match="count no pixel"):
            bootstrap_interval(nothing)
    for option in ({"level": 95}, {"samples": 0}):
        with pytest.raises(OptionError, match="wanted 0 < level < 1, samples >= 1"):
            bootstrap_interval(images(2), **option)


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_the_calibration_error_is_torchmetrics(bins):
    rng = np.random.default_rng(bins)
    confidence = rng.uniform(0, 1, (40, 50))
    right = rng.random((40, 50)) < confidence**2
    diagram = reliability(confidence[:15], right[:15], bins)
    diagram += reliability(confidence[15:], right[15:], bins)
    # of a binary classifier that says "right" with this probability
    wanted = binary_calibration_error(
        torch.from_numpy(confidence.ravel()), torch.from_numpy(right.ravel()).long(), n_bins=bins
    )
    assert diagram[0].sum() == 2000
    assert calibration_error(diagram) == pytest.approx(float(wanted), abs=1e-6)


def test_the_ends_of_the_confidence_fall_into_the_first_and_last_bin():
    diagram = reliability(np.array([0.0, 1.0, 1.0]), np.array([False, True, True]), 4)
    assert diagram.tolist() == [[1, 0, 0, 2], [0, 0, 0, 2], [0, 0, 0, 2]]
    assert calibration_error(diagram) == 0
    assert math.isnan(calibration_error(np.zeros((3, 4))))
    with pytest.raises(ShapeError, match=r"confidence of \(2,\) for labels of \(3,\)"):
        reliability(np.zeros(2), np.zeros(3, bool))


def test_means_over_the_classes_of_several_images():
    pairs = [random_pair(seed, 5) for seed in range(6)]
    for _, truth in pairs[2:]:
        truth[truth == 3] = 255  # two images show class 3
    for _, truth in pairs:
        truth[truth == 4] = 0  # no image shows class 4, which is predicted
    matrices = np.stack([confusion_matrix(p, t, 5) for p, t in pairs])
    assert in_images(matrices, 0).all()
    assert in_images(matrices, 1).tolist() == [True, True, True, True, False]
    among = in_images(matrices, 3)
    assert among.tolist() == [True, True, True, False, False]
    total, part = scores(matrices.sum(0)), scores(matrices.sum(0), among)
    assert part.miou == pytest.approx(total.iou[:3].mean())
    np.testing.assert_array_equal(part.iou, total.iou)
    assert part.pixel_accuracy == total.pixel_accuracy
    low, high = bootstrap_interval(matrices, among=among)
    assert low < part.miou < high
    assert bootstrap_interval(matrices[:1].repeat(2, 0), among=among) == pytest.approx(
        [scores(matrices[0], among).miou] * 2
    )
