"""From the logits of a network to labels: absent classes, the dense CRF, void."""

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from unpool.errors import OptionError
from unpool.ops.crf import find_crf
from unpool.ops.meanfield import mean_field, unary_from_probabilities
from unpool.segment import timings
from unpool.segment.result import Segmentation
from unpool.segment.scores import require_size
from unpool.vision.boxes import labels_at, reduced
from unpool.vision.images import VOID, voc_palette

if TYPE_CHECKING:
    from unpool.recipes.presets import DenseCRF

PRESENT_ON = 0.01
"""The fraction of an image on which a class must be certain, to count as present."""


def postprocess(
    image: NDArray[np.uint8],
    scores: NDArray[np.float32],
    classes: list[str],
    palette: NDArray[np.uint8] | None = None,
    boxes: NDArray[np.int64] | None = None,
    crf: "str | DenseCRF | None" = None,
    presence_threshold: float = 0.0,
    temperature: float = 1.0,
    void_below: float = 0.0,
    uncertainty: NDArray[np.float32] | None = None,
) -> Segmentation:
    """The most probable class of every pixel, optionally refined by a dense CRF.

    Where a class wins only a few pixels of an image, the network is often wrong about all of them.
    `presence_threshold` excludes classes that hardly reach it; their pixels go to the others.

    Args:
        image: (H, W, 3) uint8, RGB.
        scores: logits (K, H, W), whose softmax is the probability of each class; for an image of
            more than `LARGEST` pixels also of its `reduced_size`, at which probabilities stay.
        classes: names by class id.
        palette: (256, 3) RGB by class id; the VOC palette when not given.
        boxes: the squares that were segmented, (P, 4).
        crf: a dense CRF, or the name of one of `CRF_PRESETS`.
        presence_threshold: see `present`.
        temperature: by which scores are divided for `Segmentation.confidence`.
        void_below: pixels of a lower confidence get the label 255, which stands for void.
        uncertainty: as large as the scores, see `Segmentation.uncertainty`.

    Raises:
        OptionError: a threshold that is no probability, a temperature that is not above 0, or an
            unknown CRF.
        ShapeError: scores of another size than the image's.
    """
    require_size(scores.shape, (image.shape[0], image.shape[1]))
    own_size = scores.shape[1:] == image.shape[:2]
    small = image if own_size else reduced(image)
    with timings.stage("labels"):
        probabilities = torch.from_numpy(scores).softmax(0)
        kept = present(probabilities.numpy(), presence_threshold)
        decisive = scores  # softmax could round different logits to equal probabilities
        if len(kept) < len(scores):
            decisive = scores[kept]
            probabilities = torch.from_numpy(decisive).softmax(0)
    if crf is not None:
        with timings.stage("CRF"):
            crf = find_crf(crf)
            if crf.clip is None:
                # logits differ from log-probabilities by a constant at each pixel, which cancels
                unary = -torch.from_numpy(decisive)
            else:
                unary = unary_from_probabilities(probabilities, crf.clip)
            probabilities = mean_field(unary, torch.from_numpy(small.copy()), crf)
        decisive = probabilities.numpy()
    size = (image.shape[0], image.shape[1])
    with timings.stage("labels"):
        best = decisive.argmax(0) if own_size else labels_at(decisive, size)
        labels = kept.astype(np.uint8)[best]
        found = probabilities.numpy()
        if len(kept) < len(scores):
            found = np.zeros(scores.shape, np.float32)
            found[kept] = probabilities.numpy()
    boxes = np.zeros((0, 4), np.int64) if boxes is None else boxes
    palette = voc_palette() if palette is None else palette
    if uncertainty is not None and not own_size:
        uncertainty = np.asarray(cv2.resize(uncertainty, size[::-1]), np.float32)
    settings = scores, presence_threshold, temperature, uncertainty
    result = Segmentation(image, labels, found, classes, palette, boxes, *settings)
    if void_below:
        with timings.stage("labels"):
            labels[result.confidence < void_below] = VOID
    return result


def present(probabilities: NDArray[np.float32], presence_threshold: float) -> NDArray[np.int64]:
    """The classes present in an image: class 0, the background, and those certain somewhere.

    Args:
        probabilities: (K, H, W), the background first.
        presence_threshold: the probability that a class must reach on `PRESENT_ON` of the pixels,
            0..1; 0 keeps every class.

    Returns:
        Class ids in order.

    >>> found = np.float32([[[0.1, 0.3]], [[0.1, 0.6]], [[0.8, 0.1]]])  # three classes
    >>> present(found, 0.75).tolist()
    [0, 2]
    """
    require_presence_threshold(presence_threshold)
    certain = [float((p >= presence_threshold).mean()) >= PRESENT_ON for p in probabilities[1:]]
    return np.flatnonzero([True, *certain])


def describe_postprocessing(
    presence_threshold: float, crf: "str | DenseCRF | None", void_below: float = 0.0
) -> list[str]:
    """The steps after the network, for the protocol of figures; refuses what cannot be done.

    >>> describe_postprocessing(0.75, "deeplab")
    ['only classes with a probability of 0.75 on 1 % of the image', 'dense CRF deeplab']
    """
    require_presence_threshold(presence_threshold)
    _require_probability("void_below", void_below, "0 leaves no pixel void")
    if crf is not None:
        find_crf(crf)
    certain = f"a probability of {presence_threshold:g} on {100 * PRESENT_ON:g} % of the image"
    steps = [f"only classes with {certain}"] if presence_threshold else []
    steps += [f"dense CRF {crf}"] * (crf is not None)
    return [*steps, f"void where less sure than {void_below:g}"] if void_below else steps


def require_presence_threshold(presence_threshold: float) -> None:
    """Refuse a class presence threshold that is no probability."""
    _require_probability("presence_threshold", presence_threshold, "0 keeps all")


def _require_probability(name: str, value: float, zero: str) -> None:
    number = isinstance(value, int | float) and value is not True
    if not number or not 0 <= value <= 1:
        raise OptionError(f"got {name}={value}; wanted a probability, 0 to 1; {zero}")
