"""Measure a segmenter on labeled images, by one confusion matrix over the data set.

The processes of `torchrun` divide the images among them; each gets the figures of all.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool import Progress, distributed
from unpool.data.datasets import DataSet, read_sample, require_objects
from unpool.errors import DataError, OptionError, UnpoolError, few
from unpool.vision.figures import contact_sheet
from unpool.vision.images import VOID
from unpool.vision.metrics import (
    bootstrap_interval,
    bootstrap_ratio,
    boundary_f1,
    calibration_error,
    confusion_matrix,
    in_images,
    reliability,
    scores,
)

if TYPE_CHECKING:
    from unpool.segment.pipeline import BaseSegmenter


class Measured(NamedTuple):
    """The counts of one image."""

    name: str
    matrix: NDArray[np.int64]  #: (K, K) pixels, rows true, columns predicted
    boundary_f1: float  #: mean over the image's classes; NaN where there is no boundary
    error: str = ""  #: why the image was dropped, or empty
    reliability: NDArray[np.float64] | None = None
    """(3, bins), see `unpool.vision.metrics.reliability`; None if the confidence is not known."""


def evaluate(
    segmenter: "BaseSegmenter",
    data: DataSet,
    *,
    missing: Mapping[str, str] | None = None,
    min_images: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Segment every image at its own size and compare with its mask.

    Args:
        segmenter: its classes must be those of the data.
        data: labeled images. One that cannot be read is dropped, and the summary says so.
        missing: images of the data set that are not in `data`, and why; they count as dropped.
        min_images: leave classes that fewer images show out of the means, see `summarize`.
        progress: called with the number of images done and their total.
        **options: of the segmenter's call: `mode`, `preset`, `proposals`, `crf` ...

    Returns:
        The summary; see `summarize`. It is the same for any number of processes.

    Raises:
        DataError: other classes than the segmenter's, masks with background only, or not a single
            usable image.
        OptionError: options that do not fit the segmenter.

    Everingham et al. 2010, section 4.2: intersection over union, void left out.
    """
    if segmenter.classes != data.classes:
        raise DataError(
            f"got data with the classes {few(data.classes)}, but the weights know "
            f"{few(segmenter.classes)}; evaluate on data with the same classes.txt"
        )
    require_objects(data)
    description = segmenter.describe(**options)  # first: it refuses unsupported modes
    absent = [_dropped(name, why, len(data.classes)) for name, why in (missing or {}).items()]
    total = len(absent) + len(data.samples)
    own: list[Measured] = []
    for result in measure(segmenter, data, **options):
        own.append(result)
        if progress is not None:
            done = min(len(absent) + len(own) * distributed.world(), total)
            progress(done, total, "evaluating")
    measured = absent + distributed.gather(own)
    mode = options.get("mode") or segmenter.mode
    return {"mode": mode, **summarize(measured, data, description, min_images)}


def measure(segmenter: "BaseSegmenter", data: DataSet, **options: Any) -> Iterator[Measured]:
    """The counts of each image that falls to this process, in the data's order."""
    k = len(data.classes)
    for sample in distributed.shard(data.samples):
        try:
            image, truth = read_sample(sample, k)
        except UnpoolError as error:
            yield _dropped(sample.name, str(error), k)
            continue
        found = segmenter(image, **options)
        sure = found.confidence if found.has_confidence else None
        yield compare(sample.name, found.labels, truth, k, sure)


def compare(
    name: str,
    labels: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    classes: int,
    confidence: NDArray[np.float32] | None = None,
) -> Measured:
    """The counts of one image's labels against the truth, both (H, W).

    The confidence of the labels, as of `Segmentation.confidence`, may be known, too.
    """
    found = boundary_f1(labels, truth, classes, VOID)
    mean = float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")
    diagram = None
    if confidence is not None:
        known = truth != VOID
        diagram = reliability(confidence[known], (labels == truth)[known])
    matrix = confusion_matrix(labels, truth, classes, VOID)
    return Measured(name, matrix, mean, reliability=diagram)


