"""Correspondence: whether a network recognizes the same part in different images.

The part is hidden in each of several images, and the changes of the features are compared. If the
network recognizes the part, they agree in sign more than those from hiding random boxes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unpool import Progress
from unpool.errors import OptionError
from unpool.vision.figures import add_caption, fit_square, join, write_figure
from unpool.vision.images import Pixels
from unpool.visualize.features import (
    FeatureExtractor,
    InputImages,
    choose_layers,
    mean_color,
    read_inputs,
)
from unpool.visualize.preprocessing import LoadedModel, Preprocessing

Box = tuple[int, int, int, int]
_Boxes = dict[int, Box]

_CONTROL = "random"
_NOISE = 1e-6  # of the largest feature: changes below may come from rounding alone


def sign_distances(changes: Tensor) -> Tensor:
    """The Hamming distances between the signs of changes, as fractions of the dimension.

    Args:
        changes: (N, D), the change of the features of each image.

    Returns:
        (N, N) float64, from 0 (the same signs) to 1; signs are -1, 0 or 1.

    Zeiler, Fergus 2014, section 4.4.

    >>> sign_distances(torch.tensor([[1.0, -2.0, 0.0], [3.0, 2.0, 0.0]]))[0]
    tensor([0.0000, 0.3333], dtype=torch.float64)
    """
    signs = changes.sign()
    return torch.stack([(signs != row).double().mean(1) for row in signs])


class Agreement(NamedTuple):
    """How far the changes from hiding a part differ in sign, in one layer."""

    part: str
    layer: str
    mean: float  #: distance over all ordered pairs of different images; lower is better
    spread: float  #: standard deviation over them
    pairs: int  #: number of ordered pairs


@dataclass(frozen=True)
class Correspondence:
    """The result of `correspond`."""

    images: list[Path]
    failed: dict[str, str]  #: unreadable files, with the reasons
    layers: list[str]
    boxes: dict[str, _Boxes]  #: of each part, by index of the image, in the crop
    agreements: list[Agreement]
    shown: list[list[tuple[str, Pixels]]]  #: for each image: itself, and with each part hidden

    def figure(self) -> Pixels:
        """A row for each image: itself, and with each part hidden; (H, W, 3) uint8."""
        rows = [
            join([add_caption(fit_square(tile, 128), text[:18]) for text, tile in row], 1)
            for row in self.shown
        ]
        return join(rows, 0)

    def table(self) -> list[list[str]]:
        """Parts as rows and layers as columns, as in table 1 of the paper."""
        by_part: dict[str, list[str]] = {}
        for found in self.agreements:
            cell = f"{found.mean:.3f} +- {found.spread:.3f}"
            by_part.setdefault(found.part, [found.part]).append(cell)
        return [["part", *self.layers], *by_part.values()]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the images, as plain values."""
        return {
            "images": [str(image) for image in self.images],
            "failed": self.failed,
            "layers": self.layers,
            "boxes": {
                part: {str(self.images[i]): list(box) for i, box in boxes.items()}
                for part, boxes in self.boxes.items()
            },
            "agreements": [found._asdict() for found in self.agreements],
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write `correspondence.png` and `correspondence.json`, and return both paths."""
        return write_figure(Path(folder, "correspondence"), self.figure(), self.to_dict())


def correspond(
    loaded: LoadedModel,
    parts: Mapping[str, Mapping[Path, Sequence[float]]],
    layers: Sequence[str] = (),
    *,
    draws: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> Correspondence:
    """Hide the same part in several images, and compare how their features change.

    As a control, random boxes of the sizes of the parts are hidden.

    Args:
        loaded: the model with its preprocessing.
        parts: for each part, its box in each image that shows it: x0, y0, x1, y1 in pixels of the
            upright image, x1 and y1 excluded. It is filled with the color that is zero in the
            model's input.
        layers: names from `list_layers`; when not given, the last layer with maps and the last
            below the class scores, as layers 5 and 7 in the paper.
        draws: random boxes for each image; 0 leaves the control out.
        seed: of the random boxes.
        progress: see `Progress`.

    Raises:
        OptionError: no such layer, a layer with values that are not finite, a part called "random"
            or in fewer than two readable images, or a box that is empty, outside its image, or
            outside the crop that the model sees.
        ShapeError: the model takes no images of this size.
        ImageError: none of the images can be read.

    Zeiler, Fergus 2014, section 4.4 and table 1. The paper does not say how the distance is
    normalized; its numbers fit the fraction of signs that differ, averaged over ordered pairs. A
    feature that changes by less than 1e-6 of the largest counts as unchanged.
    """
    if _CONTROL in parts:
        raise OptionError(f"got a part {_CONTROL!r}, which is the control; choose another name")
    layers = list(layers) or _default_layers(loaded)
    extract = FeatureExtractor(loaded, layers)
    paths = list(dict.fromkeys(path for where in parts.values() for path in where))
    inputs, preprocessing = read_inputs(loaded, paths), loaded.preprocessing
    boxes = {part: _boxes(part, where, preprocessing, inputs) for part, where in parts.items()}
    groups = [*boxes.items(), *_random_boxes(boxes, draws, preprocessing.size, seed)]
    fill, done, work = mean_color(loaded), 0, sum(len(where) for _, where in groups)
    originals = [extract([crop])[0] for crop in inputs.crops]
    distances: dict[tuple[str, str], list[Tensor]] = {}
    for part, where in groups:
        changes: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        for i, box in where.items():
            features, _ = extract([_hide(inputs.crops[i], box, fill)])
            for layer, vector in features.items():
                changes[layer].append(_change(originals[i][layer], vector))
            done += 1
            if progress is not None:
                progress(done, work, f"hiding {part}")
        for layer, found in changes.items():
            distances.setdefault((part, layer), []).append(_pairs(torch.cat(found)))
    agreements = []
    for (part, layer), pairs in distances.items():
        d = torch.cat(pairs)
        spread = float(d.std(correction=0))
        agreements.append(Agreement(part, layer, float(d.mean()), spread, len(d)))
    once = dict(groups[: len(boxes) + 1])  # the first random group shows the control
    shown = [_row(inputs, once, i, fill) for i in range(len(inputs.crops))]
    return Correspondence(inputs.images, inputs.failed, layers, boxes, agreements, shown)


def _default_layers(loaded: LoadedModel) -> list[str]:
    below, top = choose_layers(loaded)
    return [[name for name in below if name != top][-1], top] if below != [top] else [top]


def _boxes(
    part: str,
    where: Mapping[Path, Sequence[float]],
    preprocessing: Preprocessing,
    inputs: InputImages,
) -> _Boxes:
    """The boxes of a part in the crops, by index of the image."""
    boxes = {}
    for i, (path, shape) in enumerate(zip(inputs.images, inputs.shapes, strict=True)):
        if path in where:
            boxes[i] = _in_crop(f"{part!r} in {path}", where[path], preprocessing, shape)
    if len(boxes) < 2:
        raise OptionError(
            f"got part {part!r} in {len(boxes)} readable images; wanted two or more: changes are "
            "compared between images"
        )
    return boxes


def _in_crop(
    what: str, box: Sequence[float], preprocessing: Preprocessing, shape: tuple[int, int]
) -> Box:
    """A box of an image of (height, width), in pixels of the crop that the model sees."""
    height, width = shape
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise OptionError(f"got the box {list(box)} of {what}; wanted x0, y0, x1, y1 in pixels")
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise OptionError(
            f"got the box {_listed(box)} of {what}, which is {width} x {height} pixels; wanted x0, "
            f"y0, x1, y1 with 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}"
        )
    size, side = preprocessing.size, min(shape)
    scale, margin = preprocessing.enlarged / side, (preprocessing.enlarged - size) // 2
    corner = 2 * ((width - side) // 2, (height - side) // 2)  # of the middle square
    crop = [round((v - c) * scale) - margin for v, c in zip(box, corner, strict=True)]
    left, top, right, bottom = (min(max(v, 0), size) for v in crop)
    if left >= right or top >= bottom:
        raise OptionError(
            f"got the box {_listed(box)} of {what}, outside the middle square that the model sees; "
            "crop the image, or leave the box out"
        )
    return left, top, right, bottom


def _listed(box: Sequence[float]) -> str:
    return ",".join(f"{v:g}" for v in box)


def _random_boxes(
    boxes: Mapping[str, _Boxes], draws: int, side: int, seed: int
) -> list[tuple[str, _Boxes]]:
    """Boxes at random places, with the sizes of those of each part in turn."""
    rng, parts = np.random.default_rng(seed), list(boxes.values())
    found = []
    for draw in range(draws):
        where = {}
        for i, (x0, y0, x1, y1) in parts[draw % len(parts)].items():
            x, y = rng.integers(0, [side - x1 + x0 + 1, side - y1 + y0 + 1]).tolist()
            where[i] = (x, y, x + x1 - x0, y + y1 - y0)
        found.append((_CONTROL, where))
    return found


def _hide(crop: Pixels, box: Box, fill: tuple[int, int, int]) -> Pixels:
    x0, y0, x1, y1 = box
    hidden = crop.copy()
    hidden[y0:y1, x0:x1] = fill
    return hidden


def _change(before: Tensor, after: Tensor) -> Tensor:
    """Original minus hidden; zero where only rounding differs."""
    change = before - after
    return change.where(change.abs() > _NOISE * before.abs().amax(1, keepdim=True), 0)


def _pairs(changes: Tensor) -> Tensor:
    """The distances of all ordered pairs of different images."""
    distances = sign_distances(changes)
    return distances[~torch.eye(len(distances), dtype=torch.bool)]


def _row(
    inputs: InputImages, groups: Mapping[str, _Boxes], number: int, fill: tuple[int, int, int]
) -> list[tuple[str, Pixels]]:
    """An image, and the image with each part hidden; "-" for parts that it does not show."""
    crop = inputs.crops[number]
    row = [(inputs.images[number].stem, crop)]
    for part, where in groups.items():
        row.append((part, _hide(crop, where[number], fill)) if number in where else ("-", crop))
    return row
