"""Correspondence: whether a network recognizes the same part in different images.

The part is hidden in each of several images, and the changes of the features are compared. If the
network recognizes the part, they agree in sign more than those from hiding random boxes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unpool.errors import OptionError
from unpool.vision.figures import add_caption, fit_square, join, write_figure
from unpool.visualize import features

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.images import Pixels
    from unpool.visualize.preprocessing import LoadedModel, Preprocessing

Box = tuple[int, int, int, int]
_Boxes = dict[int, Box]  # by index of the image, in pixels of the crop
_Color = tuple[int, int, int]

_CONTROL = "random"
_NOISE = 1e-6  # of the largest feature: changes below may come from rounding alone


def sign_distances(changes: Tensor) -> Tensor:
    """The Hamming distances between the signs (-1, 0, 1) of rows, as fractions of their length.

    Returns:
        (N, N) float64, from 0 to 1, for changes of features (N, D). Zeiler, Fergus 2014, section
        4.4.

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
    shown: list[list[tuple[str, "Pixels"]]]  #: for each image: itself, and with each part hidden

    def figure(self) -> "Pixels":
        """A row for each image: itself, and with each part hidden; (H, W, 3) uint8."""
        rows = [
            [add_caption(fit_square(tile, 128), text[:18]) for text, tile in row]
            for row in self.shown
        ]
        return join([join(row, 1) for row in rows], 0)

    def table(self) -> list[list[str]]:
        """Parts as rows and layers as columns, as in table 1 of the paper."""
        by_part: dict[str, list[str]] = {}
        for part, _, mean, spread, _ in self.agreements:
            by_part.setdefault(part, [part]).append(f"{mean:.3f} +- {spread:.3f}")
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
    loaded: "LoadedModel",
    parts: Mapping[str, Mapping[Path, Sequence[float]]],
    layers: Sequence[str] = (),
    *,
    draws: int = 10,
    seed: int = 0,
    progress: "Progress | None" = None,
) -> Correspondence:
    """Hide the same part in several images, and compare how their features change.

    As a control, random boxes of the sizes of the parts are hidden.

    Args:
        parts: for each part, its box in each image that shows it: x0, y0, x1, y1 in pixels of the
            upright image, x1 and y1 excluded. It is filled with the color that is zero in the
            model's input.
        layers: names from `list_layers`; when not given, the last layer with maps and the last
            below the class scores, as layers 5 and 7 in the paper.
        draws: random boxes for each image; 0 leaves the control out.

    Raises:
        OptionError: no such layer, values that are not finite, a part called "random" or in fewer
            than two readable images, or a box that is empty, outside its image, or outside the crop
            that the model sees.
        ShapeError, ImageError: the model takes no images of this size, or none can be read.

    Zeiler, Fergus 2014, section 4.4 and table 1. The paper does not say how the distance is
    normalized; its numbers fit the fraction of signs that differ, averaged over ordered pairs. A
    feature that changes by less than 1e-6 of the largest counts as unchanged.
    """
    if _CONTROL in parts:
        raise OptionError(f"got a part {_CONTROL!r}, which is the control; choose another name")
    if not layers:
        below, top = features.choose_layers(loaded)
        layers = [*[name for name in below if name != top][-1:], top]
    layers = list(layers)
    extract = features.FeatureExtractor(loaded, layers)
    paths = list(dict.fromkeys(path for where in parts.values() for path in where))
    inputs, preprocessing = features.read_inputs(loaded, paths), loaded.preprocessing
    boxes = {part: _boxes(part, where, preprocessing, inputs) for part, where in parts.items()}
    groups = [*boxes.items(), *_random_boxes(boxes, draws, preprocessing.size, seed)]
    fill, done, work = features.mean_color(loaded), 0, sum(len(where) for _, where in groups)
    originals = [extract([crop])[0] for crop in inputs.crops]
    distances: dict[tuple[str, str], list[Tensor]] = {}
    for part, where in groups:
        changes: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        for i, box in where.items():
            vectors, _ = extract([_hide(inputs.crops[i], box, fill)])
            for layer, vector in vectors.items():
                changes[layer].append(_change(originals[i][layer], vector))
            done += 1
            if progress is not None:
                progress(done, work, f"hiding {part}")
        for layer, found in changes.items():
            square = sign_distances(torch.cat(found))
            pairs = square[~torch.eye(len(square), dtype=torch.bool)]  # of different images
            distances.setdefault((part, layer), []).append(pairs)
    agreements = [
        Agreement(*key, float(d.mean()), float(d.std(correction=0)), len(d))
        for key, d in ((key, torch.cat(pairs)) for key, pairs in distances.items())
    ]
    once = dict(groups[: len(boxes) + 1])  # the first random group shows the control
    shown = [
        [(path.stem, crop)]
        + [
            (part, _hide(crop, where[i], fill)) if i in where else ("-", crop)
            for part, where in once.items()
        ]
        for i, (path, crop) in enumerate(zip(inputs.images, inputs.crops, strict=True))
    ]
    return Correspondence(inputs.images, inputs.failed, layers, boxes, agreements, shown)


def _boxes(
    part: str,
    where: Mapping[Path, Sequence[float]],
    preprocessing: "Preprocessing",
    inputs: features.InputImages,
) -> _Boxes:
    boxes = {
        i: _in_crop(f"{part!r} in {path}", where[path], preprocessing, shape)
        for i, (path, shape) in enumerate(zip(inputs.images, inputs.shapes, strict=True))
        if path in where
    }
    if len(boxes) < 2:
        raise OptionError(
            f"got part {part!r} in {len(boxes)} readable images; wanted two or more: changes are "
            "compared between images"
        )
    return boxes


def _in_crop(
    what: str, box: Sequence[float], preprocessing: "Preprocessing", shape: tuple[int, int]
) -> Box:
    """A box of an image of (height, width), in pixels of the crop that the model sees."""
    height, width = shape
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise OptionError(f"got the box {list(box)} of {what}; wanted x0, y0, x1, y1 in pixels")
    (x0, y0, x1, y1), listed = box, ",".join(f"{v:g}" for v in box)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise OptionError(
            f"got the box {listed} of {what}, which is {width} x {height} pixels; wanted x0, y0, "
            f"x1, y1 with 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}"
        )
    size, side = preprocessing.size, min(shape)
    scale, margin = preprocessing.enlarged / side, (preprocessing.enlarged - size) // 2
    corner = 2 * ((width - side) // 2, (height - side) // 2)  # of the middle square
    crop = [round((v - c) * scale) - margin for v, c in zip(box, corner, strict=True)]
    left, top, right, bottom = (min(max(v, 0), size) for v in crop)
    if left >= right or top >= bottom:
        raise OptionError(
            f"got the box {listed} of {what}, outside the middle square that the model sees; crop "
            "the image, or leave the box out"
        )
    return left, top, right, bottom


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


def _hide(crop: "Pixels", box: Box, fill: _Color) -> "Pixels":
    x0, y0, x1, y1 = box
    hidden = crop.copy()
    hidden[y0:y1, x0:x1] = fill
    return hidden


def _change(before: Tensor, after: Tensor) -> Tensor:
    """Original minus hidden; zero where only rounding differs."""
    change = before - after
    return change.where(change.abs() > _NOISE * before.abs().amax(1, keepdim=True), 0)
