"""Projections of single pictures, written beside what the network saw."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from unpool.files import atomic
from unpool.vision.images import write_image
from unpool.visualize.layers import tried
from unpool.visualize.pictures import draw
from unpool.visualize.project import project
from unpool.visualize.subjects import Subject

__all__ = ["Projector"]


class Projector:
    """Projects some units of some layers of a model, picture by picture.

    Args:
        subject: the model, and how it takes pictures.
        layers: names from `list_layers`; the last of each stage when not given.
        units: of every layer; the strongest of each picture when not given.
        color: show projections in color.
        options: `place`, `rule`, `seed`, `overlap`, `lrn` and `activations` of `project`.

    Raises:
        OptionError: no such layer, unit or place, or a function without a rule.
        ShapeError: the model takes no pictures of this size.
    """

    def __init__(
        self,
        subject: Subject,
        layers: Sequence[str] = (),
        units: Sequence[int] = (),
        color: bool = True,
        **options: Any,
    ) -> None:
        self.subject, self.color = subject, color
        self.units = list(dict.fromkeys(units))
        self._layers = tried(subject, layers, self.units, **options)
        self._options = options

    def files(self, stem: Path) -> list[Path]:
        """What `write` will write."""
        units: list[int | None] = [*self.units] or [None]
        shown = [self._file(stem, layer.name, u) for layer, _ in self._layers for u in units]
        return [_named(stem, "input.png"), *shown, _named(stem, "json")]

    def write(self, image: NDArray[np.uint8], stem: Path) -> dict[str, Any]:
        """Write the projections of a picture, what the network saw of it, and what they show.

        Args:
            image: (H, W, 3) uint8, RGB.
            stem: the path of what is written, without its ending.

        Returns:
            `input`, the path of the square that the network saw, and `projections`: of each its
            `layer`, `unit`, `place` (row and column in the map, None for all of it), `value`
            (the activation there), `box` (x0, y0, x1, y1 in the square, what the unit sees) and
            `file`.
        """
        crop = self.subject.inputs.crop(image)
        write_image(_named(stem, "input.png"), crop)
        shown = [
            record for i in range(len(self._layers)) for record in self._projected(crop, stem, i)
        ]
        record = {"input": str(_named(stem, "input.png")), "projections": shown}
        with atomic(_named(stem, "json")) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return record

    def _projected(self, crop: NDArray[np.uint8], stem: Path, number: int) -> list[dict[str, Any]]:
        layer, field = self._layers[number]
        images = self.subject.prepare([crop])
        wanted = self.units or None
        found = project(self.subject.model, images, layer.name, wanted, **self._options)
        order = self.subject.inputs.order
        records = []
        for i, drawn in enumerate(draw(found.signal, color=self.color, order=order)):
            unit = int(found.units[i])
            place = None if found.places is None else found.places[i].tolist()
            file = self._file(stem, layer.name, unit if self.units else None)
            write_image(file, drawn)
            records.append(
                {
                    "layer": layer.name,
                    "unit": unit,
                    "place": place,
                    "value": float(found.values[i]),
                    "box": None if place is None else list(field.box(*place)),
                    "file": str(file),
                }
            )
        return records

    def _file(self, stem: Path, layer: str, unit: int | None) -> Path:
        of_unit = "" if unit is None else f".{unit}"
        return _named(stem, f"{quote(layer, safe='')}{of_unit}.png")


def _named(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}.{ending}")  # the name may hold dots of its own
