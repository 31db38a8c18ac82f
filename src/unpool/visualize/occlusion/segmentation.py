"""Occlusion of a segmentation: what must be hidden for an object to be found no more."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError
from unpool.segment.segmenter import Segmenter
from unpool.vision.drawing import overlay
from unpool.vision.figures import Tile, write_figure
from unpool.vision.images import voc_palette
from unpool.visualize.occlusion.heatmaps import heat_panel, outlined, sheet
from unpool.visualize.occlusion.naive import Baseline, baseline_image, occluded
from unpool.visualize.occlusion.occlude import Progress
from unpool.visualize.occlusion.window import Box, Sides, Windows, occluder_windows
from unpool.visualize.shadow import shadow_copy

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class RegionOcclusion:
    """What `occlude_region` gives: for every stop, how much of a region is still found."""

    windows: Windows  #: where the occluder stopped
    target: int  #: the class of the region
    labels: Labels  #: (H, W), the label map without an occluder
    iou: Tensor
    """(rows, columns) float64, 0 to 1, of the region with and without the occluder, outside of it;
    not a number where the occluder hides all of both."""

    @property
    def drop(self) -> Tensor:
        """How far each pixel, hidden, lowers the IoU: (H, W) float64, the mean over the stops."""
        return self.windows.spread(1 - self.iou)

    def to_dict(self) -> dict[str, Any]:
        """All that was found, as plain values; null where there is no IoU."""
        lowest = int(self.iou.nan_to_num(2).argmin())
        iou = [[v if math.isfinite(v) else None for v in row] for row in self.iou.tolist()]
        return {
            "size": list(self.windows.size),
            "occluder": list(self.windows.window),
            "stride": list(self.windows.stride),
            "class": self.target,
            "share": float((self.labels == self.target).mean()),
            "lowest": iou[lowest // len(iou[0])][lowest % len(iou[0])],
            "lowest_box": list(self.windows.boxes()[lowest]),
            "iou": iou,
        }

    def panels(self, image: NDArray[np.uint8], names: Sequence[str] = ()) -> list[Tile]:
        """The image with the outline of an occluder, its labels, and the IoU of every stop.

        Args:
            image: that was looked at, (H, W, 3) uint8, RGB.
            names: of the classes, by their numbers.
        """
        if image.shape != (*self.windows.size, 3):
            raise ShapeError(
                f"got an image of {image.shape} for maps of {self.windows.size}; pass the "
                "image that was segmented"
            )
        name = names[self.target] if self.target < len(names) else f"class {self.target}"
        classes = np.union1d([0], self.labels)  # an overlay has numbers below 256
        shown = [names[k] if k < len(names) else str(k) for k in classes.tolist()]
        ranks = np.minimum(np.searchsorted(classes, self.labels), 255)
        found = overlay(image, ranks, voc_palette()[classes[:256] % 256], shown)
        return [
            (outlined(image, self.windows), "image, and an occluder"),
            (found, "what is found"),
            heat_panel(self.iou, self.windows, f"IoU of {name}"),
        ]

    def save(
        self, stem: str | Path, image: NDArray[np.uint8], names: Sequence[str] = ()
    ) -> list[Path]:
        """Write STEM.png, the figure, and STEM.json, all that was found; give both paths."""
        return write_figure(stem, sheet(self.panels(image, names)), self.to_dict())


def occlude_region(
    model: nn.Module | Segmenter,
    image: Tensor | NDArray[np.uint8],
    *,
    target: int | None = None,
    window: Sides | None = None,
    stride: Sides | None = None,
    baseline: Baseline = 0.0,
    batch: int = 4,
    progress: Progress | None = None,
) -> RegionOcclusion:
    """Slide an occluder over an image, and see how much of an object's region is still found.

    At every stop the IoU of the region with and without the occluder is taken, over the pixels
    outside of it: what counts is what it does to the rest of the object, not that it hides some.

    Args:
        model: gives scores (N, K, H, W) for images (N, C, H, W); or a `Segmenter`, which
            segments each occluded image as a whole.
        image: (1, C, H, W), as the model takes it; for a `Segmenter` (H, W, 3) uint8, RGB.
        target: the class; the one with the most pixels, other than 0, the background, when not
            given.
        window: height and width of the occluder, see `slide`.
        stride: from one stop to the next, likewise.
        baseline: what the occluder shows, see `occlude`; for a `Segmenter` it is the mean that
            the network subtracts.
        batch: stops at a time.
        progress: called with the number of stops done and their total.

    Raises:
        OptionError: no such class, one that is not found, or an occluder that does not fit.
        ShapeError: a model that gives no scores for every pixel, or an image it cannot take.

    The occlusion of Zeiler, Fergus 2014, section 4.2, for a network that segments.

    >>> model = nn.Conv2d(3, 4, 3, padding=1)
    >>> found = occlude_region(model, torch.rand(1, 3, 12, 12), window=4, stride=2)
    >>> found.iou.shape, found.labels.shape
    (torch.Size([5, 5]), (12, 12))
    """
    if batch < 1:
        raise OptionError(f"got batch={batch}; wanted 1 or more")
    if isinstance(model, Segmenter):
        if not isinstance(image, np.ndarray):
            raise ShapeError("got a tensor for a Segmenter; wanted an image (H, W, 3) uint8, RGB")
        label, size = _of_segmenter(model, image), (image.shape[0], image.shape[1])
    else:
        if not isinstance(image, Tensor):
            raise ShapeError("got an array for a model; wanted a tensor (1, C, H, W)")
        label = _of_model(model, image, baseline_image(baseline, image))
        size = (image.shape[2], image.shape[3])
    windows = occluder_windows(size, window, stride)
    (before,) = label([(0, 0, 0, 0)])
    target = _target(before, target)
    boxes, ious = windows.boxes(), list[float]()
    for start in range(0, len(boxes), batch):
        part = boxes[start : start + batch]
        for found, box in zip(label(part), part, strict=True):
            ious.append(_iou(before == target, found == target, box))
        if progress is not None:
            progress(len(ious), len(boxes))
    iou = torch.tensor(ious, dtype=torch.float64).view(windows.shape)
    return RegionOcclusion(windows, target, before, iou)


Label = Callable[[Sequence[Box]], list[Labels]]
"""The label maps with an occluder in each of some boxes."""


def _of_model(model: nn.Module, image: Tensor, baseline: Tensor) -> Label:
    shadow = shadow_copy(model)

    @torch.inference_mode()
    def label(boxes: Sequence[Box]) -> list[Labels]:
        scores = shadow(occluded(image, baseline, boxes))
        if not isinstance(scores, Tensor) or scores.shape[2:] != image.shape[2:]:
            came = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ShapeError(
                f"got a model that gives {came} for {tuple(image.shape)}; wanted scores of every "
                "pixel, (N, K, H, W): use occlude for a classifier, or wrap the model"
            )
        return list(scores.argmax(1).cpu().numpy())

    return label


def _of_segmenter(segmenter: Segmenter, image: NDArray[np.uint8]) -> Label:
    mean = np.rint(segmenter.mean[::-1]).astype(np.uint8)

    def label(boxes: Sequence[Box]) -> list[Labels]:
        found: list[Labels] = []
        for x0, y0, x1, y1 in boxes:
            hidden = image.copy()
            hidden[y0:y1, x0:x1] = mean
            found.append(segmenter(hidden, mode="whole", presence_threshold=0).labels)
        return found

    return label


def _target(labels: Labels, target: int | None) -> int:
    counts = np.bincount(labels.ravel())
    objects = [k for k in np.argsort(-counts, kind="stable").tolist() if k and counts[k]]
    if target is None and objects:
        return int(objects[0])
    if target is None or not (0 <= target < len(counts) and counts[target]):
        there = ", ".join(map(str, objects[:5])) or "nothing but the background, 0"
        wanted = "an object" if target is None else f"class {target}"
        raise OptionError(f"got an image in which {wanted} is not found; it has {there}")
    return target


def _iou(before: NDArray[np.bool_], after: NDArray[np.bool_], box: Box) -> float:
    x0, y0, x1, y1 = box
    seen = np.ones_like(before)
    seen[y0:y1, x0:x1] = False
    union = int(((before | after) & seen).sum())
    return float((before & after & seen).sum() / union) if union else float("nan")
