"""Write the projections of single images, beside the square that the network saw."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from torch import Tensor

from unpool.files import write_json
from unpool.vision.images import Pixels, write_image
from unpool.visualize.activations import SCORE, score_layer
from unpool.visualize.class_scores import project_scores, score_maps
from unpool.visualize.preprocessing import LoadedModel
from unpool.visualize.projection import choose_units, project


class _Writer(ABC):
    """Writes the projections of an image as PNG files, with one JSON file that describes them."""

    def __init__(self, loaded: LoadedModel, color: bool, options: dict[str, Any]) -> None:
        self.loaded, self.color, self._options = loaded, color, options

    @abstractmethod
    def _endings(self) -> list[str]:
        """The endings of the files that projections may be written to."""

    @abstractmethod
    def _project(self, images: Tensor) -> Iterator[tuple[str, Pixels, dict[str, Any]]]:
        """For each projection, its file's ending, the image and its record."""

    def files(self, stem: Path) -> list[Path]:
        """All files that `write` may write."""
        return [_named(stem, ending) for ending in ("input.png", *self._endings(), "json")]

    def write(self, image: Pixels, stem: Path) -> dict[str, Any]:
        """Write the projections of an image, what the network saw of it, and a description.

        Args:
            image: (H, W, 3) uint8, RGB.
            stem: the path of the files, without their endings.

        Returns:
            `model`, the `options` that were given, `input`, the path of the square that the network
            saw, and `projections`: of each its `layer`, `unit`, `place` (row and column in the
            map, None for several), `value` (the activation there, or their sum), `box` (x0, y0,
            x1, y1 in the square, the receptive field) and `file`.

        Raises:
            OptionError: a class that is predicted nowhere in this image, or values that are
                not finite.
        """
        crop = self.loaded.preprocessing.crop(image)
        shown = []
        for ending, projection, facts in [*self._project(self.loaded.prepare([crop]))]:
            write_image(file := _named(stem, ending), projection)
            shown.append({**facts, "file": str(file)})
        write_image(source := _named(stem, "input.png"), crop)
        record = {
            "model": self.loaded.name,
            "options": self._options,
            "input": str(source),
            "projections": shown,
        }
        write_json(_named(stem, "json"), record)
        return record


class ProjectionWriter(_Writer):
    """Projects some units of some layers of a model, image by image.

    Args:
        loaded: the model with its preprocessing.
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
        trial = loaded.trial_image()
        self._layers = choose_units(loaded.model, trial, layers, units, lambda _: [], **options)

    def _endings(self) -> list[str]:
        endings = []
        for layer, _, units in self._layers:
            named: list[int | None] = [*units] or [None]
            endings += [_ending(layer.name, unit) for unit in named]
        return endings

    def _project(self, images: Tensor) -> Iterator[tuple[str, Pixels, dict[str, Any]]]:
        model, order = self.loaded.model, self.loaded.preprocessing.order
        for layer, field, chosen in self._layers:
            found = project(model, images, layer.name, chosen or None, **self._options)
            shown = found.images(self.color, order)
            for i, (unit, value) in enumerate(zip(found.units.tolist(), found.values, strict=True)):
                place = None if found.places is None else found.places[i].tolist()
                facts = {
                    "layer": layer.name,
                    "unit": unit,
                    "place": place,
                    "value": float(value),
                    "box": None if place is None else list(field.box(*place)),
                }
                yield _ending(layer.name, unit if chosen else None), shown[i], facts


class ScoreWriter(_Writer):
    """Projects the scores of classes from where they are predicted, image by image.

    Each record has two more entries: `class`, its name, and `fraction`, the fraction of the
    square where it is predicted.

    Args:
        loaded: a segmentation network with its preprocessing.
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
        self._classes = list(dict.fromkeys(classes))
        trial = loaded.trial_image()
        self._count = score_maps(loaded.model, trial).shape[1]
        ends = [min(classes), max(classes)] if classes else 0
        project(score_layer(loaded.model), trial, SCORE, ends, **options)  # refuses bad options now

    def _endings(self) -> list[str]:
        return [self._ending(number) for number in self._classes or range(self._count)]

    def _project(self, images: Tensor) -> Iterator[tuple[str, Pixels, dict[str, Any]]]:
        loaded, wanted = self.loaded, self._classes or None
        found = project_scores(loaded.model, images, wanted, names=loaded.classes, **self._options)
        shown = found.images(self.color, loaded.preprocessing.order)
        for i, (unit, value) in enumerate(zip(found.units.tolist(), found.values, strict=True)):
            facts = {
                "layer": SCORE,
                "unit": unit,
                "class": loaded.class_name(unit),
                "fraction": float(found.regions[i].float().mean()),
                "place": None,
                "value": float(value),
                "box": None,
            }
            yield self._ending(unit), shown[i], facts

    def _ending(self, number: int) -> str:
        return f"{SCORE}.{quote(self.loaded.class_name(number), safe='')}.png"


def _ending(layer: str, unit: int | None) -> str:
    # a layer called "input" must not overwrite input.png
    name = "%69nput" if layer == "input" else quote(layer, safe="")
    return f"{name}.png" if unit is None else f"{name}.{unit}.png"


def _named(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}.{ending}")  # not with_suffix: the name may hold dots
