"""The inside of the network: single units, the unit that zooms, cells of maps, learned filters."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from unpool.errors import OptionError, suggest
from unpool.generate.result import GeneratedImage, clipped, postprocess
from unpool.vision.drawing import to_images
from unpool.vision.figures import mosaic
from unpool.vision.images import Pixels, write_image

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.generate.generator import Generator, Style

VALUES = {"fc1": 10.0, "fc2": 15.0, "fc3": 5.0, "fc4": 8.0, "fc5": 0.1} | {
    "stages.0": 10.0,
    "stages.1": 1.0,
}
"""The authors' activations of a single unit, by the end of the name of its layer."""

STEPS = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0)
"""The amounts that the authors add to the zoom neuron, 5 k."""

PATTERNS = ("center-2", "center-4", "center-6", "center-8", "border", "checkerboard", "other")
"""Names of sets of cells of the 8 x 8 maps; "other" is the complement of "checkerboard"."""

Intervention: TypeAlias = Callable[[Tensor], Tensor]
"""Called with the activations of a layer, after its ReLU; returns their replacement."""


class UnitImages(NamedTuple):
    """Outputs for single units, each with all other units of its layer at zero."""

    layer: str
    units: list[int]
    rgb: Tensor  #: (1 + U, 3, S, S): first for the zero vector, then for each unit
    mask: Tensor  #: (1 + U, C, S, S), likewise
    maps: bool  #: whether the layer has maps, where a unit affects only a part of the image

    def images(self) -> Pixels:
        """An image for each unit, (U, h, w, 3) uint8, RGB.

        For layers without maps, the object on white, of full size. For maps, the change of the
        colors against the zero vector, with zero as mid-gray, cropped to what units affect.
        """
        if not self.maps:
            return np.stack([image.on() for image in postprocess(self.rgb, self.mask)[1:]])
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
        """The layer and its units as plain values."""
        return {"layer": self.layer, "units": list(self.units), "maps": self.maps}


class ZoomUnit(NamedTuple):
    """A unit whose effect resembles a zoom."""

    unit: int
    factor: float  #: of the zoom that its effect resembles most
    explained: float  #: fraction of the effect that this zoom explains, 0 to 1


def list_layers(model: nn.Module) -> list[str]:
    """The layers whose activations can be set, in order: fc1 to fc5, and the stages of streams."""
    known = re.compile(r"(.*\.)?(fc[1-5]|stages\.\d+)")
    return [name for name, _ in model.named_modules() if known.fullmatch(name)]


@contextmanager
def intervene(model: nn.Module, interventions: Mapping[str, Intervention]) -> Iterator[None]:
    """Replace activations of layers, see `list_layers`, in the forward passes of the context.

    Raises:
        OptionError: no such layer.

    >>> net = torch.nn.Sequential()
    >>> net.add_module("fc1", torch.nn.Identity())
    >>> with intervene(net, {"fc1": torch.zeros_like}):
    ...     net(torch.ones(2))
    tensor([0., 0.])
    """
    with ExitStack() as hooks:
        for layer, change in interventions.items():
            register = _rectified(model, layer).register_forward_hook
            hooks.enter_context(register(lambda _, __, y, change=change: change(y)))
        yield


def count_units(generator: "Generator", layer: str) -> int:
    """The number of units, or maps, of a layer.

    Raises:
        OptionError: no such layer.
    """
    seen: list[Tensor] = []
    with _rectified(generator.model, layer).register_forward_hook(lambda *x: seen.append(x[2])):
        generator.predict(generator.encode(0)[0])
    return seen[0].shape[1]


