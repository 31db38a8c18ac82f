"""Objects of other images, pasted into views, so that rare ones are seen in more places."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from unpool.data.datasets import DataSet, Sample, read_sample
from unpool.data.instances import Object, objects, read_instances
from unpool.vision.images import Pixels

_SMALL = 400  # pixels; what is smaller is blurred when it is enlarged


class Paster(NamedTuple):
    """Pastes objects into views, rare classes more often than they come.

    Ghiasi et al. 2021 ("Simple copy-paste").
    """

    pool: list[tuple[Sample, Object]]
    chances: NDArray[np.float64]  #: of each object, of sum 1
    classes: int
    most: int  #: objects that a view gets at most
    sides: tuple[float, float] = (0.15, 0.7)  #: range of an object's longer side, of the view's

    def paste(
        self, image: Pixels, labels: Pixels, rng: np.random.Generator
    ) -> tuple[Pixels, Pixels]:
        """A view (S, S, 3) and its labels (S, S) with up to `most` more objects on them."""
        image, labels = image.copy(), labels.copy()
        for _ in range(rng.integers(self.most + 1)):
            sample, found = self.pool[rng.choice(len(self.pool), p=self.chances)]
            cut, mask = self._cut(sample, found, len(labels), rng)
            height, width = mask.shape
            y = int(rng.integers(-height // 3, len(labels) - 2 * height // 3))
            x = int(rng.integers(-width // 3, len(labels) - 2 * width // 3))
            rows, columns = slice(max(y, 0), y + height), slice(max(x, 0), x + width)
            seen = labels[rows, columns]
            part = slice(max(-y, 0), max(-y, 0) + seen.shape[0])
            across = slice(max(-x, 0), max(-x, 0) + seen.shape[1])
            inside = mask[part, across]
            image[rows, columns][inside] = cut[part, across][inside]
            seen[inside] = found.label
        return image, labels

    def _cut(
        self, sample: Sample, found: Object, side: int, rng: np.random.Generator
    ) -> tuple[Pixels, NDArray[np.bool_]]:
        """An object and its mask, resized, and flipped every other time."""
        x0, y0, x1, y1 = found.box
        image = read_sample(sample, self.classes)[0][y0:y1, x0:x1]
        mask = read_instances(sample, self.classes)[y0:y1, x0:x1] == found.instance
        longer = side * np.exp(rng.uniform(*np.log(self.sides)))
        scale = longer / max(mask.shape)
        size = max(round(mask.shape[1] * scale), 1), max(round(mask.shape[0] * scale), 1)
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, size, interpolation=way), np.uint8)
        soft = cv2.resize(mask.astype(np.float32), size, interpolation=way)
        mask = soft > 0.5
        return (image[:, ::-1], mask[:, ::-1]) if rng.random() < 0.5 else (image, mask)


def find_paster(data: DataSet, most: int, power: float = 0.75) -> Paster | None:
    """What can be pasted of a data set; None if it has no object large enough.

    Args:
        data: its instance maps are read.
        most: objects that a view gets at most.
        power: 1 makes the classes equally frequent, 0 leaves them as they are.
    """
    pool = [
        (sample, found)
        for sample in data.samples
        for found in objects(sample, len(data.classes))
        if found.area >= _SMALL
    ]
    if not pool:
        return None
    count = np.bincount([found.label for _, found in pool])
    chances = np.array([float(count[found.label]) for _, found in pool]) ** -power
    return Paster(pool, chances / chances.sum(), len(data.classes), most)
