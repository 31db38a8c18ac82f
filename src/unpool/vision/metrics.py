"""Metrics of segmentation: a confusion matrix over the data set, and the scores derived from it.

Label maps have K classes, 0..K-1; pixels of the truth with the ignore value (255, "void") are not
counted. Scores are computed from the sum of the matrices of all images. (The mean of the IoU of
single images is a different figure, and not the published one.)
"""

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_confusion_matrix

from unpool.errors import DataError, OptionError, ShapeError


class Scores(NamedTuple):
    """The scores of a confusion matrix, 0..1; NaN where nothing was counted."""

    miou: float  #: mean of `iou` over the classes that have one
    iou: NDArray[np.float64]  #: (K,), NaN for a class neither in the truth nor predicted
    pixel_accuracy: float  #: fraction of the pixels with the right label
    mean_accuracy: float  #: mean over the classes in the truth of the accuracy on their pixels
    frequency_weighted_iou: float  #: mean of `iou`, weighted by the true pixels of each class


def confusion_matrix(
    prediction: NDArray[Any], truth: NDArray[Any], classes: int, ignore: int = 255
) -> NDArray[np.int64]:
    """Count the pixels of each true class by their predicted class.

    Args:
        prediction: integers 0..K-1, of any shape; on ignored pixels, too.
        truth: integers 0..K-1, or `ignore` for pixels not to count; of the same shape.

    Returns:
        (K, K) int64, rows true, columns predicted; the matrices of images can be added.

    Raises:
        ShapeError, DataError: shapes or types do not fit, or a value is out of range.

    >>> truth = np.array([[0, 1, 1, 255]])
    >>> confusion_matrix(np.array([[0, 1, 0, 0]]), truth, classes=2).tolist()
    [[1, 0], [1, 1]]
    """
    _check(prediction, truth, classes, ignore)  # torchmetrics counts wrong values in other cells
    found, wanted = (torch.from_numpy(labels.astype(np.int64)) for labels in (prediction, truth))
    counted = multiclass_confusion_matrix(
        found, wanted, num_classes=classes, ignore_index=ignore, validate_args=False
    )
    return np.asarray(counted, dtype=np.int64)


def scores(matrix: NDArray[Any], among: NDArray[np.bool_] | None = None) -> Scores:
    """Compute all scores from a confusion matrix, (K, K), rows true, columns predicted.

    Args:
        matrix: the sum of those of all images.
        among: the classes, (K,), over which the means are taken; all by default.

    Long, Shelhamer, Darrell 2015, section 5; absent classes are treated as in their code.

    >>> found = scores(np.array([[3, 1], [1, 3]]))
    >>> found.miou, found.pixel_accuracy
    (0.6, 0.75)
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(f"got a matrix of {matrix.shape}, wanted (K, K); see confusion_matrix")
    right, union, true = matrix.diagonal(), _union(matrix), matrix.sum(axis=1)
    iou, accuracy = _ratio(right, union), _ratio(right, true)
    counted = slice(None) if among is None else among
    return Scores(
        miou=float(_mean(iou[counted])),
        iou=iou,
        pixel_accuracy=float(_ratio(right.sum(), true.sum())),
        mean_accuracy=float(_mean(accuracy[counted])),
        frequency_weighted_iou=float(_ratio(np.nansum(iou * true), true.sum())),
    )


def bootstrap_interval(
    matrices: NDArray[Any],
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
    among: NDArray[np.bool_] | None = None,
) -> tuple[float, float]:
    """The ends of a confidence interval of the mean IoU (percentile bootstrap over images).

    Each sample draws N images with replacement, sums their matrices and computes the mean IoU.

    Args:
        matrices: (N, K, K), a confusion matrix for each image.
        level: fraction of the samples inside the interval, between 0 and 1.
        samples, seed: of the bootstrap.
        among: as of `scores`.

    Raises:
        ShapeError, DataError, OptionError: an argument is wrong, or the matrices count no pixel.

    Efron, Tibshirani 1993, chapter 13.

    >>> image = np.array([[3, 1], [1, 3]])
    >>> bootstrap_interval(np.stack([image, image]))
    (0.6, 0.6)
    """
    matrices = np.asarray(matrices)
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2]:
        raise ShapeError(f"got matrices of {matrices.shape}, wanted (N, K, K), one per image")
    if not matrices.any():
        raise DataError("got matrices that count no pixel; give images with labeled pixels")
    if not (0 < level < 1 and samples >= 1):
        got = f"got level {level}, samples {samples}"
        raise OptionError(f"{got}; wanted 0 < level < 1, samples >= 1")
    counts = _resampled(len(matrices), samples, seed)
    # intersections and unions add up over images, and float64 holds the sums exactly
    counted = slice(None) if among is None else among
    right = matrices.diagonal(axis1=1, axis2=2)[:, counted]
    union = _union(matrices)[:, counted]
    return _quantiles(_mean(_ratio(counts @ right, counts @ union)), level)


def bootstrap_ratio(
    numerators: NDArray[Any],
    denominators: NDArray[Any],
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The ends of a confidence interval of a ratio of sums over images, as `bootstrap_interval`.

    With ones as denominators it is the interval of a mean.

    Args:
        numerators, denominators: (N,), of each image.
        level, samples, seed: see `bootstrap_interval`.

    >>> bootstrap_ratio(np.array([3, 3]), np.array([4, 4]))
    (0.75, 0.75)
    """
    counts = _resampled(len(numerators), samples, seed)
    return _quantiles(_ratio(counts @ numerators, counts @ denominators), level)


