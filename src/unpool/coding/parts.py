"""Decompose images with a sparse coder: filters, strongest parts, reconstructions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unpool.coding.images import prepare, reduced
from unpool.devices import find_device
from unpool.errors import ImageError, WeightsError
from unpool.files import write_json
from unpool.models import from_pretrained
from unpool.models.coder import Code, SparseCoder, strongest
from unpool.vision.drawing import to_images
from unpool.vision.figures import add_caption, contact_sheet, join, mosaic, patch, scale_to
from unpool.vision.images import write_image
from unpool.vision.sources import find_images, spare_inputs

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.cards import Card
    from unpool.vision.images import Pixels

STRONGEST = (5, 25, 125)
"""Numbers of activations from which images are reconstructed, as in figure 1 of the paper."""

_TILE, _FILTER = 63, 56  # sides of a part and of a filter in sheets, in pixels


def load_coder(source: str | Path, device: str = "auto") -> tuple[SparseCoder, "Card"]:
    """Load a trained coder and its card.

    Args:
        source: a folder of weights, or a run folder.
        device: "auto", "cpu", "cuda" or "cuda:n".

    Raises:
        WeightsError: there are no weights, or they belong to another kind of network.
    """
    coder, card = from_pretrained(source)
    if not isinstance(coder, SparseCoder):
        raise WeightsError(
            f"got {source}, a {card.architecture}; wanted a SparseCoder: train one with the recipe "
            "coder"
        )
    return coder.to(find_device(device)), card


class Quality(NamedTuple):
    """The quality of a reconstruction, and the sparsity of its code."""

    snr: float  #: signal-to-noise ratio in dB: energy of the images over that of the error
    nonzeros: float  #: fraction of nonzero values in the maps


class Rebuilt(NamedTuple):
    """Images reconstructed from their code at one layer."""

    code: Code
    images: Tensor  #: (N, C, H, W)
    quality: Quality


class Part(NamedTuple):
    """An activation, and the part of an image that it stands for."""

    image: str
    value: float
    box: tuple[int, int, int, int]  #: x0, y0, x1, y1 in the reduced image; may cross its border
    shown: "Pixels"  #: the part, (S, S, 3); mid-gray is zero
    patch: "Pixels"  #: the image inside the box, (S, S, 3)

    def to_dict(self) -> dict[str, Any]:
        """All but the images, as plain values."""
        return {"image": self.image, "value": self.value, "box": list(self.box)}


@dataclass
class PartsReport:
    """The result of `take_apart`."""

    rebuilt: list[dict[str, Any]] = field(default_factory=list)
    """For each image, its name and the `snr` and `nonzeros` of each layer."""
    tops: list[list[list[Part]]] = field(default_factory=list)
    """The strongest parts by layer and unit, strongest first."""
    failed: dict[str, str] = field(default_factory=dict)  #: unreadable images, and the reasons

    def to_dict(self) -> dict[str, Any]:
        """All but the figures, as plain values."""
        tops = [[[part.to_dict() for part in unit] for unit in layer] for layer in self.tops]
        return {"failed": self.failed, "images": self.rebuilt, "layers": tops}

    def mean(self, layer: int) -> Quality:
        """The mean quality of a layer, from 1, over all images."""
        rows = [image["layers"][layer - 1] for image in self.rebuilt]
        return Quality(*(sum(row[k] for row in rows) / len(rows) for k in Quality._fields))


@torch.no_grad()
def rebuild(coder: SparseCoder, y: Tensor, layer: int) -> Rebuilt:
    """Code images (N, C, H, W) at a layer, counted from 1, and reconstruct them.

    >>> coder = SparseCoder((4,), 5, lam=(0.01,), steps=30)
    >>> rebuild(coder, torch.randn(1, 1, 16, 16), 1).quality.snr > 10
    True
    """
    code = coder.encode(y, layer)
    images = coder.decode(code)
    rest = float((y - images).square().sum())
    ratio = float(y.square().sum()) / max(rest, 1e-30)
    snr = 10 * math.log10(max(ratio, 1e-30))
    return Rebuilt(code, images, Quality(snr, float((code.maps != 0).float().mean())))


@torch.no_grad()
def filter_sheet(coder: SparseCoder, y: Tensor, layers: int | None = None) -> "Pixels":
    """Draw the filters of layers; above the first layer, as the strongest part of each map.

    Args:
        y: images, (N, C, H, W), whose switches are used.
        layers: number of layers to show; by default all.
    """
    panels = []
    for layer in range(1, (len(coder.layers) if layers is None else layers) + 1):
        filters = coder.filters(layer).detach()
        if layer == 1:
            signals = [*filters]
        else:
            code = coder.encode(y, layer)
            signals = [
                coder.part(code, strongest_place(coder, code, i))[0] for i in range(len(filters))
            ]
        panels.append(_panel(f"layer {layer}", signals))
    return join(panels, 0)


def strongest_place(coder: SparseCoder, code: Code, unit: int) -> tuple[int, int, int, int]:
    """Sample, map, row and column of the strongest activation of a map.

    Activations whose part crosses the border are left out, unless all of the map do.
    """
    maps, edge = code.maps[:, unit].abs(), coder.kernel - 1
    if min(maps.shape[1:]) > 2 * edge:
        maps = F.pad(maps[:, edge:-edge, edge:-edge], (edge,) * 4)
    sample, place = divmod(int(maps.argmax()), maps[0].numel())
    return sample, unit, *divmod(place, maps.shape[-1])


def take_apart(
    coder: SparseCoder,
    images: Sequence[Path],
    output: Path,
    *,
    long_side: int = 480,
    count: int = 9,
    progress: "Progress | None" = None,
) -> PartsReport:
    """Code images at every layer; show their reconstructions and the strongest parts of each map.

    Writes `filters.png`, `layerN.png` with the strongest parts of each map beside the patches
    they come from, `rebuilt/NAME.png` and `parts.json`.

    Args:
        images: image files; unreadable ones are skipped.
        output: the folder to write to.
        long_side: longer sides are reduced to this.
        count: number of parts to keep for each map, at most one from each image.

    Raises:
        ImageError: no image can be read.

    Zeiler, Taylor, Fergus 2011, figures 1 and 3.
    """
    sources = find_images([str(path) for path in images]).sources
    files = [output / f"rebuilt/{source.name}.png" for source in sources]
    spare_inputs(sources, files)
    report = PartsReport(tops=[[[] for _ in range(maps)] for maps in coder.maps])
    sample: Tensor | None = None
    for number, (source, file) in enumerate(zip(sources, files, strict=True)):
        if progress is not None:
            progress(number, len(sources), "taking images apart")
        try:
            image = reduced(source.read(), long_side)
        except ImageError as error:
            report.failed[str(source)] = str(error)
            continue
        y = prepare(image).to(coder.filters(1))
        found = [rebuild(coder, y, layer) for layer in range(1, len(coder.layers) + 1)]
        for one, units in zip(found, report.tops, strict=True):
            _keep(coder, one.code, units, image, str(source), count)
        report.rebuilt.append(
            {"image": str(source), "layers": [one.quality._asdict() for one in found]}
        )
        write_image(file, rebuilt_sheet(coder, y, found))
        sample = y if sample is None else sample
    if sample is None:
        raise ImageError(
            f"none of {len(sources)} images can be used: {next(iter(report.failed.values()))}"
        )
    for layer, units in enumerate(report.tops, start=1):
        write_image(output / f"layer{layer}.png", parts_sheet(units))
    write_image(output / "filters.png", _filters(coder, report))
    write_json(output / "parts.json", report.to_dict())
    return report


@torch.no_grad()
def rebuilt_sheet(coder: SparseCoder, y: Tensor, found: Sequence[Rebuilt]) -> "Pixels":
    """Draw an image, its reconstructions by layer, and from the strongest activations of the last.

    Args:
        y: the image, (1, C, H, W).
        found: the reconstructions, by layer.
    """
    panels = [("contrast-normalized", y)]
    for layer, one in enumerate(found, start=1):
        about = f"{one.quality.snr:.1f} dB, {one.quality.nonzeros:.1%} nonzeros"
        panels.append((f"layer {layer}: {about}", one.images))
    for count in STRONGEST:
        image = coder.decode(strongest(found[-1].code, count))
        panels.append((f"the {count} strongest parts", image))
    tiles = [(to_images(image)[0], caption) for caption, image in panels]
    return contact_sheet(tiles, columns=3, width=960)


def parts_sheet(units: Sequence[Sequence[Part]]) -> "Pixels":
    """Draw the strongest parts of each map beside their image patches; skip empty maps.

    Args:
        units: parts by unit, as in `PartsReport.tops`.
    """
    rows = []
    for unit, parts in enumerate(units):
        if parts:
            sides = [[part.shown for part in parts], [part.patch for part in parts]]
            columns = math.ceil(math.sqrt(len(parts)))
            tiles = [mosaic([scale_to(p, _TILE) for p in side], columns) for side in sides]
            rows.append(add_caption(join(tiles, 1, 2), f"map {unit}"))
    if not rows:
        return to_images(torch.zeros(1, 1, _TILE, _TILE))[0]
    pairs = [join(rows[i : i + 4], 1, 12) for i in range(0, len(rows), 4)]
    return join(pairs, 0)


def _keep(
    coder: SparseCoder, code: Code, units: list[list[Part]], image: "Pixels", name: str, count: int
) -> None:
    """Add the strongest activation of each map to its ranking, if it is among the top `count`."""
    for unit, parts in enumerate(units):
        place = strongest_place(coder, code, unit)
        value = float(code.maps[place])
        if not value or (len(parts) == count and abs(parts[-1].value) >= abs(value)):
            continue
        with torch.no_grad():
            signal, box = coder.part(code, place)
        parts.append(
            Part(name, value, box, to_images(signal, contrast="linear")[0], patch(image, box))
        )
        parts.sort(key=lambda part: -abs(part.value))
        del parts[count:]


def _filters(coder: SparseCoder, report: PartsReport) -> "Pixels":
    """Draw the filters of the first layer, and the strongest part of each map of the others."""
    panels = [_panel("layer 1", [*coder.filters(1).detach()])]
    for layer, units in enumerate(report.tops[1:], start=2):
        shown = [scale_to(parts[0].shown, _FILTER) for parts in units if parts]
        if shown:
            panels.append(add_caption(mosaic(shown, _columns(len(shown))), f"layer {layer}"))
    return join(panels, 0)


def _panel(caption: str, signals: Sequence[Tensor]) -> "Pixels":
    tiles = [scale_to(to_images(s, contrast="linear")[0], _FILTER) for s in signals]
    return add_caption(mosaic(tiles, _columns(len(tiles))), caption)


def _columns(count: int) -> int:
    return math.ceil(math.sqrt(2 * count))
