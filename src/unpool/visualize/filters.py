"""Filters of a network: their look, dead and dominant ones, and the frequencies they cover.

From such a figure, Zeiler and Fergus saw that a few first-layer filters dominated, and that those
of another network covered high and low frequencies but not the middle; they changed both networks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unpool.errors import OptionError, WeightsError, suggest
from unpool.vision.drawing import to_images
from unpool.vision.figures import add_caption, chart, fit_square, join, mosaic, write_figure
from unpool.visualize.activations import Layer, list_layers
from unpool.visualize.features import read_inputs
from unpool.visualize.shadow import shadow_copy
from unpool.visualize.top import top_activations

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.images import Pixels
    from unpool.visualize.preprocessing import LoadedModel

_SIDE = 64  # of spectra, in samples
_BINS = 12  # of orientations
_AFTER = ("BatchNorm2d", "ReLU", "ReLU6", "LeakyReLU", "SiLU", "GELU", "Hardswish")


class FilterRow(NamedTuple):
    """Statistics of the filters of one convolution."""

    layer: str
    filters: int
    kernel: tuple[int, ...]
    median: float  #: of the filters' RMS (root mean square)
    largest: float  #: likewise
    dominance: float | None  #: largest / median; None if that is 0
    dead: list[int]  #: filters with an RMS below a given fraction of the median
    silent: list[int] | None  #: feature maps that no image excites; None without images


class Coverage(NamedTuple):
    """The distribution of filters' energy over frequencies, with equal weight for each filter."""

    spectrum: NDArray[np.float64]  #: (64, 64) fraction of the energy; zero frequency in the middle
    low: float  #: fraction below 1/6 cycle per pixel
    mid: float  #: fraction from 1/6 to 1/3
    high: float  #: fraction above
    aliased: float  #: fraction aliased by the layer's stride: half a cycle per step or more
    orientations: list[float]  #: (12,) by direction of the stripes: 0 (level), 15, ... 165 degrees


