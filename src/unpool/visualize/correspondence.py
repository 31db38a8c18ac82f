"""Correspondence: whether a network notices the same part in different images.

The same part is hidden in each of several images, and the change of the features is taken. If
the network knows the part, the changes agree in sign; those of parts at random agree less.
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
_NOISE = 1e-6  # of the largest feature: what rounding alone may change


def sign_distances(changes: Tensor) -> Tensor:
    """How far changes disagree in sign: the Hamming distance of each two, over their dimension.

    Args:
        changes: (N, D), the change of the features of each image.

    Returns:
        (N, N) float64, from 0 (the same signs) to 1; a sign is -1, 0 or 1.

    Zeiler, Fergus 2014, section 4.4.

    >>> sign_distances(torch.tensor([[1.0, -2.0, 0.0], [3.0, 2.0, 0.0]]))[0]
    tensor([0.0000, 0.3333], dtype=torch.float64)
    """
    signs = changes.sign()
    return torch.stack([(signs != row).double().mean(1) for row in signs])


class Agreement(NamedTuple):
    """What hiding a part does in a layer: the normalized Hamming distance of signs of changes."""

    part: str
    layer: str
    mean: float  #: over all ordered pairs of different images; lower is better
    spread: float  #: standard deviation over them
    pairs: int  #: how many ordered pairs


@dataclass(frozen=True)
class Correspondence:
    """How well a network makes the parts of images correspond."""

    images: list[Path]
    failed: dict[str, str]  #: those that could not be read, and why
    layers: list[str]
    boxes: dict[str, _Boxes]  #: of each part, by number of image, in the crop
    agreements: list[Agreement]
    shown: list[list[tuple[str, Pixels]]]  #: a row an image: as it is, and with each part hidden

    def figure(self) -> Pixels:
        """A row an image: as it is, and with each part hidden; (H, W, 3) uint8."""
        rows = [
            join([add_caption(fit_square(tile, 128), text[:18]) for text, tile in row], 1)
            for row in self.shown
        ]
        return join(rows, 0)

    def table(self) -> list[list[str]]:
        """A row a part, a column a layer, as table 1 of the paper."""
        by_part: dict[str, list[str]] = {}
        for found in self.agreements:
            cell = f"{found.mean:.3f} +- {found.spread:.3f}"
            by_part.setdefault(found.part, [found.part]).append(cell)
        return [["part", *self.layers], *by_part.values()]

    def to_dict(self) -> dict[str, Any]:
        """All but the images, as plain values."""
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
        """Write `correspondence.png` and `correspondence.json`; gives both paths."""
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

    As a control, boxes at random are hidden, which have the sizes of the parts.

    Args:
        loaded: the model.
        parts: for each part, where it is in each image that has it: x0, y0, x1, y1 in pixels of
            the file as it is seen upright, x1 and y1 excluded. It is covered with the color that
            the model takes for zero.
        layers: names from `list_layers`; when not given, the last with maps and the last of all
            below the scores, in the paper 5 and 7.
        draws: how many random boxes an image; 0 leaves the control out.
        seed: the seed of these.
        progress: see `Progress`.

    Raises:
        OptionError: no such layer, one whose values are not finite, a part called "random" or in
            fewer than two images that can be read, or a box that is empty, outside its image,
            or outside what the model sees of it.
        ShapeError: the model takes no images of this size.
        ImageError: none of the images can be read.

    Zeiler, Fergus 2014, section 4.4 and table 1. The paper does not say how H is normalized; its
    numbers are those of the fraction of signs that differ, averaged over ordered pairs. A feature
    that changes by less than 1e-6 of the largest does not count as changed.
    """
    if _CONTROL in parts:
        raise OptionError(f"got a part {_CONTROL!r}, as the control is called; name it otherwise")
    layers = list(layers) or _usual(loaded)
    extract = FeatureExtractor(loaded, layers)
    paths = list(dict.fromkeys(path for where in parts.values() for path in where))
    inputs, preprocessing = read_inputs(loaded, paths), loaded.preprocessing
    boxes = {part: _seen(part, where, preprocessing, inputs) for part, where in parts.items()}
    groups = [*boxes.items(), *_random(boxes, draws, preprocessing.size, seed)]
    fill, done, work = mean_color(loaded), 0, sum(len(where) for _, where in groups)
    originals = [extract([crop])[0] for crop in inputs.crops]
    distances: dict[tuple[str, str], list[Tensor]] = {}
    for part, where in groups:
        changes: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        for i, box in where.items():
            features, _ = extract([_covered(inputs.crops[i], box, fill)])
            for layer, vector in features.items():
                changes[layer].append(_change(originals[i][layer], vector))
            done += 1
            if progress is not None:
                progress(done, work, f"hiding {part}")
        for layer, found in changes.items():
            distances.setdefault((part, layer), []).append(_pairs(torch.cat(found)))
    agreements = [
        Agreement(part, layer, float(d.mean()), float(d.std(correction=0)), len(d))
        for (part, layer), d in ((key, torch.cat(found)) for key, found in distances.items())
    ]
    once = dict(groups[: len(boxes) + 1])  # of the random ones the first
    shown = [_row(inputs, once, i, fill) for i in range(len(inputs.crops))]
    return Correspondence(inputs.images, inputs.failed, layers, boxes, agreements, shown)


