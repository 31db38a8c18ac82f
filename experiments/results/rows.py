"""The rows of the page: labels of one image by each network, mode and way of post-processing."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from unpool.recipes.presets import AUTO, CRF_PRESETS, DenseCRF, Kernel
from unpool.segment.aggregate import Aggregate, crop_squares, squares
from unpool.segment.ensemble import EDeconvNet, combine
from unpool.segment.result import postprocess
from unpool.vision.boxes import resize

COUNTS = (1, 2, 5, 10, 20, 30, 50)
PROPOSALS = 50  #: of the rows of the table
TABLE = (
    "FCN-8s",
    "FCN-8s, instance-wise",
    "DeconvNet, whole image",
    "DeconvNet, instance-wise",
    "DeconvNet, instance-wise + CRF",
    "EDeconvNet",
    "EDeconvNet + CRF",
)
_PUBLISHED = CRF_PRESETS["edeconvnet"]
CRFS: dict[str, DenseCRF | str] = {
    "that of the weights": AUTO,
    "as published": _PUBLISHED,
    "color weight 5 → 1": _PUBLISHED._replace(kernels=(Kernel(3, 3), Kernel(20, 1, 3))),
    "normalized symmetrically": _PUBLISHED._replace(normalization="symmetric"),
    **{f"preset `{name}`": name for name in ("deeplab", "crfrnn", "densecrf")},
}
PRESENCES = (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
PRESENCE_OF = ("FCN-8s", "DeconvNet, whole image", "DeconvNet, instance-wise", "EDeconvNet")
ENLARGED = 500  #: long side of VOC's images, for which the parameters were published

Scores = NDArray[np.float32]


class Row(NamedTuple):
    """One way of segmenting an image."""

    name: str
    labels: NDArray[np.uint8]  #: (H, W)
    confidence: NDArray[np.float32]  #: (H, W)


def rows(image: NDArray[np.uint8], both: EDeconvNet) -> Iterator[Row]:
    """The labels of one image by every row: those of the table, and those of the ablations."""
    first, second = both.deconvnet, both.fcn
    threshold, temperature = first.presence_threshold, first.temperature

    def row(name: str, scores: Scores, crf: Any = None, **changes: Any) -> Row:
        given = {"crf": first.crf if crf == AUTO else crf, "presence_threshold": threshold}
        found = postprocess(image, scores, first.classes, **{**given, **changes})
        return Row(name, found.labels, found.confidence)

    whole, partner = (one.predict(image, mode="whole").logits for one in (first, second))
    merged = dict(crops(image, both))
    best, fcn = merged[f"{first.aggregate} of {PROPOSALS}"], merged.pop("FCN-8s")
    for name, scores in merged.items():
        yield row(name, scores)
    ensemble = combine(best, partner, both.ensemble, both.weight)
    for name, scores, kind in zip(
        PRESENCE_OF,
        (partner, whole, best, ensemble),
        ("fcn", "whole", "instance", "edeconvnet"),
        strict=True,
    ):
        own = second.temperature.get("whole", 1.0) if kind == "fcn" else temperature.get(kind, 1.0)
        yield row(name, scores, temperature=own)
        for p in PRESENCES:
            yield row(f"{name}, presence {p:g}", scores, presence_threshold=p)
    yield row("FCN-8s, instance-wise", fcn)
    yield row("FCN-8s, instance-wise, presence 0", fcn, presence_threshold=0.0)
    for name, scores in (("DeconvNet, instance-wise + CRF", best), ("EDeconvNet + CRF", ensemble)):
        yield row(name, scores, first.crf or "edeconvnet")
        yield row(f"{name}, presence 0", scores, first.crf or "edeconvnet", presence_threshold=0.0)
    other = {"mean": "product", "product": "mean"}[both.ensemble]
    yield row(f"EDeconvNet, {other}", combine(best, partner, other))
    yield row("DeconvNet, whole image + CRF", whole, first.crf or "edeconvnet")
    yield row("EDeconvNet, whole image", combine(whole, partner, both.ensemble, both.weight))
    for what, crf in CRFS.items():
        if crf != AUTO or first.crf is not None:
            yield row(f"CRF, {what}", ensemble, crf)
    yield _at_large(image, ensemble, both)


def crops(image: NDArray[np.uint8], both: EDeconvNet) -> Iterator[tuple[str, Scores]]:
    """The merged scores of the first squares, by aggregation and number; and those of the FCN."""
    first, second = both.deconvnet, both.fcn
    assert first.side is not None
    merged = {how: Aggregate(len(first.classes), image.shape[:2], how) for how in ("max", "mean")}
    fcn = Aggregate(len(first.classes), image.shape[:2], first.aggregate)
    boxes, number = squares(image, count=max(COUNTS)), 0
    for part, images in crop_squares(image, boxes, first.side, first.quickest_batch()):
        every = zip(part, first.infer(images), second.infer(images), strict=True)
        for crop, scores, theirs in every:
            number += 1
            for how, one in merged.items():
                one.add(crop, scores)
                if number in COUNTS:
                    yield f"{how} of {number}", one.logits.copy()
            if number <= PROPOSALS:
                fcn.add(crop, theirs)
    for count in COUNTS:
        if count > number:  # there were no more squares
            yield from ((f"{how} of {count}", one.logits) for how, one in merged.items())
    yield "FCN-8s", fcn.logits


def _at_large(image: NDArray[np.uint8], scores: Scores, both: EDeconvNet) -> Row:
    """The labels after the published CRF of the enlarged image, back at the image's size."""
    large = resize(image, max(ENLARGED, *image.shape[:2]))
    grown = F.interpolate(torch.from_numpy(scores)[None], size=large.shape[:2], mode="bilinear")[0]
    given = {"crf": _PUBLISHED, "presence_threshold": both.presence_threshold}
    refined = postprocess(large, grown.numpy(), both.classes, **given).probabilities
    back = F.interpolate(torch.from_numpy(refined)[None], size=image.shape[:2], mode="area")[0]
    probabilities = back.numpy()
    labels = probabilities.argmax(0).astype(np.uint8)
    return Row(f"CRF, at {ENLARGED} pixels", labels, probabilities.max(0))
