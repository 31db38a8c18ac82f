"""Aggregation: the scores of overlapping crops become one map for the image."""

import numpy as np
from numpy.typing import NDArray

from unpool.cards import AGGREGATIONS
from unpool.errors import OptionError
from unpool.vision.boxes import Crop, clip


class Aggregate:
    """Scores of crops, put together where they overlap.

    "max": the pixelwise maximum over the crops and zero, eq. (1) of the paper and the released
    code. "mean": the mean over the crops that cover a pixel; the paper's eq. (2) is their sum. A
    pixel that no crop covers has zero for every class in both.

    Args:
        classes: K, number of score maps.
        size: (H, W) of the image.
        how: "max" or "mean".

    Raises:
        OptionError: another aggregation.

    Noh, Hong, Han 2015, section 4.3.

    >>> both = Aggregate(1, (2, 2), "mean")
    >>> both.add(Crop((0, 0, 2, 2), 2), np.full((1, 2, 2), 3, np.float32))
    >>> both.add(Crop((0, 0, 1, 1), 1), np.full((1, 1, 1), -1, np.float32))
    >>> both.scores[0].tolist()
    [[1.0, 3.0], [3.0, 3.0]]
    """

    def __init__(self, classes: int, size: tuple[int, int], how: str = "max") -> None:
        if how not in AGGREGATIONS:
            raise OptionError(f"got aggregation {how!r}; it is one of {', '.join(AGGREGATIONS)}")
        self.how = how
        self._merged = np.zeros((classes, *size), np.float32)
        self._covered = np.zeros((1, *size), np.float32)

    def add(self, crop: Crop, scores: NDArray[np.float32]) -> None:
        """Put in the scores (K, S, S) of a crop."""
        if self.how == "max":
            crop.paste(scores, self._merged)
        else:
            crop.paste(scores, self._merged, np.add)
            height, width = self._covered.shape[1:]
            ((x0, y0, x1, y1),) = clip(np.array([crop.box]), (height, width)).tolist()
            self._covered[:, y0:y1, x0:x1] += 1

    @property
    def scores(self) -> NDArray[np.float32]:
        """The scores so far, (K, H, W)."""
        if self.how == "max":
            return self._merged.copy()
        return np.asarray(self._merged / np.maximum(self._covered, 1))
