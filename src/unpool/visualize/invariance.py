"""Invariance: how far features move when an image is translated, scaled or rotated."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unpool.errors import OptionError
from unpool.vision.figures import COLORS, add_caption, chart, fit_square, join, write_figure
from unpool.visualize.features import FeatureExtractor, choose_layers, mean_color, read_inputs

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.images import Pixels
    from unpool.visualize.preprocessing import LoadedModel

Kind = Literal["translation", "scale", "rotation"]

TRANSFORMS: tuple[Kind, ...] = get_args(Kind)
"""The transformations of an image."""


class Curves(NamedTuple):
    """The effect of V values of a transformation on P images."""

    values: list[float]  #: pixels downwards, ratio, or degrees counterclockwise
    first: NDArray[np.float64]  #: (P, V) Euclidean distance from the original in the first layer
    top: NDArray[np.float64]  #: (P, V) likewise in the top layer
    probability: NDArray[np.float64] | None  #: (P, V) of the class; None for a model without scores


@dataclass(frozen=True)
class Invariance:
    """The result of `measure_invariance`."""

    images: list[Path]
    failed: dict[str, str]  #: unreadable files, with the reasons
    layers: tuple[str, str]  #: the first and the top layer
    classes: list[int] | None  #: for each image, the class whose probability is given
    curves: dict[Kind, Curves]
    examples: dict[Kind, list["Pixels"]]  #: each image, transformed by a value of the upper range

    def figure(self) -> "Pixels":
        """A row for each transformation: the images, then a chart for each measure."""
        rows, side = [], 180 if len(self.images) == 1 else 86
        captions = [f"distance, {name[-28:]}" for name in self.layers]
        for kind, (values, *distances, probability) in self.curves.items():
            tiles = []
            for i, image in enumerate(self.examples[kind]):  # with the color of its line above
                bar = np.full((4, side, 3), COLORS[i % len(COLORS)], np.uint8)
                tiles.append(np.concatenate([bar, fit_square(image, side)]))
            pairs = [join(tiles[i : i + 2], 1) for i in range(0, len(tiles), 2)]
            cells = [add_caption(join(pairs, 0), _UNITS[kind])]
            measured = zip(distances, captions, strict=True)
            cells += [chart(values, list(lines), caption) for lines, caption in measured]
            if probability is not None:
                cells.append(chart(values, list(probability), "probability of the class", top=1.0))
            rows.append(join(cells, 1, align=0.5))
        return join(rows, 0, 16)

    def to_dict(self) -> dict[str, Any]:
        """All but the images, as plain values."""
        return {
            "images": [str(image) for image in self.images],
            "failed": self.failed,
            "layers": {"first": self.layers[0], "top": self.layers[1]},
            "classes": self.classes,
            "curves": {
                kind: {name: _rounded(values) for name, values in curves._asdict().items()}
                for kind, curves in self.curves.items()
            },
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write `invariance.png` and `invariance.json`; return both paths."""
        return write_figure(Path(folder, "invariance"), self.figure(), self.to_dict())


_UNITS = {
    "translation": "translation, pixels down",
    "scale": "scale, ratio",
    "rotation": "rotation, degrees",
}


def _rounded(values: Any) -> Any:
    """Measured values with six digits; others as they are."""
    if not isinstance(values, np.ndarray):
        return values
    return [[float(f"{v:.6g}") for v in row] for row in values.tolist()]


def transform(
    image: "Pixels", kind: Kind, value: float, fill: tuple[int, int, int] = (128, 128, 128)
) -> "Pixels":
    """Translate, scale or rotate an image about its center, with bilinear interpolation.

    Args:
        image: (H, W, 3) uint8, as the result; for the identity, that has the same values.
        value: pixels downwards, a ratio above 0, or degrees counterclockwise.
        fill: the color beyond the border.

    Raises:
        OptionError: an unknown transformation, or a ratio of 0 or less.

    >>> image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    >>> transform(image, "translation", 1, (0, 0, 0))[:, 0].tolist()
    [[0, 0, 0], [0, 1, 2]]
    """
    if kind not in TRANSFORMS or not math.isfinite(value) or (kind == "scale" and value <= 0):
        raise OptionError(
            f"got {kind} by {value}; wanted one of {', '.join(TRANSFORMS)}, and for a scale a "
            "ratio above 0"
        )
    height, width = image.shape[:2]
    center = (width - 1) / 2, (height - 1) / 2
    angle, ratio = value if kind == "rotation" else 0, value if kind == "scale" else 1
    matrix = cv2.getRotationMatrix2D(center, angle, ratio)
    matrix[1, 2] += value if kind == "translation" else 0
    size = width, height
    warped = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=fill)
    return np.asarray(warped, np.uint8)


