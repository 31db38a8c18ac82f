"""Instance-wise segmentation around the network: squares of proposals, and one map of all crops."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unpool.cards import AGGREGATIONS
from unpool.errors import OptionError, require_choice, require_int
from unpool.recipes.presets import EDECONVNET, PRESETS, Preset
from unpool.segment import timings
from unpool.vision.boxes import Crop, clip, square
from unpool.vision.proposals import propose

if TYPE_CHECKING:
    from unpool.vision.images import Pixels


def find_preset(preset: str | Preset) -> Preset:
    """A preset by its name.

    >>> find_preset("reference").least_side
    112
    """
    if isinstance(preset, Preset):
        return preset
    if preset == EDECONVNET:
        raise OptionError(
            f"got preset={preset!r} for one network; load both: unpool.load(preset={preset!r})"
        )
    require_choice("preset", preset, PRESETS)
    return PRESETS[preset]


def squares(
    image: "Pixels", preset: str | Preset = "paper", method: str = "edgeboxes", count: int = 50
) -> NDArray[np.int64]:
    """The squares that instance-wise segmentation looks at, the most promising first.

    Args:
        image: (H, W, 3) uint8, RGB.
        preset: how proposals become squares.
        method: of the proposals, "edgeboxes" or "grid".
        count: how many are kept, counted after small ones have been skipped.

    Returns:
        (P, 4) x0, y0, x1, y1 in pixels, P at most `count`; may reach beyond the image.
    """
    preset = find_preset(preset)
    found = propose(image, method, max(preset.candidates, count))
    # more candidates than squares, since the small ones are left out afterwards
    boxes = square(found.boxes, preset.enlarge)
    return boxes[boxes[:, 2] - boxes[:, 0] >= preset.least_side][:count]


def crop_squares(
    image: "Pixels", boxes: NDArray[np.int64], side: int, batch: int
) -> Iterator[tuple[list[Crop], "Pixels"]]:
    """Cut squares out of an image, in batches for a network.

    Args:
        image: (H, W, 3) uint8, RGB.
        boxes: the squares, (P, 4).
        side: to which squares are resized.
        batch: the largest number of crops in a batch.

    Yields:
        Crops, and their images (N, side, side, 3) uint8.
    """
    require_int("batch", batch)
    crops = [Crop((b[0], b[1], b[2], b[3]), side) for b in boxes.tolist()]
    for start in range(0, len(crops), batch):
        part = crops[start : start + batch]
        with timings.stage("crops"):
            images = np.stack([crop.take(image) for crop in part])
        yield part, images


class Aggregate:
    """Logits of crops, merged where they overlap.

    "max": the pixelwise maximum over the crops and zero, eq. (1) of the paper and the released
    code. "mean": the mean over the crops that cover a pixel; the paper's eq. (2) is their sum. A
    pixel that no crop covers has zero for every class in both.

    Args:
        classes: K, number of score maps.
        size: (H, W) of the image.
        how: "max" or "mean".

    Noh, Hong, Han 2015, section 4.3.

    >>> both = Aggregate(1, (2, 2), "mean")
    >>> both.add(Crop((0, 0, 2, 2), 2), np.full((1, 2, 2), 3, np.float32))
    >>> both.add(Crop((0, 0, 1, 1), 1), np.full((1, 1, 1), -1, np.float32))
    >>> both.logits[0].tolist()
    [[1.0, 3.0], [3.0, 3.0]]
    """

    def __init__(self, classes: int, size: tuple[int, int], how: str = "max") -> None:
        require_choice("aggregation", how, AGGREGATIONS)
        self.how = how
        # as in the released script, whose scores below 0 do not count
        self._merged = np.zeros((classes, *size), np.float32)
        self._covered = np.zeros((1, *size), np.float32)

    def add(self, crop: Crop, logits: NDArray[np.float32]) -> None:
        """Merge the logits (K, S, S) of a crop."""
        with timings.stage("pasting"):
            if self.how == "max":
                crop.paste(logits, self._merged)
            else:
                crop.paste(logits, self._merged, np.add)
                _, height, width = self._covered.shape
                ((x0, y0, x1, y1),) = clip(np.array([crop.box]), (height, width)).tolist()
                self._covered[:, y0:y1, x0:x1] += 1

    @property
    def logits(self) -> NDArray[np.float32]:
        """The merged logits so far, (K, H, W)."""
        if self.how == "max":
            return self._merged.copy()
        return np.asarray(self._merged / np.maximum(self._covered, 1))
