"""What single units of the network generate, and the unit that zooms."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unpool import Progress
from unpool.errors import OptionError, suggest
from unpool.generate.codes import Style
from unpool.generate.generator import Generator
from unpool.generate.result import GeneratedImage, clipped, postprocess
from unpool.vision.drawing import to_images
from unpool.vision.figures import mosaic
from unpool.vision.images import Pixels, write_image

VALUES = {
    "fc1": 10.0,
    "fc2": 15.0,
    "fc3": 5.0,
    "fc4": 8.0,
    "fc5": 0.1,
    "stages.0": 10.0,
    "stages.1": 1.0,
}
"""The authors' values of a single active unit, by the end of the name of its layer."""

STEPS = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0)
"""What the authors add to the zoom neuron: 5 k, and nothing first."""

Intervention: TypeAlias = Callable[[Tensor], Tensor]
"""Called with the activations of a layer, after its ReLU; returns their replacement."""


class UnitImages(NamedTuple):
    """What single units generate, each with all other units of its layer at zero."""

    layer: str
    units: list[int]
    rgb: Tensor  #: (1 + U, 3, S, S): first for the zero vector, then for each unit
    mask: Tensor  #: (1 + U, C, S, S), likewise
    maps: bool  #: whether the layer has maps, so that a unit affects only a part of the image

    def images(self) -> Pixels:
        """An image for each unit, (U, h, w, 3) uint8, RGB.

        For layers without maps, the object on white, of full size. For maps, the change of the
        colors against the zero vector, with zero as mid-gray, cropped to what units affect.
        """
        if not self.maps:
            return np.stack([image.on("white") for image in postprocess(self.rgb, self.mask)[1:]])
        change = self.rgb[1:] - self.rgb[:1]
        affected = change.abs().amax((0, 1)) > 0
        rows, columns = affected.any(1).nonzero(), affected.any(0).nonzero()
        if len(rows):
            change = change[:, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        return to_images(change, contrast="linear")

    def save(self, path: str | Path, *, columns: int = 8) -> Path:
        """Write the images as one sheet, an image file; returns its path."""
        write_image(Path(path), mosaic(self.images(), columns))
        return Path(path)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the layer and its units."""
        return {"layer": self.layer, "units": list(self.units), "maps": self.maps}


class ZoomUnit(NamedTuple):
    """A unit whose effect resembles a zoom."""

    unit: int
    factor: float  #: of the zoom that its effect resembles most
    explained: float  #: fraction of the effect that this zoom explains, 0 to 1

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return self._asdict()


def list_layers(model: nn.Module) -> list[str]:
    """The layers whose activations can be set, in order: fc1 to fc5, and the stages of streams."""
    return [
        name
        for name, _ in model.named_modules()
        if name.rpartition(".")[2] in ("fc1", "fc2", "fc3", "fc4", "fc5")
        or (name.rpartition(".")[0].endswith("stages") and name.rpartition(".")[2].isdecimal())
    ]


@contextmanager
def intervene(model: nn.Module, interventions: Mapping[str, Intervention]) -> Iterator[None]:
    """Replace activations during the forward pass; the network is left unchanged afterwards.

    Args:
        model: any module.
        interventions: by the name of a layer, see `list_layers`.

    Raises:
        OptionError: no such layer.

    >>> net = torch.nn.Sequential()
    >>> net.add_module("fc1", torch.nn.Identity())
    >>> with intervene(net, {"fc1": torch.zeros_like}):
    ...     net(torch.ones(2))
    tensor([0., 0.])
    """
    handles = []
    try:
        for layer, change in interventions.items():
            module = _rectified(model, layer)

            def hook(_: nn.Module, __: object, y: Tensor, change: Intervention = change) -> Tensor:
                return change(y)

            handles.append(module.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def count_units(generator: Generator, layer: str) -> int:
    """The number of units, or maps, of a layer.

    Raises:
        OptionError: no such layer.
    """
    counted = []

    def count(y: Tensor) -> Tensor:
        counted.append(y.shape[1])
        return y

    codes, _ = generator.encode(0)
    with intervene(generator.model, {layer: count}):
        generator.predict(codes)
    return counted[0]


def activate_units(
    generator: Generator,
    layer: str,
    units: Sequence[int],
    value: float | None = None,
    *,
    position: tuple[int, int] | None = None,
    azimuth: float = 310.0,
    elevation: float = 30.0,
) -> UnitImages:
    """Generate an image from each unit alone, with all other units of its layer at zero.

    Args:
        generator: the network.
        layer: see `list_layers`.
        units: their indices; of maps, the channels.
        value: of the active unit; the authors' for this layer (`VALUES`), or else 1, by default.
        position: row and column of the active unit in a map; by default the authors', just before
            the middle.
        azimuth: of the view, in degrees; it matters only for layers of the style branch.
        elevation: likewise.

    Raises:
        OptionError: no such layer, unit or position.

    Dosovitskiy, Springenberg & Brox 2015, section "Analysis of the network".
    """
    if value is None:
        value = next((v for end, v in VALUES.items() if layer.endswith(end)), 1.0)
    shape: list[int] = []

    def alone(y: Tensor) -> Tensor:
        shape[:] = y.shape[1:]
        replaced = torch.zeros_like(y)
        where = _position(position, shape, layer)
        for row, unit in enumerate(units, 1):
            _require_unit(unit, shape[0], layer)
            replaced[(row, unit, *where)] = value
        return replaced

    codes, _ = generator.encode([0] * (1 + len(units)), azimuth, elevation)
    with intervene(generator.model, {layer: alone}):
        rgb, mask = generator.predict(codes, batch=len(codes.view))
    return UnitImages(layer, list(units), rgb, mask, len(shape) > 1)


def push_unit(
    generator: Generator,
    style: Style,
    unit: int,
    amounts: Sequence[float] = STEPS,
    *,
    layer: str = "shared.fc4",
    azimuth: float = 310.0,
    elevation: float = 30.0,
) -> list[GeneratedImage]:
    """Generate an object while growing amounts are added to one unit.

    Args:
        generator: the network.
        style: as for `Generator.view`.
        unit: its index in the layer, such as that of `find_zoom_unit`.
        amounts: one per image; by default the authors' steps.
        layer: see `list_layers`; one without maps.
        azimuth: of the view, in degrees.
        elevation: likewise.

    Raises:
        OptionError: no such style, layer or unit.
    """
    steps = torch.tensor(list(amounts))

    def pushed(y: Tensor) -> Tensor:
        if y.dim() != 2:
            raise OptionError(f"got layer {layer}, which has maps; wanted one without")
        _require_unit(unit, y.shape[1], layer)
        replaced = y.clone()
        replaced[:, unit] += steps.to(y)
        return replaced

    codes, notes = generator.encode([style] * len(steps), azimuth, elevation)
    with intervene(generator.model, {layer: pushed}):
        return postprocess(*generator.predict(codes, batch=len(codes.view)), notes)


def find_zoom_unit(
    generator: Generator,
    styles: Sequence[Style],
    step: float = 10.0,
    *,
    azimuth: float = 310.0,
    elevation: float = 30.0,
    units: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> ZoomUnit:
    """Find the unit of FC-4 whose effect resembles a zoom most, by measurement.

    For each unit, `step` is added to it, and the change of the images is compared with the change
    when the unmodified images are enlarged about their center, by factors from 0.5 to 2. The score
    is the squared cosine similarity of the two changes (RGB inside the mask, and the mask), which
    does not depend on the strength of the effect.

    Args:
        generator: the network.
        styles: a few.
        step: the amount that is added; the authors' 5 k for k = 2 by default.
        azimuth: of the view, in degrees.
        elevation: likewise.
        units: the candidates; all by default.
        progress: called with units done, units in total, and "units".

    Raises:
        OptionError: no such style or unit.

    Dosovitskiy, Springenberg & Brox 2015: the "zoom neuron", unit 28 in their network.
    """
    codes, _ = generator.encode(list(styles), azimuth, elevation)
    plain = _shown(*generator.predict(codes))
    factors = [2 ** (k / 8) for k in range(-8, 9) if k]
    zooms = torch.stack([(_enlarged(plain, f) - plain).flatten() for f in factors])
    zooms = F.normalize(zooms, dim=1)
    width: int = generator.model.get_submodule("shared.fc4").out_features  # type: ignore[assignment]
    candidates = range(width) if units is None else units
    best = ZoomUnit(candidates[0], 1.0, 0.0)
    for done, unit in enumerate(candidates, 1):

        def pushed(y: Tensor, unit: int = unit) -> Tensor:
            replaced = y.clone()
            replaced[:, unit] += step
            return replaced

        with intervene(generator.model, {"shared.fc4": pushed}):
            change = _shown(*generator.predict(codes)) - plain
        cosines = (zooms @ F.normalize(change.flatten(), dim=0)).clamp_min(0)
        nearest = int(cosines.argmax())
        if (explained := float(cosines[nearest]) ** 2) > best.explained:
            best = ZoomUnit(unit, factors[nearest], explained)
        if progress is not None:
            progress(done, len(candidates), "units")
    return best


def _rectified(model: nn.Module, layer: str) -> nn.Module:
    """The module that outputs the activations of a layer: itself, or the ReLU after it."""
    if layer not in dict(model.named_modules()) or not layer:
        raise OptionError(f"got layer {layer!r}; {suggest(layer, list_layers(model))}")
    parent, _, name = layer.rpartition(".")
    siblings = list(model.get_submodule(parent).named_children())
    place = [child for child, _ in siblings].index(name)
    following = siblings[place + 1][1] if place + 1 < len(siblings) else None
    return following if isinstance(following, nn.ReLU) else siblings[place][1]


def _require_unit(unit: int, count: int, layer: str) -> None:
    if not 0 <= unit < count:
        raise OptionError(f"got unit {unit} of {layer}; wanted 0 to {count - 1}")


def _position(
    position: tuple[int, int] | None, shape: Sequence[int], layer: str
) -> tuple[int, ...]:
    if len(shape) == 1:
        if position is not None:
            raise OptionError(
                f"got position={position} in {layer}, which has no maps; leave it out"
            )
        return ()
    row, column = position or (shape[1] // 2 - 1, shape[2] // 2 - 1)
    if not (0 <= row < shape[1] and 0 <= column < shape[2]):
        raise OptionError(
            f"got position={(row, column)} in {layer}; wanted one inside its maps of "
            f"{shape[1]} x {shape[2]}"
        )
    return row, column


def _shown(rgb: Tensor, mask: Tensor) -> Tensor:
    """RGB inside the mask, and the mask, both clipped: (N, 4, S, S)."""
    shown = clipped(rgb, mask)
    shown[:, :3] *= shown[:, 3:]
    return shown


def _enlarged(images: Tensor, factor: float) -> Tensor:
    """Images enlarged about their center; zero beyond the border."""
    matrix = torch.tensor([[1 / factor, 0.0, 0.0], [0.0, 1 / factor, 0.0]])
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
