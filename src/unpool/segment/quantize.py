"""Prepare weights for int8: measure the maps of their network on images, and save the scales."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from unpool.cards import find_weights, read_card
from unpool.devices import find_int8_obstacle
from unpool.errors import OptionError, require_int
from unpool.files import drafts
from unpool.models import prepare
from unpool.models.calibration import AGREEMENT, calibrate
from unpool.models.int8 import FILE, require_int8
from unpool.models.weights import FILES
from unpool.segment.aggregate import crop_squares, squares
from unpool.segment.segmenter import Segmenter
from unpool.segment.whole import WholeView
from unpool.vision.boxes import reduced
from unpool.vision.sources import find_images

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.images import Pixels

_CROPS = 4  # of each image, for a network that can be used instance-wise


class Quantized(NamedTuple):
    """The result of a calibration."""

    weights: str  #: the folder, for `Segmenter.from_pretrained(..., precision="int8")`
    images: int  #: that were measured
    labels_equal: float  #: fraction of their pixels with the label of fp32
    int8: int  #: number of layers that compute with integers
    floating_point: list[str]  #: layers that lose too much


def quantize(
    source: str | Path,
    data: str | Path,
    target: str | Path,
    *,
    images: int = 32,
    agreement: float = AGREEMENT,
    progress: "Progress | None" = None,
) -> Quantized:
    """Write a copy of weights with the scales of their maps.

    Args:
        source: weights of a network that has an int8 form, by name or folder.
        data: a folder of images such as the network will see, searched recursively; no masks.
        target: a folder, created if missing; or that of the weights, to add the scales to them.
        images: how many are measured, evenly spaced among those found.
        agreement: fraction of pixels that must keep their label; see `calibrate`.
        progress: called after each step.

    Raises:
        WeightsError: no such weights.
        ImageError: no images, or one that cannot be read.
        OptionError: a network without an int8 form, or one that loses too much.
    """
    require_int("images", images)
    if obstacle := find_int8_obstacle(torch.device("cpu")):
        raise OptionError(f"cannot calibrate int8 here: {obstacle}; do it on another machine")
    folder, sha256 = find_weights(source), read_card(source).sha256
    segmenter = Segmenter.from_pretrained(source, exact=True, device="cpu")
    net = require_int8(segmenter.model)
    found = find_images([str(data)]).sources
    number = min(images, len(found))
    batches: list[Tensor] = []
    for i in range(number):
        batches += _batches(segmenter, reduced(found[i * len(found) // number].read()))
        if progress is not None:
            progress(i + 1, number, "reading images")
    found_scales = calibrate(net, batches, agreement=agreement, progress=progress)
    scales = replace(found_scales, sha256=sha256)
    target = Path(target)
    with drafts(target, *FILES, FILE) as draft:
        for name in FILES:
            shutil.copyfile(folder / name, draft / name)
        scales.write(draft)
    integers = sum(scale.int8 for scale in scales.layers.values())
    equal, floating = (scales.measured[name] for name in ("labels_equal", "floating_point"))
    return Quantized(str(target), number, equal, integers, floating)


def _batches(segmenter: Segmenter, image: "Pixels") -> list[Tensor]:
    """An image as a whole, and its first proposals if the network can segment them."""
    views = [WholeView(segmenter.model, image, segmenter.long_side).batch]
    if segmenter.side is not None:
        boxes = squares(image, count=_CROPS)
        views += [crops for _, crops in crop_squares(image, boxes, segmenter.side, _CROPS)]
    return [prepare(torch.from_numpy(view), segmenter.mean) for view in views]
