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
from unpool.segment.postprocessing import postprocess
from unpool.vision.boxes import resize

COUNTS = (1, 2, 5, 10, 20, 30, 50)
PROPOSALS = 50  #: of the rows of the table
TABLE = (
    "FCN-8s",
    "FCN-8s, instance-wise",
    "DeconvNet, whole image",
    "DeconvNet, whole image + CRF",
    "DeconvNet, instance-wise",
    "DeconvNet, instance-wise + CRF",
    "EDeconvNet, whole image",
    "EDeconvNet, whole image + CRF",
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
PRESENCES = (0.0, 0.5, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
PRESENCE_OF = {  # and the temperature of each
    "FCN-8s": "fcn",
    "DeconvNet, whole image": "whole",
    "EDeconvNet, whole image": "edeconvnet",
    "DeconvNet, instance-wise": "instance",
    "EDeconvNet": "edeconvnet",
}
ENLARGED = 500  #: long side of VOC's images, for which the parameters were published

Scores = NDArray[np.float32]


class Row(NamedTuple):
    """One way of segmenting an image."""

    name: str
    labels: NDArray[np.uint8]  #: (H, W)
    confidence: NDArray[np.float32]  #: (H, W)


def rows(image: NDArray[np.uint8], both: EDeconvNet, instances: bool = True) -> Iterator[Row]:
    """The labels of one image by every row: those of the table, and those of the ablations.

    Args:
        image: (H, W, 3) uint8, RGB.
        both: the networks and their settings.
        instances: also segment object proposals, and try other CRFs, which takes most of the time.
    """
    first, second = both.deconvnet, both.fcn
    known = {**first.temperature, "fcn": second.temperature.get("whole", 1.0)}

    def row(name: str, scores: Scores, crf: Any = None, **changes: Any) -> Row:
        given = {"crf": crf, "presence_threshold": first.presence_threshold}
        found = postprocess(image, scores, first.classes, **{**given, **changes})
        return Row(name, found.labels, found.confidence)

    def together(scores: Scores) -> Scores:
        return combine(scores, ways["FCN-8s"], both.ensemble, both.weight)

    ways = {
        "FCN-8s": second.predict(image, mode="whole").logits,
        "DeconvNet, whole image": first.predict(image, mode="whole").logits,
    }
    best = whole = ways["DeconvNet, whole image"]
    ways["EDeconvNet, whole image"] = together(whole)
    if instances:
        merged = dict(crops(image, both))
        fcn = merged.pop("FCN-8s")
        for name, scores in merged.items():
            yield row(name, scores)
        best = ways["DeconvNet, instance-wise"] = merged[f"{first.aggregate} of {PROPOSALS}"]
        ways["EDeconvNet"] = together(best)
        yield row("FCN-8s, instance-wise", fcn)
        yield row("FCN-8s, instance-wise, presence 0", fcn, presence_threshold=0.0)
    for name, scores in ways.items():
        own = second if name == "FCN-8s" else first
        given = {"presence_threshold": own.presence_threshold}
        yield row(name, scores, temperature=known.get(PRESENCE_OF[name], 1.0), **given)
        for p in PRESENCES:
            yield row(f"{name}, presence {p:g}", scores, presence_threshold=p)
        if name != "FCN-8s":
            crf = first.crf or "edeconvnet"
            yield row(f"{name} + CRF", scores, crf)
            if instances:
                yield row(f"{name} + CRF, presence 0", scores, crf, presence_threshold=0.0)
    other = {"mean": "product", "product": "mean"}[both.ensemble]
    yield row(f"EDeconvNet, {other}", combine(best, ways["FCN-8s"], other))
    if not instances:
        return
    for what, refined in CRFS.items():
        if refined != AUTO or first.crf is not None:
            yield row(f"CRF, {what}", together(best), first.crf if refined == AUTO else refined)
    yield _at_large(image, together(best), both)


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
