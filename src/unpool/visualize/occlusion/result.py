"""What occlusion finds: maps of the stops, as a figure and as numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unpool.errors import ShapeError
from unpool.vision.drawing import to_images
from unpool.vision.figures import Tile, write_figure
from unpool.visualize.occlusion.heatmaps import heat_panel, kind_panels, outlined, sheet
from unpool.visualize.occlusion.window import Windows
from unpool.visualize.projection import Projection


@dataclass(frozen=True)
class Occlusion:
    """What `occlude` gives: maps of (rows, columns) stops, and the same without an occluder."""

    windows: Windows  #: where the occluder stopped
    target: int  #: the class that `values` are of
    value: float  #: its probability or score without an occluder
    values: Tensor  #: (rows, columns) float32
    label: int  #: the most probable class without an occluder
    labels: Tensor  #: (rows, columns) int64
    layer: str | None = None
    unit: int | None = None  #: the map of that layer that `totals` are of
    total: float | None = None  #: the sum of that map without an occluder
    totals: Tensor | None = None  #: (rows, columns) float64
    projection: Projection | None = None  #: of that map, whole
    unprojected: str = ""  #: if it could not be projected, why
    incremental: bool = False  #: whether only what the occluder changes was computed again
    note: str = ""  #: if not, why

    @property
    def drop(self) -> Tensor:
        """How far each pixel, hidden, lowers the value: (H, W) float64.

        The mean over the stops that hide it, as Captum's `Occlusion` attributes it.
        """
        return self.windows.spread(self.value - self.values.double())

    def to_dict(self) -> dict[str, Any]:
        """All that was found, as plain values."""
        best = int(self.values.argmin())
        return {
            "size": list(self.windows.size),
            "occluder": list(self.windows.window),
            "stride": list(self.windows.stride),
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
        self,
        image: NDArray[np.uint8],
        names: Sequence[str] = (),
        order: Literal["RGB", "BGR"] = "RGB",
    ) -> list[Tile]:
        """The panels of the paper's figure 7: images with captions.

        Args:
            image: that was looked at, (H, W, 3) uint8, RGB.
            names: of the classes, by their numbers; numbers are shown where there are none.
            order: of the colors that the network takes.

        Returns:
            The image with the outline of an occluder; if a layer was named, the activity of its
            strongest map and, where there is one, its projection; the value of the class; the most
            probable class, and its legend.
        """
        if image.shape != (*self.windows.size, 3):
            raise ShapeError(
                f"got an image of {image.shape} for maps of {self.windows.size}; pass the "
                "square that the network saw, such as Preprocessing.crop gives"
            )
        name = names[self.target] if self.target < len(names) else f"class {self.target}"
        found = [(outlined(image, self.windows), "image, and an occluder")]
        if self.totals is not None:
            found.append(heat_panel(self.totals, self.windows, "activity"))
        if self.projection is not None:
            shown = to_images(self.projection.signal, order=order)[0]
            found.append((shown, f"map {self.unit} of {self.layer}, projected"))
        found.append(heat_panel(self.values, self.windows, name))
        return [*found, *kind_panels(self.labels, self.windows, names)]

    def save(
        self,
        stem: str | Path,
        image: NDArray[np.uint8],
        names: Sequence[str] = (),
        order: Literal["RGB", "BGR"] = "RGB",
    ) -> list[Path]:
        """Write STEM.png, the figure, and STEM.json, all that was found.

        Args:
            stem: the path of what is written, without its ending.
            image: see `panels`, as the other arguments.

        Returns:
            Both paths.
        """
        shown = sheet(self.panels(image, names, order))
        return write_figure(stem, shown, self.to_dict())
