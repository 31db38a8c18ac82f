"""Write the projections of single images, beside the square that the network saw."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from torch import Tensor

from unpool.files import write_json
from unpool.vision.images import Pixels, write_image
from unpool.visualize.activations import SCORE, score_layer
from unpool.visualize.class_scores import project_scores, require_maps
from unpool.visualize.fields import measure_field
from unpool.visualize.projection import choose_units, project, try_out

if TYPE_CHECKING:
    from unpool.visualize.fields import Field
    from unpool.visualize.preprocessing import LoadedModel


class _Writer(ABC):
    """Writes the projections of an image as PNG files, with one JSON file that describes them."""

    def __init__(self, loaded: "LoadedModel", color: bool, options: dict[str, Any]) -> None:
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

    def project(self, image: Pixels) -> tuple[Pixels, list[tuple[str, Pixels, dict[str, Any]]]]:
        """The square of an image that the network sees, and its projections; see `write`.

        Args:
            image: (H, W, 3) uint8, RGB.

        Returns:
            The square, (S, S, 3) uint8, RGB, and for each projection the ending of its file, the
            image, as large as the square, and its record, without `file`.
        """
        crop = self.loaded.preprocessing.crop(image)
        return crop, [*self._project(self.loaded.prepare([crop]))]

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
            OptionError: a class that is predicted nowhere here, or values that are not finite.
        """
        source, shown = _named(stem, "input.png"), []
        crop, projections = self.project(image)
        for ending, projection, facts in projections:
            write_image(file := _named(stem, ending), projection)
            shown.append({**facts, "file": str(file)})
        write_image(source, crop)
        record = {"model": self.loaded.name, "options": self._options, "input": str(source)}
        write_json(_named(stem, "json"), record | {"projections": shown})
        return record | {"projections": shown}


class ProjectionWriter(_Writer):
    """Projects some units of some layers of a model, image by image.

    Args:
        layers: names from `list_layers`; the last of each stage when not given.
        units: of every layer; the strongest of each image when not given.
        fields: see `choose_units`.
        check: try the layers on noise now, so that what cannot be projected is refused before the
            first image; otherwise it is refused there.
        options: `place`, `rule`, `start`, `overlap`, `lrn` and `activations` of `project`.

    Raises:
        OptionError, ShapeError: as `choose_units`.
    """

    def __init__(
        self,
        loaded: "LoadedModel",
        layers: Sequence[str] = (),
        units: Sequence[int] = (),
        color: bool = True,
        fields: "dict[str, Field] | None" = None,
        check: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(loaded, color, options)
        self._fields = {} if fields is None else fields
        self._layers, self._units = [*layers], list(dict.fromkeys(units))
        if check or not layers:
            trial = loaded.trial_image()
            found = choose_units(
                loaded.model, trial, layers, units, lambda _: [], self._fields, **options
            )
            self._layers = [chosen.name for chosen in found]

    def _endings(self) -> list[str]:
        units = self._units or (None,)
        return [_ending(layer, unit) for layer in self._layers for unit in units]

    def _project(self, images: Tensor) -> Iterator[tuple[str, Pixels, dict[str, Any]]]:
        for layer in self._layers:
            units = self._units or None
            found = project(self.loaded.model, images, layer, units, **self._options)
            shown = found.images(self.color, self.loaded.preprocessing.order)
            for i, unit in enumerate(found.units.tolist()):
                place = None if found.places is None else found.places[i].tolist()
                box = None if place is None else list(self._field(layer, images).box(*place))
                facts = {"place": place, "value": float(found.values[i]), "box": box}
                yield (
                    _ending(layer, units and unit),
                    shown[i],
                    {"layer": layer, "unit": unit} | facts,
                )

    def _field(self, layer: str, images: Tensor) -> "Field":
        """The receptive field of a layer, measured once."""
        if layer not in self._fields:
            self._fields[layer] = measure_field(self.loaded.model, images, layer)
        return self._fields[layer]


class ScoreWriter(_Writer):
    """Projects the scores of classes from where they are predicted, image by image.

    Each record has two more entries: `class`, its name, and `fraction`, the fraction of the
    square where it is predicted.

    Args:
        classes: by number; all that are predicted in an image but background when not given.
        check: as of `ProjectionWriter`.
        options: as for `project_scores`.

    Raises:
        OptionError: no such class, a model that does not segment, or a function without a rule.
    """

    def __init__(
        self,
        loaded: "LoadedModel",
        classes: Sequence[int] = (),
        color: bool = True,
        check: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(loaded, color, options)
        self._classes = list(dict.fromkeys(classes))
        if check or not classes:
            trial = loaded.trial_image()
            tried = try_out(score_layer(loaded.model), trial, [SCORE], classes or [0], **options)
            require_maps(tried[SCORE], trial)
            self._count = tried[SCORE][0]

    def _endings(self) -> list[str]:
        return [self._ending(number) for number in self._classes or range(self._count)]

    def _project(self, images: Tensor) -> Iterator[tuple[str, Pixels, dict[str, Any]]]:
        loaded, wanted = self.loaded, self._classes or None
        found = project_scores(loaded.model, images, wanted, names=loaded.classes, **self._options)
        shown = found.images(self.color, loaded.preprocessing.order)
        for i, unit in enumerate(found.units.tolist()):
            fraction = float(found.regions[i].float().mean())
            about = {"class": loaded.class_name(unit), "fraction": fraction}
            facts = {"place": None, "value": float(found.values[i]), "box": None}
            yield self._ending(unit), shown[i], {"layer": SCORE, "unit": unit, **about, **facts}

    def _ending(self, number: int) -> str:
        return f"{SCORE}.{quote(self.loaded.class_name(number), safe='')}.png"


def _ending(layer: str, unit: int | None) -> str:
    # a layer called "input" must not overwrite input.png
    name = "%69nput" if layer == "input" else quote(layer, safe="")
    return f"{name}.png" if unit is None else f"{name}.{unit}.png"


def _named(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}.{ending}")  # not with_suffix: the name may hold dots
