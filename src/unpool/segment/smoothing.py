"""Smooth the scores of a network by a Gaussian.

Unpooling puts each value back where its maximum was and leaves zeros around it, so that the scores
of a DeconvNet vary from pixel to pixel more than objects do: masks have ragged edges and specks.
A Gaussian of one to three pixels evens that out before labels are chosen.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from unpool.errors import OptionError
from unpool.limits import MAX_SMOOTHING
from unpool.segment import timings


def smooth(logits: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Smooth each score map by a Gaussian; beyond the border, the outermost pixels are repeated.

    Args:
        logits: (N, K, h, w), as the network gives them, before they are resized to the image.
        sigma: standard deviation in pixels of these maps; 0 returns the logits themselves.

    >>> spot = np.zeros((1, 1, 5, 5), np.float32)
    >>> spot[..., 2, 2] = 1
    >>> (100 * smooth(spot, 1.0)[0, 0, 2]).round().tolist()
    [2.0, 10.0, 16.0, 10.0, 2.0]
    """
    require_smoothing(sigma)
    if not sigma or not logits.size:
        return logits
    with timings.stage("smoothing"):
        found = np.empty_like(logits)
        for maps, smoothed in zip(logits, found, strict=True):
            for i, one in enumerate(maps):  # OpenCV would take the maps for channels, at most 4
                cv2.GaussianBlur(one, (0, 0), sigma, smoothed[i], borderType=cv2.BORDER_REPLICATE)
    return found


def require_smoothing(sigma: float) -> None:
    """Refuse a standard deviation that is none."""
    number = isinstance(sigma, int | float) and sigma is not True
    if not number or not 0 <= sigma <= MAX_SMOOTHING:
        raise OptionError(
            f"got smoothing={sigma}; wanted a standard deviation in pixels of the network's "
            f"output, 0 to {MAX_SMOOTHING}; 0 leaves the scores as they are"
        )
