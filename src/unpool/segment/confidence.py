"""How probable the labels of an image are, from the logits of a network."""

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from unpool.vision.images import VOID

EXCLUDED = 0.25
"""What the probability of a class counts in the confidence when it was excluded as absent.

1 and 0 are too little and too much: chosen by likelihood on images that were not learned from, see
docs/log.md."""

_BAND = 128  #: rows of scores at a time


def label_confidence(
    logits: NDArray[np.float32],
    kept: NDArray[np.int64],
    labels: NDArray[np.uint8],
    temperature: float = 1.0,
) -> NDArray[np.float32]:
    """The probability (H, W) of each label; for 255 that of the best class that is kept.

    Args:
        logits: of all classes, (K, h, w), of the size of the labels or smaller.
        kept: ids of the classes that were not excluded as absent, in order.
        labels: (H, W), each one of `kept`, or 255.
        temperature: by which logits are divided.

    >>> found = label_confidence(np.float32([[[2, 0]], [[0, 0]]]), np.arange(2), np.uint8([[0, 1]]))
    >>> [round(float(p), 2) for p in found[0]]
    [0.88, 0.5]
    """
    size, (height, width) = labels.shape, logits.shape[1:]
    if (height, width) != size:  # of a large image: labels at the size of its scores
        exact = cv2.INTER_NEAREST_EXACT
        labels = np.asarray(cv2.resize(labels, (width, height), interpolation=exact))
    k = len(logits)
    place = np.where(labels < k, labels, 0)  # where the label is void, the best class counts
    absent = np.setdiff1d(np.arange(k), kept)
    found = np.zeros((height, width), np.float32)
    for top in range(0, height, _BAND):  # so that scores are not copied as a whole
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
