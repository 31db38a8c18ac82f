"""Results of occlusion: a value for each position of the occluder, as numbers and as a figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from unpool.errors import ShapeError
from unpool.vision.drawing import heat_map, outline, overlay
from unpool.vision.figures import Tile, contact_sheet, legend, scale_to, write_figure
from unpool.vision.images import Labels, Pixels, voc_palette

if TYPE_CHECKING:
    from unpool.visualize.occlusion.window import Windows
    from unpool.visualize.projection import Projection

_KINDS = np.array(
    [
        *((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167)),
        *((86, 180, 233), (213, 94, 0), (240, 228, 66), (60, 60, 60)),
        (190, 190, 190),  # all further classes
    ],
    np.uint8,
)
"""Colors distinguishable by color-blind readers (Okabe, Ito 2008)."""
_LEGEND = 400  # pixels


@dataclass(frozen=True)
class Occlusion:
    """The result of `occlude`: maps over (rows, columns) positions, and the unoccluded values."""

    windows: "Windows"  #: the positions
    target: int  #: the class that `values` are of
    value: float  #: its probability or score without an occluder
    values: Tensor  #: (rows, columns) float32
    label: int  #: the most probable class without an occluder
    labels: Tensor  #: (rows, columns) int64
    layer: str | None = None
    unit: int | None = None  #: the feature map of that layer that `totals` are of
    total: float | None = None  #: the sum of that map without an occluder
    totals: Tensor | None = None  #: (rows, columns) float64
    projection: "Projection | None" = None  #: of that whole map
    unprojected: str = ""  #: why there is no projection, if the rule did not allow one
    incremental: bool = False  #: whether only the changed part of each map was recomputed
    note: str = ""  #: if not, why

    @property
    def drop(self) -> Tensor:
        """How much occlusion of each pixel lowers the value: (H, W) float64.

        The mean over the positions that cover the pixel, as Captum's `Occlusion` attributes it.
        """
        return self.windows.spread(self.value - self.values.double())

    def to_dict(self) -> dict[str, Any]:
        """All results as plain values."""
        best = int(self.values.argmin())
        return {
            **self.windows.to_dict(),
            "class": self.target,
            "value": self.value,
            "lowest": float(self.values.min()),
            "lowest_box": list(self.windows.boxes()[best]),
            "label": self.label,
            "layer": self.layer,
            "unit": self.unit,
            "total": self.total,
            "exact incremental": "yes" if self.incremental else "no",
            "note": self.note,
            "unprojected": self.unprojected,
            "values": self.values.tolist(),
            "labels": self.labels.tolist(),
            "totals": None if self.totals is None else self.totals.tolist(),
        }

    def panels(
        self, image: Pixels, names: Sequence[str] = (), order: Literal["RGB", "BGR"] = "RGB"
    ) -> list[Tile]:
        """The panels of the paper's figure 7: images with captions.

        These are the image with the outline of an occluder; if a layer was named, the activity of
        its strongest map and the projection of that; the value of the class; the most probable
        class, and its legend.

        Args:
            image: the image that was occluded, (H, W, 3) uint8, RGB.
            names: of the classes; classes without a name are shown by number.
            order: of the network's color channels.
        """
        found = [outline_panel(image, self.windows)]
        if self.totals is not None:
            found.append(heat_panel(self.totals, self.windows, "activity"))
        if self.projection is not None:
            caption = f"map {self.unit} of {self.layer}, projected"
            found.append((self.projection.images(order=order)[0], caption))
        found.append(heat_panel(self.values, self.windows, _class_name(names, self.target)))
        return [*found, *kind_panels(self.labels, self.windows, names)]

    def save(
        self,
        stem: str | Path,
        image: Pixels,
        names: Sequence[str] = (),
        order: Literal["RGB", "BGR"] = "RGB",
    ) -> list[Path]:
        """Write STEM.png, the `panels`, and STEM.json, all results; gives both paths."""
        return write_figure(stem, sheet(self.panels(image, names, order)), self.to_dict())


@dataclass(frozen=True)
class RegionOcclusion:
    """The result of `occlude_region`: how much of a region is still found at every position."""

    windows: "Windows"  #: the positions
    target: int  #: the class of the region
    labels: Labels  #: (H, W), the label map without an occluder
    iou: Tensor
    """(rows, columns) float64, 0 to 1, of the region with and without the occluder, over the pixels
    outside of it; NaN where the occluder covers all of both."""

    @property
    def drop(self) -> Tensor:
        """How much occlusion of each pixel lowers the IoU: (H, W) float64, see `Windows.spread`."""
        return self.windows.spread(1 - self.iou)

    def to_dict(self) -> dict[str, Any]:
        """All results as plain values; null where there is no IoU."""
        lowest = int(self.iou.nan_to_num(2).argmin())
        iou = [[v if math.isfinite(v) else None for v in row] for row in self.iou.tolist()]
        return {
            **self.windows.to_dict(),
            "class": self.target,
            "fraction": float((self.labels == self.target).mean()),
            "lowest": iou[lowest // len(iou[0])][lowest % len(iou[0])],
            "lowest_box": list(self.windows.boxes()[lowest]),
            "iou": iou,
        }

    def panels(self, image: Pixels, names: Sequence[str] = ()) -> list[Tile]:
        """The image with the outline of an occluder, its labels, and the IoU at every position.

        The arguments are those of `Occlusion.panels`.
        """
        first = outline_panel(image, self.windows)
        classes = np.union1d([0], self.labels)  # ranks, since an overlay has numbers below 256
        shown = [names[k] if k < len(names) else str(k) for k in classes.tolist()]
        ranks = np.minimum(np.searchsorted(classes, self.labels), 255)
        labeled = overlay(image, ranks, voc_palette()[classes[:256] % 256], shown)
        caption = f"IoU of {_class_name(names, self.target)}"
        return [first, (labeled, "labels"), heat_panel(self.iou, self.windows, caption)]

    def save(self, stem: str | Path, image: Pixels, names: Sequence[str] = ()) -> list[Path]:
        """Write STEM.png, the `panels`, and STEM.json, all results; gives both paths."""
        return write_figure(stem, sheet(self.panels(image, names)), self.to_dict())


def heat_panel(values: Tensor, windows: "Windows", caption: str) -> Tile:
    """Show values (rows, columns) of positions, dark where low, with their range in the caption.

    Each pixel has the value of the position with the nearest center; NaN is gray.

    >>> from unpool.visualize.occlusion.window import Windows
    >>> windows = Windows((4, 6), (2, 2), (2, 2))
    >>> shown, caption = heat_panel(Tensor([[0, 1, 2], [3, 4, 5]]), windows, "sum")
    >>> shown.shape, caption
    ((4, 6, 3), 'sum: 0 (dark) to 5')
    """
    found = np.asarray(values, np.float64)
    known = found[np.isfinite(found)]
    low, high = (float(f(known)) if known.size else 0.0 for f in (np.min, np.max))
    ends = f"{_number(low)} (dark) to {_number(high)}"
    return _enlarged(heat_map(found), windows), f"{caption}: {ends}"


def kind_panels(labels: Tensor, windows: "Windows", names: Sequence[str]) -> list[Tile]:
    """Show classes (rows, columns) of positions, and a legend, the most frequent first."""
    found = np.asarray(labels)
    kinds, where, counts = np.unique(found, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    ranks, own = np.argsort(order), len(_KINDS) - 1  # classes with a color of their own
    shown = _KINDS[np.minimum(ranks[where.reshape(found.shape)], own)]
    titles = [
        f"{_class_name(names, k)}, {counts[i] / found.size:.0%}"
        for i, k in zip(order.tolist(), kinds[order].tolist(), strict=True)
    ]
    if len(titles) > own:
        rest = counts[order[own:]].sum() / found.size
        titles[own:] = [f"{len(titles) - own} others, {rest:.0%}"]
    white = np.full((_LEGEND, _LEGEND, 3), 255, np.uint8)
    keys = legend(white, list(zip(_KINDS.tolist(), titles, strict=False)), size=24)
    return [(_enlarged(shown, windows), "most probable class"), (keys, "fraction of positions")]


def _class_name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else f"class {number}"


def outline_panel(image: Pixels, windows: "Windows") -> Tile:
    """An image with the outline of the occluder at the middle position."""
    if image.shape != (*windows.size, 3):
        raise ShapeError(
            f"got an image of {image.shape} for maps of {windows.size}; pass the image that was "
            "occluded, such as Preprocessing.crop gives"
        )
    rows, columns = windows.shape
    middle = windows.boxes()[(rows - 1) // 2 * columns + (columns - 1) // 2]
    return outline(image, middle), "image and occluder"


def sheet(panels: Sequence[Tile]) -> Pixels:
    """The panels as one figure, three a row."""
    shown = [(scale_to(image, max(_LEGEND, *image.shape[:2])), text) for image, text in panels]
    return contact_sheet(shown, min(len(shown), 3))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _enlarged(colors: Pixels, windows: "Windows") -> Pixels:
    rows, columns = (windows.nearest(axis).numpy() for axis in (0, 1))
    return colors[rows][:, columns]