@dataclass(frozen=True)
class FilterReport:
    """The result of `inspect_filters`."""

    rows: list[FilterRow]  #: one for each convolution, in the order in which they run
    layer: str  #: the convolution whose filters are shown
    weights: NDArray[np.float32]  #: (O, C, k, k) its filters, in the model's color order
    coverage: Coverage
    order: Literal["RGB", "BGR"]  #: of the colors
    failed: dict[str, str]  #: unreadable images, with the reasons

    def figure(self) -> "Pixels":
        """The filters on a common and on individual scales; spectrum, strength and orientations.

        The spectrum is the square root of the energy, with zero frequency in its middle.
        """
        count, show = len(self.weights), partial(to_images, contrast="linear", order=self.order)
        columns = math.ceil(math.sqrt(count))
        wide = np.concatenate([*self.weights], axis=1)  # one signal gets one scale
        panels = []
        for caption, tiles in (
            ("one scale for all", np.split(show(wide)[0], count, axis=0)),
            ("each on its own", [*show(self.weights)]),
        ):
            larger = [fit_square(tile, max(360 // columns - 2, 1)) for tile in tiles]
            panels.append(add_caption(mosaic(larger, columns), caption))
        level = np.sqrt(self.coverage.spectrum / self.coverage.spectrum.max())
        gray = np.repeat(np.rint(level * 255).astype(np.uint8)[:, :, None], 3, axis=2)
        strength = np.sort(_rms(torch.from_numpy(self.weights)).numpy())[::-1]
        degrees = [180 / _BINS * i for i in range(_BINS)]
        below = [
            add_caption(fit_square(gray, 192), "spectrum"),
            chart(range(1, count + 1), [strength.tolist()], "RMS, in order", size=(260, 212)),
            chart(degrees, [self.coverage.orientations], "energy by direction", size=(260, 212)),
        ]
        return join([join(panels, 1), join(below, 1)], 0)

    def to_dict(self) -> dict[str, Any]:
        """All but the filters and their spectrum, as plain values."""
        coverage = {name: v for name, v in self.coverage._asdict().items() if name != "spectrum"}
        return {
            "failed": self.failed,
            "layers": [{**row._asdict(), "kernel": list(row.kernel)} for row in self.rows],
            "shown": self.layer,
            "coverage": coverage,
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write `filters.png` and `filters.json`; return both paths."""
        return write_figure(Path(folder, "filters"), self.figure(), self.to_dict())


def inspect_filters(
    loaded: "LoadedModel",
    layer: str | None = None,
    images: Sequence[Path] = (),
    *,
    dead_below: float = 0.1,
    batch: int = 8,
    progress: "Progress | None" = None,
) -> FilterReport:
    """Measure the filters of all convolutions of a network, and show those of one.

    Args:
        layer: the convolution whose filters are shown; the first to run when not given. Filters
            of three channels are shown in color, of others their sum.
        images: files, to find silent feature maps, which never rise above zero after the
            normalization and activation that follow the convolution as modules.
        dead_below: a filter with an RMS below this fraction of the median is dead.
        batch: images at a time.

    Raises:
        OptionError: a model without convolutions, a layer that is none, or whose filters are zero.
        WeightsError: filters that are not finite.
        ShapeError, ImageError: the model takes no images of this size, or none can be read.

    Zeiler, Fergus 2014, section 4.2 and figure 6.
    """
    ran = list_layers(loaded.model, loaded.trial_image())
    # by the names of `list_layers`, which differ from those of a compiled model
    modules = dict(shadow_copy(loaded.model).named_modules())
    convolutions = {
        found.name: module
        for found in ran
        if isinstance(module := modules.get(found.name), nn.Conv2d | nn.ConvTranspose2d)
    }
    if not convolutions:
        raise OptionError(
            f"got {loaded.name}, which has no two-dimensional convolutions; name another model"
        )
    name = layer if layer is not None else next(iter(convolutions))
    if name not in convolutions:
        raise OptionError(
            f"got layer {name!r}, which is no two-dimensional convolution of the model; "
            f"{suggest(name, convolutions)}"
        )
    filters = {found: filters_of(module) for found, module in convolutions.items()}
    for found, weights in filters.items():
        if not weights.isfinite().all():
            raise WeightsError(
                f"layer {found!r} has filters that are not finite; the weights are damaged: copy "
                "them again, or take an earlier checkpoint"
            )
    silent, failed = dict[str, list[int]](), dict[str, str]()
    if images:
        responses = {found: _response(ran, found) for found in convolutions}
        silent, failed = _silent(loaded, images, responses, batch, progress)
    rows = {found: _row(found, w, dead_below, silent.get(found)) for found, w in filters.items()}
    shown, weights = convolutions[name], filters[name]
    alive = sorted({*range(len(weights))} - {*rows[name].dead})
    if not alive:
        raise OptionError(
            f"got layer {name!r}, whose filters are all zero; the weights are damaged, or were "
            "never loaded"
        )
    coverage = cover(weights[alive], shown.stride[0] if isinstance(shown, nn.Conv2d) else 1)
    order = loaded.preprocessing.order
    return FilterReport([*rows.values()], name, weights.numpy(), coverage, order, failed)


def filters_of(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """The filters of a convolution, one for each output map: (O, C, k, k) float32."""
    weights = layer.weight.detach().float().cpu()
    if isinstance(layer, nn.Conv2d):
        return weights
    parts = weights.reshape(layer.groups, -1, *weights.shape[1:])  # (G, C, O / G, k, k)
    return parts.transpose(1, 2).flatten(0, 1)


def cover(filters: Tensor, stride: int = 1) -> Coverage:
    """The distribution of filters' energy over frequencies, all channels together.

    Orientations cover frequencies above zero and up to half a cycle per pixel.

    Args:
        filters: (O, C, k, k), none of them zero.
        stride: of the layer; it aliases frequencies of half a cycle per step and more.

    >>> stripes = torch.tensor([1.0, -1.0]).repeat(1, 3, 8, 4)  # upright
    >>> found = cover(stripes)
    >>> round(found.low, 2), round(found.high, 2), int(np.argmax(found.orientations)) * 15
    (0.02, 0.93, 90)
    """
    energy = torch.fft.fft2(filters.double(), s=(_SIDE, _SIDE)).abs().square().sum(1)
    energy = (energy / energy.sum((1, 2), keepdim=True)).mean(0)
    line = torch.fft.fftfreq(_SIDE, dtype=torch.float64)
    down, across = torch.meshgrid(line, line, indexing="ij")
    radius = (down.square() + across.square()).sqrt()

    # stripes are perpendicular to the direction of the wave; rows are counted downwards
    angle = torch.rad2deg(torch.atan2(-down, across) + math.pi / 2) % 180
    bins = (angle / (180 / _BINS)).round().long() % _BINS
    ring = (radius > 0) & (radius <= 0.5)
    spread = torch.zeros(_BINS, dtype=torch.float64).index_add(0, bins[ring], energy[ring])
    aliased = torch.maximum(down.abs(), across.abs()) >= 0.5 / stride
    return Coverage(
        torch.fft.fftshift(energy).numpy(),
        float(energy[radius < 1 / 6].sum()),
        float(energy[(radius >= 1 / 6) & (radius < 1 / 3)].sum()),
        float(energy[radius >= 1 / 3].sum()),
        float(energy[aliased].sum()) if stride > 1 else 0.0,
        (spread / spread.sum().clamp_min(1e-30)).tolist(),
    )


def _rms(filters: Tensor) -> Tensor:
    return filters.double().flatten(1).square().mean(1).sqrt()


def _row(name: str, filters: Tensor, dead_below: float, silent: list[int] | None) -> FilterRow:
    rms = _rms(filters)
    median, largest = float(rms.quantile(0.5)), float(rms.max())
    dead = ((rms == 0) | (rms < dead_below * median)).nonzero().flatten().tolist()
    kernel, dominance = tuple(filters.shape[2:]), largest / median if median else None
    return FilterRow(name, len(filters), kernel, median, largest, dominance, dead, silent)


def _response(ran: Sequence[Layer], name: str) -> str:
    """The last of the normalization and activation layers that follow a convolution, or itself.

    >>> ran = [Layer(n, k, (4, 9, 9)) for n, k in (("a", "Conv2d"), ("b", "ReLU"), ("c", "Conv2d"))]
    >>> _response(ran, "a"), _response(ran, "c")
    ('b', 'c')
    """
    start = [layer.name for layer in ran].index(name)
    shape = ran[start].shape
    after = takewhile(lambda layer: layer.kind in _AFTER and layer.shape == shape, ran[start + 1 :])
    return [name, *(layer.name for layer in after)][-1]


def _silent(
    loaded: "LoadedModel",
    images: Sequence[Path],
    responses: dict[str, str],
    batch: int,
    progress: "Progress | None",
) -> tuple[dict[str, list[int]], dict[str, str]]:
    """The feature maps of each convolution that no image excites, and the unreadable images."""
    inputs = read_inputs(loaded, images)

    def report(done: int) -> None:
        if progress is not None:
            progress(done, len(inputs.crops), "looking for silent maps")

    batches, layers = inputs.batches(loaded, batch), [*responses.values()]
    tops = top_activations(loaded.model, batches, layers, 1, progress=report)
    found = {name: tops[layer].values[:, 0] <= 0 for name, layer in responses.items()}
    return {name: dead.nonzero().flatten().tolist() for name, dead in found.items()}, inputs.failed