def _usual(loaded: LoadedModel) -> list[str]:
    below, top = choose_layers(loaded)
    return [[name for name in below if name != top][-1], top] if below != [top] else [top]


def _seen(
    part: str,
    where: Mapping[Path, Sequence[float]],
    preprocessing: Preprocessing,
    inputs: InputImages,
) -> _Boxes:
    """The boxes of a part in what the model sees, by number of image."""
    boxes = {}
    for i, (path, shape) in enumerate(zip(inputs.images, inputs.shapes, strict=True)):
        if path in where:
            boxes[i] = _in_crop(f"{part!r} in {path}", where[path], preprocessing, shape)
    if len(boxes) < 2:
        raise OptionError(
            f"got part {part!r} in {len(boxes)} images that can be read; its signs are compared "
            "between images: give it in two or more"
        )
    return boxes


def _in_crop(
    what: str, box: Sequence[float], preprocessing: Preprocessing, shape: tuple[int, int]
) -> Box:
    """A box of an image, in pixels of what the model sees of it."""
    height, width = shape
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise OptionError(f"got the box {list(box)} of {what}; wanted x0, y0, x1, y1 in pixels")
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise OptionError(
            f"got the box {_listed(box)} of {what}, which is {width} x {height} pixels; wanted x0, "
            f"y0, x1, y1 with 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}"
        )
    side = min(shape)
    scale, spare = preprocessing.enlarged / side, (preprocessing.enlarged - preprocessing.size) // 2
    left, top = (width - side) // 2, (height - side) // 2
    crop = [round((x - left) * scale) - spare for x in (x0, x1)]
    crop[1:1] = [round((y0 - top) * scale) - spare]
    crop.append(round((y1 - top) * scale) - spare)
    inside = [min(max(v, 0), preprocessing.size) for v in crop]
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise OptionError(
            f"got the box {_listed(box)} of {what}, of which the model sees nothing, for it looks "
            "at the middle square; cut the image, or leave the box out"
        )
    return inside[0], inside[1], inside[2], inside[3]


def _listed(box: Sequence[float]) -> str:
    return ",".join(f"{v:g}" for v in box)


def _random(
    boxes: Mapping[str, _Boxes], draws: int, side: int, seed: int
) -> list[tuple[str, _Boxes]]:
    """Boxes at random places, as large as those of the parts in turn."""
    rng, parts = np.random.default_rng(seed), list(boxes.values())
    found = []
    for draw in range(draws):
        where = {}
        for i, (x0, y0, x1, y1) in parts[draw % len(parts)].items():
            x, y = rng.integers(0, [side - x1 + x0 + 1, side - y1 + y0 + 1]).tolist()
            where[i] = (x, y, x + x1 - x0, y + y1 - y0)
        found.append((_CONTROL, where))
    return found


def _covered(crop: Pixels, box: Box, fill: tuple[int, int, int]) -> Pixels:
    x0, y0, x1, y1 = box
    covered = crop.copy()
    covered[y0:y1, x0:x1] = fill
    return covered


def _change(before: Tensor, after: Tensor) -> Tensor:
    """Original minus covered; zero where only rounding differs."""
    change = before - after
    return change.where(change.abs() > _NOISE * before.abs().amax(1, keepdim=True), 0)


def _pairs(changes: Tensor) -> Tensor:
    """The distances of all ordered pairs of different images."""
    distances = sign_distances(changes)
    return distances[~torch.eye(len(distances), dtype=torch.bool)]


def _row(
    inputs: InputImages, groups: Mapping[str, _Boxes], number: int, fill: tuple[int, int, int]
) -> list[tuple[str, Pixels]]:
    """An image as it is, and with each part hidden, as far as it has them."""
    crop = inputs.crops[number]
    row = [(inputs.images[number].stem, crop)]
    for part, where in groups.items():
        row.append((part, _covered(crop, where[number], fill)) if number in where else ("-", crop))
    return row
