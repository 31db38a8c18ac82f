"""Occlusion of a segmentation: which pixels must be hidden for an object to be lost."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError
from unpool.vision.images import Labels, Pixels
from unpool.visualize.activations import SCORE, ActivationRecorder, score_layer
from unpool.visualize.occlusion import window as occluder
from unpool.visualize.occlusion.result import RegionOcclusion
from unpool.visualize.occlusion.window import Baseline, Box, Sides

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.segment.segmenter import Segmenter


def occlude_region(
    model: "nn.Module | Segmenter",
    image: Tensor | Pixels,
    *,
    target: int | None = None,
    window: Sides | None = None,
    stride: Sides | None = None,
    baseline: Baseline = 0.0,
    batch: int = 4,
    progress: "Progress | None" = None,
) -> RegionOcclusion:
    """Slide an occluder over an image, and measure how much of an object's region is still found.

    At every position the IoU of the region with and without the occluder is computed over the
    pixels outside of it: the effect on the rest of the object counts, not the part that is hidden.

    Args:
        model: gives scores (N, K, H, W) for images (N, C, H, W); or a `Segmenter`, which
            segments each occluded image as a whole.
        image: (1, C, H, W), as the model takes it; for a `Segmenter` (H, W, 3) uint8, RGB.
        target: the class; the largest other than 0, the background, when not given.
        window: height and width of the occluder, see `occluder_windows`.
        stride: rows and columns from one position to the next, likewise.
        baseline: as for `occlude`; a `Segmenter` takes the mean that its network subtracts.
        batch: positions at a time.

    Raises:
        OptionError: no such class, one that is not found, or an occluder that does not fit.
        ShapeError: a model that gives no scores for every pixel, or an image it cannot take.

    The occlusion of Zeiler, Fergus 2014, section 4.2, for a segmentation network.

    >>> model = nn.Conv2d(3, 4, 3, padding=1)
    >>> found = occlude_region(model, torch.rand(1, 3, 12, 12), window=4, stride=2)
    >>> found.iou.shape, found.labels.shape
    (torch.Size([5, 5]), (12, 12))
    """
    if batch < 1:
        raise OptionError(f"got batch={batch}; wanted 1 or more")
    if isinstance(model, nn.Module):
        if not isinstance(image, Tensor):
            raise ShapeError("got an array for a model; wanted a tensor (1, C, H, W)")
        label = _with_model(model, image, occluder.baseline_image(baseline, image))
        size = (image.shape[2], image.shape[3])
    else:
        if not isinstance(image, np.ndarray):
            raise ShapeError("got a tensor for a Segmenter; wanted an image (H, W, 3) uint8, RGB")
        label, size = _with_segmenter(model, image), (image.shape[0], image.shape[1])
    windows = occluder.occluder_windows(size, window, stride)
    (before,) = label([(0, 0, 0, 0)])
    target = _target(before, target)
    boxes, ious = windows.boxes(), list[float]()
    for start in range(0, len(boxes), batch):
        part = boxes[start : start + batch]
        for found, box in zip(label(part), part, strict=True):
            ious.append(_iou(before == target, found == target, box))
        if progress is not None:
            progress(len(ious), len(boxes), "occluding")
    iou = torch.tensor(ious, dtype=torch.float64).view(windows.shape)
    return RegionOcclusion(windows, target, before, iou)


Label = Callable[[Sequence[Box]], list[Labels]]
"""Gives the label maps with an occluder at each of some boxes."""


def _with_model(model: nn.Module, image: Tensor, baseline: Tensor) -> Label:
    recorder = ActivationRecorder(score_layer(model), [SCORE])

    @torch.inference_mode()
    def label(boxes: Sequence[Box]) -> list[Labels]:
        scores = recorder(occluder.occluded(image, baseline, boxes))[SCORE]
        if scores.shape[2:] != image.shape[2:]:
            raise ShapeError(
                f"got a model that gives {tuple(scores.shape)} for {tuple(image.shape)}; wanted "
                "scores of every pixel, (N, K, H, W): use occlude for a classifier, or wrap the "
                "model"
            )
        return list(scores.argmax(1).cpu().numpy())

    return label


def _with_segmenter(segmenter: "Segmenter", image: Pixels) -> Label:
    mean = np.rint(segmenter.mean[::-1]).astype(np.uint8)  # BGR to RGB

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
