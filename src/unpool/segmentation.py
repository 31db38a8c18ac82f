"""What was found in a picture: the best class of every pixel, by the scores of a network."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unpool import timings
from unpool.errors import OptionError, ShapeError
from unpool.ops.crf import DenseCRF
from unpool.ops.meanfield import mean_field, unary_from_probabilities
from unpool.scores import Scores, write_scores
from unpool.vision.drawing import overlay
from unpool.vision.images import voc_palette, write_image, write_mask
from unpool.vision.sizes import labels_at, reduced

__all__ = ["Segmentation", "conclude"]


@dataclass(frozen=True)
class Segmentation:
    """What was found in one picture."""

    image: NDArray[np.uint8]  #: the picture, (H, W, 3) RGB
    labels: NDArray[np.uint8]  #: (H, W) class ids
    scores: NDArray[np.float32]
    """(K, H, W) class probabilities; of the `reduced` picture where it has many pixels."""
    classes: list[str]  #: names by class id
    palette: NDArray[np.uint8]  #: (256, 3) RGB by class id
    boxes: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    """The squares that were segmented, (P, 4) x0, y0, x1, y1; none for a whole picture."""
    raw: NDArray[np.float32] | None = None  #: scores before softmax and CRF, as large as `scores`

    def __repr__(self) -> str:
        height, width = self.labels.shape
        return f"Segmentation({width} x {height}, {', '.join(self.shares())})"

    def shares(self) -> dict[str, float]:
        """The share of the pixels of each class that is there, the largest first."""
        count = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        order = np.argsort(-count, kind="stable")
        return {self.classes[k]: float(count[k] / self.labels.size) for k in order if count[k]}

    def overlay(self) -> NDArray[np.uint8]:
        """The picture with its classes painted over it and a legend, (H, W, 3) RGB."""
        return overlay(self.image, self.labels, self.palette, self.classes)

    def save(self, path: str | Path, *, overlay: bool = True, scores: bool = False) -> Path:
        """Write the labels as an index PNG with palette, and other files beside it.

        Args:
            path: of the mask, ending in .png; the others get .overlay.jpg and .scores.npz for it.
            overlay: whether to write the picture with its classes painted on.
            scores: whether to write the raw scores, for `unpool.scores.read_scores`.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise OptionError(f"got the path {path}; masks are written as .png: end it so")
        if overlay:
            write_image(path.with_suffix(".overlay.jpg"), self.overlay())
        if scores and self.raw is not None:
            known = Scores(self.raw, self.classes, self.palette)
            write_scores(path.with_suffix(".scores.npz"), known)
        write_mask(path, self.labels, self.palette)  # last: a mask tells that all is there
        return path


def conclude(
    image: NDArray[np.uint8],
    scores: NDArray[np.float32],
    classes: list[str],
    palette: NDArray[np.uint8] | None = None,
    boxes: NDArray[np.int64] | None = None,
    crf: str | DenseCRF | None = None,
) -> Segmentation:
    """The best class of every pixel by its scores, refined by a dense CRF if wanted.

    Args:
        image: (H, W, 3) uint8, RGB.
        scores: raw scores (K, H, W), whose softmax is the probability of each class; for a
            picture of more than `LARGEST` pixels also of its `reduced_size`, at which they stay.
        classes: names by class id.
        palette: (256, 3) RGB by class id; the VOC palette when not given.
        boxes: the squares that were segmented, (P, 4).
        crf: a dense CRF, or the name of one of `CRF_PRESETS`.

    Raises:
        ShapeError: scores of another size than the picture's.
    """
    own_size = scores.shape[1:] == image.shape[:2]
    small = image if own_size else reduced(image)
    if scores.ndim != 3 or scores.shape[1:] != small.shape[:2]:
        raise ShapeError(
            f"got scores of {scores.shape} for a picture of {image.shape[:2]} (H, W); wanted "
            "(K, H, W): take the picture that they were made of, upright and in its full size"
        )
    with timings.stage("labels"):
        probabilities = torch.from_numpy(scores).softmax(0)
    decisive = scores  # of which softmax could make ties
    if crf is not None:
        with timings.stage("CRF"):
            unary = unary_from_probabilities(probabilities)
            probabilities = mean_field(unary, torch.from_numpy(small.copy()), crf)
        decisive = probabilities.numpy()
    size = (image.shape[0], image.shape[1])
    with timings.stage("labels"):
        labels = decisive.argmax(0).astype(np.uint8) if own_size else labels_at(decisive, size)
    boxes = np.zeros((0, 4), np.int64) if boxes is None else boxes
    palette = voc_palette() if palette is None else palette
    return Segmentation(image, labels, probabilities.numpy(), classes, palette, boxes, scores)