def summarize(
    measured: list[Measured], data: DataSet, description: str, min_images: int = 0
) -> dict[str, Any]:
    """The figures of a data set, as plain values.

    Args:
        measured: the counts of each image.
        data: what was measured.
        description: how it was segmented.
        min_images: the number of images whose truth must show a class, for it to count in the
            means; 0 for classes that occur in the truth or the prediction. Rare classes depend on
            one or two images.

    Returns:
        `miou`, `pixel_accuracy` and `boundary_f1`, each with `_interval` (95 %, bootstrap over
        images; None for a single one), `mean_accuracy`, `iou` by class (None where a class occurs
        neither in the truth nor in the prediction), `calibration_error` (see
        `unpool.vision.metrics`; None where the confidence is not known), `images`, `class_images`
        (whose truth shows a class), `dropped` (names and reasons), `protocol`. All but the counts
        are fractions from 0 to 1.
    """
    kept = [m for m in measured if not m.error]
    if not kept or not any(m.matrix.any() for m in kept):
        reason = measured[0].error if measured and measured[0].error else "every pixel is void"
        raise DataError(f"no image of {data.root} could be evaluated: {reason}")
    matrices = np.stack([m.matrix for m in kept])
    among = in_images(matrices, min_images)
    if not among.any():
        raise OptionError(
            f"got min_images={min_images}; no class is in the truth of so many of {len(kept)} "
            "images: choose fewer"
        )
    total = scores(matrices.sum(0), among)
    diagrams = [m.reliability for m in kept if m.reliability is not None]
    meant = (
        f"the {among.sum()} classes in {min_images} images or more"
        if min_images
        else "classes present in truth or prediction"
    )
    outlines = np.array([m.boundary_f1 for m in kept if np.isfinite(m.boundary_f1)])
    right, pixels = matrices.trace(axis1=1, axis2=2), matrices.sum((1, 2))
    return {
        "miou": float(total.miou),
        "miou_interval": list(bootstrap_interval(matrices, among=among)) if len(kept) > 1 else None,
        "iou": {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(data.classes, total.iou, strict=True)
        },
        "pixel_accuracy": float(total.pixel_accuracy),
        "pixel_accuracy_interval": list(bootstrap_ratio(right, pixels)) if len(kept) > 1 else None,
        "mean_accuracy": float(total.mean_accuracy),
        "boundary_f1": float(outlines.mean()) if len(outlines) else None,
        "boundary_f1_interval": (
            list(bootstrap_ratio(outlines, np.ones(len(outlines)))) if len(outlines) > 1 else None
        ),
        "calibration_error": calibration_error(np.sum(diagrams, 0)) if diagrams else None,
        "images": len(kept),
        "class_images": dict(zip(data.classes, (matrices.sum(2) > 0).sum(0).tolist(), strict=True)),
        "dropped": {m.name: m.error for m in measured if m.error},
        "protocol": (
            f"{data.title}, {len(kept)} of {len(measured)} images; "
            f"{''.join(f'{note}; ' for note in data.notes)}{description}; "
            "labels at the original size; one confusion matrix over the data set, void (255) "
            f"ignored; mean over {meant}; interval: 95 %, bootstrap "
            "over images; boundary F1: tolerance 0.75 % of the diagonal, mean over images"
        ),
    }


def figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The fractions of a summary by title, for a table: the IoU of each class, and the averages."""
    others = ["pixel_accuracy", "mean_accuracy", "boundary_f1"]
    others += ["calibration_error"] * (summary["calibration_error"] is not None)
    return {
        **summary["iou"],
        "mean IoU": summary["miou"],
        "95 % interval": summary["miou_interval"],
        **{name.replace("_", " "): summary[name] for name in others},
    }


def mean_iou(segment: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], data: DataSet) -> float:
    """The mean IoU alone, of a function from images (H, W, 3) to labels (H, W)."""
    found, k = [], len(data.classes)
    for sample in distributed.shard(data.samples):
        image, truth = read_sample(sample, k)
        found.append(confusion_matrix(segment(image), truth, k, VOID))
    return float(scores(np.sum(distributed.gather(found), 0)).miou)


def sheet(segmenter: "BaseSegmenter", data: DataSet, count: int = 8) -> NDArray[np.uint8]:
    """A contact sheet of images with their predicted and true labels, (height, width, 3) RGB."""
    tiles = []
    for sample in data.samples[:: max(len(data.samples) // count, 1)][:count]:
        image, truth = read_sample(sample, len(data.classes))
        found = segmenter(image)
        true = replace(found, labels=np.where(truth == VOID, 0, truth))
        tiles += [(image, sample.name), (found.overlay(), "found"), (true.overlay(), "truth")]
    return contact_sheet(tiles, columns=3)


def _dropped(name: str, error: str, classes: int) -> Measured:
    return Measured(name, np.zeros((classes, classes), np.int64), float("nan"), error)
