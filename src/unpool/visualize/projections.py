"""Projections of single images, written beside what the network saw."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from unpool.files import write_json
from unpool.vision.drawing import to_images
from unpool.vision.images import write_image
from unpool.visualize.class_scores import SCORE, project_scores, score_layer, score_maps
from unpool.visualize.layers import checked_layers
from unpool.visualize.preprocessing import LoadedModel
from unpool.visualize.projection import Projection, project


class _Sheets(ABC):
    """Writes the projections of an image as PNG files, with one JSON file that describes them."""

    def __init__(self, loaded: LoadedModel, color: bool, options: dict[str, Any]) -> None:
        self.loaded, self.color, self._options = loaded, color, options

    @abstractmethod
    def files(self, stem: Path) -> list[Path]:
        """What `write` may write."""

    @abstractmethod
    def _shown(self, crop: NDArray[np.uint8], stem: Path) -> list[dict[str, Any]]:
        """Write the projections of one image; return a record of each."""

    def write(self, image: NDArray[np.uint8], stem: Path) -> dict[str, Any]:
        """Write the projections of an image, what the network saw of it, and what they show.

        Args:
            image: (H, W, 3) uint8, RGB.
            stem: the path of what is written, without its ending.

        Returns:
            `model`, the `options` that were given, `input`, the path of the square that the network
            saw, and `projections`: of each its `layer`, `unit`, `place` (row and column in the
            map, None for several), `value` (the activation there, or their sum), `box` (x0, y0,
            x1, y1 in the square, what the unit sees) and `file`.

        Raises:
            OptionError: a class that is predicted nowhere in this image, or values that are
                not finite.
        """
        crop = self.loaded.preprocessing.crop(image)
        shown = self._shown(crop, stem)
        write_image(_named(stem, "input.png"), crop)
        record = {
            "model": self.loaded.name,
            "options": self._options,
            "input": str(_named(stem, "input.png")),
            "projections": shown,
        }
        write_json(_named(stem, "json"), record)
        return record

    def _written(self, found: Projection, files: Sequence[Path]) -> None:
        order = self.loaded.preprocessing.order
        for file, drawn in zip(
            files, to_images(found.signal, color=self.color, order=order), strict=True
        ):
            write_image(file, drawn)


class ProjectionWriter(_Sheets):
    """Projects some units of some layers of a model, image by image.

    Args:
        loaded: the model, and how it takes images.
        layers: names from `list_layers`; the last of each stage when not given.
        units: of every layer; the strongest of each image when not given.
        color: show projections in color.
        options: `place`, `rule`, `start`, `overlap`, `lrn` and `activations` of `project`.

    Raises:
        OptionError: no such layer, unit or place, or a function without a rule.
        ShapeError: the model takes no images of this size.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        layers: Sequence[str] = (),
        units: Sequence[int] = (),
        color: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(loaded, color, options)
        self.units = list(dict.fromkeys(units))
        self._layers = checked_layers(loaded, layers, self.units, **options)

    def files(self, stem: Path) -> list[Path]:
        """What `write` will write."""
        units: list[int | None] = [*self.units] or [None]
        shown = [self._file(stem, layer.name, u) for layer, _ in self._layers for u in units]
        return [_named(stem, "input.png"), *shown, _named(stem, "json")]

    def _shown(self, crop: NDArray[np.uint8], stem: Path) -> list[dict[str, Any]]:
        images, records = self.loaded.prepare([crop]), []
        for layer, field in self._layers:
            found = project(
                self.loaded.model, images, layer.name, self.units or None, **self._options
            )
            units = found.units.tolist()
            files = [self._file(stem, layer.name, u if self.units else None) for u in units]
            self._written(found, files)
            for i, (unit, file) in enumerate(zip(units, files, strict=True)):
                place = None if found.places is None else found.places[i].tolist()
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
        name = "%69nput" if layer == "input" else quote(layer, safe="")  # that of what was seen
        return _named(stem, f"{name}{of_unit}.png")


class ScoreWriter(_Sheets):
    """Projects the scores of classes from where they are predicted, image by image.

    Each record has two more entries: `class`, its name, and `share`, the fraction of the
    square where it is predicted.

    Args:
        loaded: a model that segments, and how it takes images.
        classes: by number; all that are predicted in an image but background when not given.
        color: show projections in color.
        options: `rule`, `start`, `overlap`, `lrn` and `activations` of `project`.

    Raises:
        OptionError: no such class, a model that does not segment, or a function without a rule.
        ShapeError: the model takes no images of this size.
    """

    def __init__(
        self, loaded: LoadedModel, classes: Sequence[int] = (), color: bool = True, **options: Any
    ) -> None:
        super().__init__(loaded, color, options)
        self.classes = list(dict.fromkeys(classes))
        trial = loaded.trial_image()
        self._count = score_maps(loaded.model, trial).shape[1]
        ends = [min(classes), max(classes)] if classes else 0
        project(
            score_layer(loaded.model), trial, SCORE, ends, **options
        )  # what is wrong shows at once

    def files(self, stem: Path) -> list[Path]:
        """What `write` may write."""
        shown = [self._file(stem, n) for n in self.classes or range(self._count)]
        return [_named(stem, "input.png"), *shown, _named(stem, "json")]

    def _shown(self, crop: NDArray[np.uint8], stem: Path) -> list[dict[str, Any]]:
        loaded, images = self.loaded, self.loaded.prepare([crop])
        wanted = self.classes or None
        found = project_scores(loaded.model, images, wanted, names=loaded.classes, **self._options)
        units = found.units.tolist()
        files = [self._file(stem, unit) for unit in units]
        self._written(found, files)
        return [
            {
                "layer": SCORE,
                "unit": unit,
                "class": loaded.class_name(unit),
                "share": float(found.regions[i].float().mean()),
                "place": None,
                "value": float(found.values[i]),
                "box": None,
                "file": str(file),
            }
            for i, (unit, file) in enumerate(zip(units, files, strict=True))
        ]

    def _file(self, stem: Path, unit: int) -> Path:
        return _named(stem, f"{SCORE}.{quote(self.loaded.class_name(unit), safe='')}.png")


def _named(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}.{ending}")  # the name may hold dots of its own
