"""What single units draw, and the one that zooms."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unpool.errors import OptionError
from unpool.generate.codes import Style
from unpool.generate.generator import Generator
from unpool.generate.interventions import intervene
from unpool.generate.result import Drawn, clipped, postprocess
from unpool.vision.signals import to_images

VALUES = {
    "fc1": 10.0,
    "fc2": 15.0,
    "fc3": 5.0,
    "fc4": 8.0,
    "fc5": 0.1,
    "stages.0": 10.0,
    "stages.1": 1.0,
}
"""The authors' values of a single unit, by the end of the name of its layer."""


STEPS = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0)
"""What the authors add to the zoom neuron: 5 k, and nothing first."""


class Activated(NamedTuple):
    """What single units draw."""

    layer: str
    units: list[int]
    rgb: Tensor  #: (1 + U, 3, S, S): first of the zero vector, then of each unit
    mask: Tensor  #: (1 + U, C, S, S), likewise
    maps: bool  #: whether the layer has maps, so that a unit reaches a part of the image

    def images(self) -> NDArray[np.uint8]:
        """What each unit draws, (U, h, w, 3) uint8, RGB.

        Of layers without maps, the object on white, as large as images are. Of maps, what they
        add to the colors of the zero vector, zero being mid-gray, cut to what they reach.
        """
        if not self.maps:
            return np.stack([drawn.on("white") for drawn in postprocess(self.rgb, self.mask)[1:]])
        added = self.rgb[1:] - self.rgb[:1]
        reached = added.abs().amax((0, 1)) > 0
        rows, columns = reached.any(1).nonzero(), reached.any(0).nonzero()
        if not len(rows):
            return to_images(added, contrast="linear")
        added = added[:, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        return to_images(added, contrast="linear")


class Zoom(NamedTuple):
    """A unit whose effect is like a zoom."""

    unit: int
    factor: float  #: of the zoom whose change is most like that by the unit
    explained: float  #: fraction of that change that is in proportion to the zoom's, 0 to 1


def count_units(generator: Generator, layer: str) -> int:
    """How many units, or maps, a layer has.

    Raises:
        OptionError: no such layer.
    """
    counted = []

    def count(y: Tensor) -> Tensor:
        counted.append(y.shape[1])
        return y

    codes, _ = generator.codes(0)
    with intervene(generator.model, {layer: count}):
        generator.compute(codes)
    return counted[0]


def activate(
    generator: Generator,
    layer: str,
    units: Sequence[int],
    value: float | None = None,
    *,
    place: tuple[int, int] | None = None,
    azimuth: float = 310.0,
    elevation: float = 30.0,
) -> Activated:
    """Draw what a single unit makes, all others of its layer being zero.

    Args:
        generator: draws.
        layer: of `list_layers`.
        units: of the layer, from 0; of maps, their numbers.
        value: of the unit; the authors' of this layer (`VALUES`) or else 1 when not given.
        place: of a unit of maps, row and column; the authors' when not given, which is just before
            the middle.
        azimuth: the view, which only matters to the branch of the styles.
        elevation: likewise.

    Raises:
        OptionError: no such layer, unit or place.

    Dosovitskiy, Springenberg, Brox 2015, section "Analysis of the network".
    """
    if value is None:
        value = next((v for end, v in VALUES.items() if layer.endswith(end)), 1.0)
    shape: list[int] = []

    def alone(y: Tensor) -> Tensor:
        shape[:] = y.shape[1:]
        found = torch.zeros_like(y)
        where = _place(place, shape, layer)
        for row, unit in enumerate(units, 1):
            if not 0 <= unit < shape[0]:
                raise OptionError(f"got unit {unit} of {layer}; wanted 0 to {shape[0] - 1}")
            found[(row, unit, *where)] = value
        return found

    codes, _ = generator.codes([0] * (1 + len(units)), azimuth, elevation)
    with intervene(generator.model, {layer: alone}):
        rgb, mask = generator.compute(codes, at_once=len(codes.view))
    return Activated(layer, list(units), rgb, mask, len(shape) == 3)


def push(
    generator: Generator,
    style: Style,
    unit: int,
    amounts: Sequence[float] = STEPS,
    *,
    layer: str = "shared.fc4",
    azimuth: float = 310.0,
    elevation: float = 30.0,
) -> list[Drawn]:
    """Draw an object while more and more is added to one unit; by default the authors' steps.

    Args:
        generator: draws.
        style: as of `Generator.view`.
        unit: of the layer, from 0; such as that of `find_zoom`.
        amounts: one an image.
        layer: of `list_layers`, without maps.
        azimuth: the view.
        elevation: likewise.

    Raises:
        OptionError: no such style, layer or unit.
    """
    steps = torch.tensor(list(amounts))

    def pushed(y: Tensor) -> Tensor:
        if y.dim() != 2:
            raise OptionError(f"got layer {layer}, which gives maps; wanted one without")
        if not 0 <= unit < y.shape[1]:
            raise OptionError(f"got unit {unit} of {layer}; wanted 0 to {y.shape[1] - 1}")
        found = y.clone()
        found[:, unit] += steps.to(y)
        return found

    codes, notes = generator.codes([style] * len(steps), azimuth, elevation)
    with intervene(generator.model, {layer: pushed}):
        return postprocess(*generator.compute(codes, at_once=len(codes.view)), notes)


def find_zoom(
    generator: Generator,
    styles: Sequence[Style],
    step: float = 10.0,
    *,
    azimuth: float = 310.0,
    elevation: float = 30.0,
    units: Sequence[int] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Zoom:
    """Find the unit of FC-4 whose effect is nearest a zoom, by measurement.

    While the styles are drawn, `step` is added to the unit, and what that changes is compared with
    what changes where the plain drawings are enlarged about their middle, by factors from 0.5 to 2.
    What counts is the squared cosine between the two (RGB inside the mask, and the mask), so that a
    unit that does little is judged as one that does much.

    Args:
        generator: draws.
        styles: a few.
        step: what is added; by the authors' 5 k, with k = 2.
        azimuth: the view.
        elevation: likewise.
        units: those to look at; all when not given.
        progress: called with how many have been looked at, and their number.

    Raises:
        OptionError: no such style or unit.

    Dosovitskiy, Springenberg, Brox 2015: the "zoom neuron", there unit 28.
    """
    codes, _ = generator.codes(list(styles), azimuth, elevation)
    plain = _shown(*generator.compute(codes))
    factors = [2 ** (k / 8) for k in range(-8, 9) if k]
    zooms = torch.stack([(_enlarged(plain, f) - plain).flatten() for f in factors])
    zooms = F.normalize(zooms, dim=1)
    width: int = generator.model.get_submodule("shared.fc4").out_features  # type: ignore[assignment]
    looked = range(width) if units is None else units
    best = Zoom(looked[0], 1.0, 0.0)
    for done, unit in enumerate(looked, 1):

        def pushed(y: Tensor, unit: int = unit) -> Tensor:
            found = y.clone()
            found[:, unit] += step
            return found

        with intervene(generator.model, {"shared.fc4": pushed}):
            changed = _shown(*generator.compute(codes)) - plain
        cosines = (zooms @ F.normalize(changed.flatten(), dim=0)).clamp_min(0)
        nearest = int(cosines.argmax())
        if (explained := float(cosines[nearest]) ** 2) > best.explained:
            best = Zoom(unit, factors[nearest], explained)
        if progress is not None:
            progress(done, len(looked))
    return best


def _place(place: tuple[int, int] | None, shape: Sequence[int], layer: str) -> tuple[int, ...]:
    if len(shape) == 1:
        if place is not None:
            raise OptionError(f"got the place {place} in {layer}, which has no maps; leave it out")
        return ()
    row, column = place or (shape[1] // 2 - 1, shape[2] // 2 - 1)
    if not (0 <= row < shape[1] and 0 <= column < shape[2]):
        raise OptionError(
            f"got the place {row},{column} in {layer}; its maps are {shape[1]} x {shape[2]}"
        )
    return row, column


def _shown(rgb: Tensor, mask: Tensor) -> Tensor:
    """RGB and mask as they are seen, (N, 4, S, S), colors inside the mask."""
    shown = clipped(rgb, mask)
    shown[:, :3] *= shown[:, 3:]
    return shown


def _enlarged(images: Tensor, factor: float) -> Tensor:
    """Images enlarged about their middle; nothing beyond the border."""
    turn = torch.tensor([[1 / factor, 0.0, 0.0], [0.0, 1 / factor, 0.0]]).expand(len(images), 2, 3)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