def activate_units(
    generator: "Generator",
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
        layer: see `list_layers`.
        units: their indices; of maps, the channels.
        value: of the active unit; by default the authors' for this layer (`VALUES`), or else 1.
        position: row and column in a map; by default the authors', just before the middle.
        azimuth, elevation: of the view, in degrees; they matter only in the style branch.

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
        where = _position(position, shape[1:], layer)
        for row, unit in enumerate(units, 1):
            _require_unit(unit, shape[0], layer)
            replaced[(row, unit, *where)] = value
        return replaced

    codes, _ = generator.encode([0] * (1 + len(units)), azimuth, elevation)
    with intervene(generator.model, {layer: alone}):
        rgb, mask = generator.predict(codes, batch=len(codes.view))
    return UnitImages(layer, list(units), rgb, mask, len(shape) > 1)


def push_unit(
    generator: "Generator",
    style: "Style",
    unit: int,
    amounts: Sequence[float] = STEPS,
    *,
    layer: str = "shared.fc4",
    azimuth: float = 310.0,
    elevation: float = 30.0,
) -> list[GeneratedImage]:
    """Generate an object while growing amounts are added to one unit.

    Args:
        unit: its index in the layer, such as that of `find_zoom_unit`.
        amounts: one per image; by default the authors' steps.
        layer: see `list_layers`; one without maps.

    Raises:
        OptionError: no such style, layer or unit.
    """
    change = {layer: _add(torch.tensor(list(amounts)), unit, layer)}
    return _generate(generator, change, [style] * len(amounts), azimuth, elevation)


def find_zoom_unit(
    generator: "Generator",
    styles: Sequence["Style"],
    step: float = 10.0,
    *,
    azimuth: float = 310.0,
    elevation: float = 30.0,
    units: Sequence[int] | None = None,
    progress: "Progress | None" = None,
) -> ZoomUnit:
    """Find the unit of FC-4 whose effect resembles a zoom most, by measurement.

    For each unit, `step` is added to it, and the change of the images is compared with the change
    when the unmodified images are enlarged about their center, by factors from 0.5 to 2. The score
    is the squared cosine similarity of the two changes (RGB inside the mask, and the mask), which
    does not depend on the strength of the effect.

    Args:
        step: the amount that is added; the authors' 5 k for k = 2 by default.
        units: the candidates; all by default.

    Raises:
        OptionError: no such style or unit.

    Dosovitskiy, Springenberg & Brox 2015: the "zoom neuron", unit 28 in their network.
    """
    layer = "shared.fc4"
    codes, _ = generator.encode(list(styles), azimuth, elevation)
    plain = _shown(*generator.predict(codes))
    factors = [2 ** (k / 8) for k in range(-8, 9) if k]  # eighths of an octave; 1 changes nothing
    changes = torch.stack([(_enlarged(plain, f) - plain).flatten() for f in factors])
    zooms = F.normalize(changes, dim=1)
    candidates = range(count_units(generator, layer)) if units is None else units
    best = ZoomUnit(candidates[0], 1.0, 0.0)
    for done, unit in enumerate(candidates, 1):
        with intervene(generator.model, {layer: _add(torch.tensor(step), unit, layer)}):
            change = _shown(*generator.predict(codes)) - plain
        cosines = (zooms @ F.normalize(change.flatten(), dim=0)).clamp_min(0)
        nearest = int(cosines.argmax())
        if (explained := float(cosines[nearest]) ** 2) > best.explained:
            best = ZoomUnit(unit, factors[nearest], explained)
        if progress is not None:
            progress(done, len(candidates), "units")
    return best


def mask_cells(
    generator: "Generator",
    style: "Style",
    cells: Sequence[NDArray[np.bool_]],
    *,
    azimuth: float = 301.0,
    elevation: float = 20.0,
) -> list[GeneratedImage]:
    """Generate an object with all but some cells of the 8 x 8 maps of FC-5 set to zero.

    Args:
        generator: the maps of all its streams are masked.
        cells: one array per image, (8, 8) bool, true where cells are kept; see `pattern`.

    Raises:
        OptionError: no such style, or cells of another shape.

    Dosovitskiy, Springenberg & Brox 2015, figure of the spatial masks.
    """
    kept = torch.from_numpy(np.stack(cells))[:, None]

    def keep(y: Tensor) -> Tensor:
        if kept.shape[2:] != y.shape[2:]:
            wanted = " x ".join(map(str, y.shape[2:]))
            raise OptionError(f"got cells of {tuple(kept.shape[2:])}; wanted {wanted}")
        return y * kept.to(y)

    change = {name: keep for name in list_layers(generator.model) if name.endswith("fc5")}
    return _generate(generator, change, [style] * len(cells), azimuth, elevation)


def pattern(name: str, side: int = 8) -> NDArray[np.bool_]:
    """The cells of one of `PATTERNS`, (side, side) bool.

    Raises:
        OptionError: no such pattern.

    >>> pattern("center-2", 4).astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    if name not in PATTERNS:
        raise OptionError(f"got the pattern {name!r}; {suggest(name, PATTERNS)}")
    rows, columns = np.indices((side, side))
    ring = np.minimum(np.minimum(rows, columns), side - 1 - np.maximum(rows, columns))
    if name == "border":
        return np.asarray(ring == 0)
    if name.startswith("center-"):
        return np.asarray(ring >= (side - int(name.removeprefix("center-"))) / 2)
    return np.asarray((rows + columns) % 2 == (name == "other"))


def _generate(
    generator: "Generator",
    interventions: Mapping[str, Intervention],
    styles: list["Style"],
    azimuth: float,
    elevation: float,
) -> list[GeneratedImage]:
    """Generate images in one forward pass, so that interventions see all of them at once."""
    codes, notes = generator.encode(styles, azimuth, elevation)
    with intervene(generator.model, interventions):
        return postprocess(*generator.predict(codes, batch=len(styles)), notes)


def list_filters(generator: "Generator") -> list[str]:
    """The upsampling layers, in order; filters of the last ones have three outputs, colors."""
    names = [name for name in list_layers(generator.model) if ".stages." in name]
    heads = [n for n in ("rgb", "mask") if not any(name.startswith(f"{n}.") for name in names)]
    return names + [n for n in heads if _upsampling(generator, n)]


def filter_sheet(generator: "Generator", layer: str, most: int = 16) -> Pixels:
    """Show the filters of a layer, all with one contrast; zero is mid-gray.

    Args:
        layer: see `list_filters`.
        most: inputs (rows) and outputs (columns) shown of a layer whose outputs are not colors.

    Returns:
        One image, (H, W, 3) uint8. For a layer with color outputs, a filter for each input; for
        others, the filter from each of the first inputs to each of the first outputs.

    Dosovitskiy, Springenberg & Brox 2015, figure of the learned filters.
    """
    known = list_filters(generator)
    if layer not in known:
        raise OptionError(f"got layer {layer!r}; {suggest(layer, known)}")
    if most < 1:
        raise OptionError(f"got most={most}; wanted 1 or more")
    first = _upsampling(generator, layer)[0]
    filters = first.weight.detach().float().cpu().numpy()  # (inputs, outputs, k, k)
    columns = int(np.ceil(len(filters) ** 0.5))
    if filters.shape[1] != 3:
        filters = filters[:most, :most]
        columns = filters.shape[1]
        filters = filters.reshape(-1, 1, *filters.shape[2:])
    row = np.concatenate(list(filters), axis=2)  # (C, k, N * k): one signal has one contrast
    (shown,) = to_images(row, contrast="linear")
    return mosaic(np.split(shown, len(filters), axis=1), columns)


def _upsampling(generator: "Generator", layer: str) -> list[nn.ConvTranspose2d]:
    """The transposed convolutions of a stage or head, at most one."""
    modules = generator.model.get_submodule(layer).modules()
    return [module for module in modules if isinstance(module, nn.ConvTranspose2d)]


def _add(amounts: Tensor, unit: int, layer: str) -> Intervention:
    """Add amounts, one per image or a single one, to a unit of a layer without maps."""

    def change(y: Tensor) -> Tensor:
        if y.dim() != 2:
            raise OptionError(f"got layer {layer}, which has maps; wanted one without")
        _require_unit(unit, y.shape[1], layer)
        replaced = y.clone()
        replaced[:, unit] += amounts.to(y)
        return replaced

    return change


def _rectified(model: nn.Module, layer: str) -> nn.Module:
    """The module that outputs the activations of a layer: itself, or the ReLU after it."""
    if layer not in dict(model.named_modules()) or not layer:
        raise OptionError(f"got layer {layer!r}; {suggest(layer, list_layers(model))}")
    parent, _, name = layer.rpartition(".")
    siblings = dict(model.get_submodule(parent).named_children())
    following = [*siblings.values(), None][[*siblings].index(name) + 1]
    return following if isinstance(following, nn.ReLU) else siblings[name]


def _require_unit(unit: int, count: int, layer: str) -> None:
    if not 0 <= unit < count:
        raise OptionError(f"got unit {unit} of {layer}; wanted 0 to {count - 1}")


def _position(
    position: tuple[int, int] | None, sides: Sequence[int], layer: str
) -> tuple[int, ...]:
    """The row and column in maps of two sides; () for a layer without maps."""
    where = position or tuple(side // 2 - 1 for side in sides)
    if len(where) != len(sides):
        raise OptionError(f"got position={position} in {layer}, which has no maps; leave it out")
    if not all(0 <= at < side for at, side in zip(where, sides, strict=True)):
        size = " x ".join(map(str, sides))
        raise OptionError(f"got position={where} in {layer}; wanted one inside its maps of {size}")
    return where


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
