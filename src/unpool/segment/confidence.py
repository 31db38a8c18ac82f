"""The confidence of labels: their probability, computed from the logits."""

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from unpool.vision.images import VOID

EXCLUDED = 0.25
"""Factor of the probability of a class that was excluded as absent, in the confidence.

Chosen by likelihood on images that were not trained on, where it is better than 0 and 1; see
docs/log.md."""

_BAND = 128  #: rows of scores that are processed at a time


def label_confidence(
    logits: NDArray[np.float32],
    kept: NDArray[np.int64],
    labels: NDArray[np.uint8],
    temperature: float = 1.0,
) -> NDArray[np.float32]:
    """The probability (H, W) of each label; for void, that of the best class that is kept.

    Args:
        logits: of all classes, (K, h, w), of the size of the labels or smaller.
        kept: ids of the classes that were not excluded as absent, in order.
        labels: (H, W), each one of `kept`, or 255.
        temperature: divisor of the logits.

    >>> found = label_confidence(np.float32([[[2, 0]], [[0, 0]]]), np.arange(2), np.uint8([[0, 1]]))
    >>> [round(float(p), 2) for p in found[0]]
    [0.88, 0.5]
    """
    size, (height, width) = labels.shape, logits.shape[1:]
    if (height, width) != size:  # a large image: reduce labels to the size of its scores
        exact = cv2.INTER_NEAREST_EXACT
        labels = np.asarray(cv2.resize(labels, (width, height), interpolation=exact))
    k = len(logits)
    place = np.where(labels < k, labels, 0)  # void is replaced by the best class below
    absent = np.setdiff1d(np.arange(k), kept)
    found = np.zeros((height, width), np.float32)
    for top in range(0, height, _BAND):  # in bands, to avoid copying all scores at once
        rows = slice(top, top + _BAND)
        scores = torch.from_numpy(logits[:, rows] / np.float32(temperature))
        own = scores.gather(0, torch.from_numpy(place[rows].astype(np.int64))[None])[0]
        own = torch.where(torch.from_numpy(labels[rows] == VOID), scores[kept].amax(0), own)
        scores[absent] += math.log(EXCLUDED)
        found[rows] = (own - scores.logsumexp(0)).exp().numpy()
    if found.shape == size:
        return found
    large = cv2.resize(found, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, np.float32)