def measure_invariance(
    loaded: "LoadedModel",
    images: Sequence[Path],
    layers: Sequence[str] = (),
    *,
    values: Mapping[Kind, Sequence[float]] | None = None,
    label: int | None = None,
    progress: "Progress | None" = None,
) -> Invariance:
    """Transform images, and measure how far that moves their features in two layers.

    The crop that the model sees is transformed, and filled beyond its border with the color that
    becomes zero in the model's input.

    Args:
        images: files; unreadable ones are skipped.
        layers: the first and the top one, names from `list_layers`. When not given, the last before
            maps shrink for the first time, and the last below the scores (see `choose_layers`).
        values: of each transformation, in ascending order. When not given, as in the paper:
            translation by up to 60 of 224 pixels either way (and in proportion for other sizes),
            scale 1 to 1.8, rotation 0 to 360 degrees.
        label: the class whose probability is given; the most probable one of each original image
            when not given. For a segmentation network, the probability is the mean over the image,
            so that this is its largest class, often the background.

    Raises:
        OptionError: no such layer or class, not two layers, or values that are not finite.
        ShapeError, ImageError: the model takes no images of this size, or none can be read.

    Zeiler, Fergus 2014, section 4.1 and figure 5; there the probability is that of the true class.
    """
    if not layers:
        below, last = choose_layers(loaded)
        layers = below[0], last
    if len(layers) != 2:
        raise OptionError(f"got {len(layers)} layers; wanted the first and a top one")
    extract, inputs = FeatureExtractor(loaded, layers), read_inputs(loaded, images)
    given = values or _published(loaded.preprocessing.size)
    ranges = {kind: [float(v) for v in line] for kind, line in given.items()}
    if not all(ranges.values()):
        raise OptionError("got a transformation without values; name some, or leave it out")
    work = len(inputs.crops) * sum(map(len, ranges.values()))
    fill, done = mean_color(loaded), 0
    picked: list[int] = []
    found: dict[Kind, list[NDArray[np.float64]]] = {kind: [] for kind in ranges}
    for path, crop in zip(inputs.images, inputs.crops, strict=True):
        # each goes through the model by itself, since rounding depends on the size of a batch; so
        # the identity gives a distance of exactly 0
        before, scores = extract([crop])
        picked.append(_choose_class(label, scores))
        for kind, line in ranges.items():
            columns = []
            for value in line:
                after, scores = extract([transform(crop, kind, value, fill)])
                moved = [float((after[k].double() - before[k].double()).norm()) for k in before]
                columns.append(moved + ([] if scores is None else [float(scores[0, picked[-1]])]))
                done += 1
                if progress is not None:
                    progress(done, work, f"{kind} of {path.name}")
            found[kind].append(np.array(columns).T)
    curves, examples = {}, {}
    for kind, line in ranges.items():
        first, top, *probability = np.stack(found[kind], 1)
        curves[kind] = Curves(line, first, top, next(iter(probability), None))
        shown = line[3 * len(line) // 4]
        examples[kind] = [transform(crop, kind, shown, fill) for crop in inputs.crops]
    names, classes = (layers[0], layers[1]), None if -1 in picked else picked
    return Invariance(inputs.images, inputs.failed, names, classes, curves, examples)


def _choose_class(label: int | None, scores: Tensor | None) -> int:
    """The given class or the most probable one; -1 for a model without class scores."""
    classes = 0 if scores is None else scores.shape[1]
    if label is not None and not 0 <= label < classes:
        there = f"has classes 0 to {classes - 1}" if classes else "gives no scores of classes"
        raise OptionError(f"got class {label} of a model that {there}; correct it")
    best = -1 if scores is None else int(scores[0].argmax())
    return best if label is None else label


def _published(side: int) -> dict[Kind, list[float]]:
    """The ranges of the paper's figure 5."""
    reach = max(round(60 * side / 224), 1)
    return {
        "translation": sorted({round(reach * i / 12) for i in range(-12, 13)}),
        "scale": [round(1 + 0.05 * i, 2) for i in range(17)],
        "rotation": [15.0 * i for i in range(25)],
    }