def _resampled(images: int, samples: int, seed: int) -> NDArray[np.float64]:
    """(samples, N): how often each image is drawn, with replacement."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), samples).astype(np.float64)


def _quantiles(values: NDArray[Any], level: float) -> tuple[float, float]:
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def in_images(matrices: NDArray[Any], least: int) -> NDArray[np.bool_]:
    """The classes, (K,), that occur in the truth of at least so many images.

    Args:
        matrices: (N, K, K), a confusion matrix for each image, rows true.
        least: the number of images; 0 for all classes.

    >>> in_images(np.array([[[3, 0], [0, 0]], [[1, 0], [1, 2]]]), 2).tolist()
    [True, False]
    """
    return np.asarray((np.asarray(matrices).sum(2) > 0).sum(0) >= least)


def reliability(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = 15
) -> NDArray[np.float64]:
    """Sums over the pixels in bins of equal width of the confidence: a reliability diagram.

    Args:
        confidence: 0..1, of any shape.
        right: whether the label is the true one; of the same shape.
        bins: their number.

    Returns:
        (3, bins): the number of pixels, the sum of their confidence, and the number of right ones;
        those of images can be added.

    >>> reliability(np.array([0.25, 0.75, 0.5]), np.array([False, True, False]), 2).tolist()
    [[1.0, 2.0], [0.25, 1.25], [0.0, 1.0]]
    """
    if confidence.shape != right.shape:
        raise ShapeError(f"got confidence of {confidence.shape} for labels of {right.shape}")
    sure = confidence.ravel().astype(np.float64)
    place = np.clip((sure * bins).astype(np.int64), 0, bins - 1)
    weights = (np.ones_like(sure), sure, right.ravel().astype(np.float64))
    return np.stack([np.bincount(place, w, bins) for w in weights])


def calibration_error(diagram: NDArray[np.float64]) -> float:
    """The expected calibration error of a `reliability` diagram, (3, bins).

    The mean over the pixels of how far the accuracy of a bin is from its confidence; 0 is best.

    Guo, Pleiss, Sun, Weinberger 2017, section 2.

    >>> calibration_error(np.array([[1, 3], [0.25, 2.25], [0, 2]]))
    0.125
    """
    pixels, confidence, right = diagram
    return float(_ratio(np.abs(confidence - right).sum(), pixels.sum()))


def boundary_f1(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    classes: int,
    ignore: int = 255,
    tolerance: float = 0.0075,
) -> NDArray[np.float64]:
    """The boundary F1 score (BF) of each class in one image.

    The outline of a class is its pixels with a neighbor (of four) of another class; the image
    border and ignored pixels make no outline. Precision is the fraction of the predicted outline
    near the true one, recall the fraction of the true one near the predicted. The score of an image
    is the mean over its classes (`np.nanmean`), that of a data set the mean over its images.

    Args:
        prediction: (H, W), integers 0..K-1; on ignored pixels, too.
        truth: (H, W), integers 0..K-1, or `ignore` for pixels not to count.
        tolerance: the distance that counts as near, in image diagonals.

    Returns:
        (K,), 0..1; NaN for a class that is not in the truth, or has no outline in either map.

    Raises:
        ShapeError, DataError: shapes or types do not fit, or a value is out of range.

    Csurka, Larlus, Perronnin 2013; tolerance and means as in SegNet (Badrinarayanan, Kendall,
    Cipolla 2017, section 4).

    >>> truth = np.repeat([[0, 0, 1, 1, 1, 1]], 6, axis=0)
    >>> boundary_f1(truth, truth, classes=3).tolist()
    [1.0, 1.0, nan]
    """
    _check(prediction, truth, classes, ignore)
    if truth.ndim != 2:
        raise ShapeError(f"got label maps of {truth.shape}, wanted (H, W); pass image by image")
    prediction = np.where(truth == ignore, ignore, prediction.astype(np.int64))
    reach = tolerance * math.hypot(*truth.shape)
    f1 = np.full(classes, np.nan)
    for k in np.unique(truth[truth != ignore]):
        f1[k] = _outline_f1(_outline(prediction, k, ignore), _outline(truth, k, ignore), reach)
    return f1


def _outline(labels: NDArray[Any], k: int, ignore: int) -> NDArray[np.bool_]:
    """The pixels of class `k` with one of four neighbors in another class."""
    own: NDArray[np.bool_] = labels == k
    other = ~own & (labels != ignore)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return own & (cv2.dilate(other.astype(np.uint8), cross) > 0)


def _outline_f1(found: NDArray[np.bool_], wanted: NDArray[np.bool_], reach: float) -> float:
    if not (found.any() and wanted.any()):
        return 0.0 if found.any() or wanted.any() else math.nan
    near = []
    for own, other in ((found, wanted), (wanted, found)):
        outside = (~other).astype(np.uint8)
        distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        near.append(float(np.mean(distance[own] <= reach)))
    precision, recall = near
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _union(matrices: NDArray[Any]) -> NDArray[Any]:
    """For each class, the number of pixels with it in the truth, the prediction, or both."""
    right = matrices.diagonal(axis1=-2, axis2=-1)
    return np.asarray(matrices.sum(axis=-1) + matrices.sum(axis=-2) - right)


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    """Divide, with NaN where there is nothing to divide by."""
    ratio = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the last axis without NaN; NaN, without a warning, if nothing is left."""
    return _ratio(np.nansum(values, axis=-1), np.isfinite(values).sum(axis=-1))


def _check(prediction: NDArray[Any], truth: NDArray[Any], classes: int, ignore: int) -> None:
    for name, labels in (("prediction", prediction), ("truth", truth)):
        if not np.issubdtype(labels.dtype, np.integer):
            raise ShapeError(f"got a {name} of {labels.dtype}, wanted class ids as integers")
    if prediction.shape != truth.shape:
        got = f"got a prediction of {prediction.shape} for a truth of {truth.shape}"
        raise ShapeError(f"{got}; resize the prediction to the truth, not the truth")
    for name, labels, more in (
        ("prediction", prediction, "; predict such classes"),
        ("truth", truth, f", or {ignore} for ignored pixels; check classes and ignore"),
    ):
        wrong = (labels < 0) | (labels >= classes)
        if name == "truth":
            wrong &= labels != ignore
        if wrong.any():
            some = ", ".join(map(str, np.unique(labels[wrong])[:5]))
            raise DataError(f"got a {name} of {some}, wanted 0..{classes - 1}{more}")
