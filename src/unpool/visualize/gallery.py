"""Galleries: the strongest patches of each unit beside their projections, as in the paper.

A folder with `index.html` to browse, `top.json` with all that was found, and a figure for each
unit shown: LAYER/UNIT.png. Characters of a layer's name that files should not have are written
as in the addresses of web pages: relu%3A2.
"""

import html
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from unpool import Progress
from unpool.errors import ImageError
from unpool.files import atomic, write_json
from unpool.vision.drawing import to_images
from unpool.vision.figures import mosaic, patch, scale_to
from unpool.vision.images import Pixels, read_image, write_image
from unpool.vision.sources import Source, spare_inputs
from unpool.visualize.activations import Layer
from unpool.visualize.fields import Field
from unpool.visualize.layers import checked_layers
from unpool.visualize.preprocessing import LoadedModel
from unpool.visualize.projection import project
from unpool.visualize.top import TopActivations, top_activations

_TILE = 96  # pixels; smaller patches are enlarged a whole number of times, larger ones reduced


class Gallery(NamedTuple):
    """What a gallery was made of."""

    images: list[Path]  #: those that were seen; numbers of images count in this list
    failed: dict[str, str]  #: those that could not be read, and why
    tops: dict[str, TopActivations]  #: by layer


@dataclass(frozen=True)
class GalleryLayer:
    """A layer in a gallery."""

    layer: Layer
    field: Field
    units: list[int]  #: that are shown

    def path(self, unit: int) -> Path:
        """Of the figure of a unit, in the gallery.

        >>> GalleryLayer(Layer("relu:2", "ReLU", (8, 4, 4)), Field(), [3]).path(3).as_posix()
        'relu%3A2/0003.png'
        """
        return Path(quote(self.layer.name, safe=""), f"{unit:04}.png")


def make_gallery(
    loaded: LoadedModel,
    images: Sequence[Path],
    output: Path,
    layers: Sequence[str] = (),
    *,
    units: Sequence[int] = (),
    shown: int = 16,
    count: int = 9,
    color: bool = True,
    batch: int = 8,
    progress: Progress | None = None,
    **options: Any,
) -> Gallery:
    """Find the strongest images of all units of some layers, and draw some of them.

    One pass over the images finds all; then the winners of the units that are shown are
    projected, many at a time.

    Args:
        loaded: the model, and how it takes images.
        images: files; one that cannot be read is passed over.
        output: the folder of the gallery.
        layers: names from `list_layers`; the last of each stage when not given.
        units: which are shown of every layer; evenly chosen ones when not given.
        shown: how many are shown then.
        count: how many images are kept of each unit.
        color: show projections in color.
        batch: images at a time.
        progress: see `Progress`.
        options: `rule`, `start`, `overlap`, `lrn` and `activations` of `project`.

    Raises:
        OptionError: no such layer or unit, a function without a rule, or a figure in the place of a
            image.
        ShapeError: the model takes no images of this size.
        ImageError: none of the images can be read.
    """
    walls = _hung(loaded, layers, units, shown, options)
    figures = [output / wall.path(unit) for wall in walls for unit in wall.units]
    spare_inputs([Source(path, PurePosixPath(path.name)) for path in images], figures)
    work, found = len(images) + len(figures), Gallery([], {}, {})

    def report(done: int, doing: str) -> None:
        if progress is not None:
            progress(done, work, doing)

    stream = _batches(loaded, images, batch, found, report)
    found.tops.update(
        top_activations(loaded.model, stream, [wall.layer.name for wall in walls], count)
    )
    done = len(images)
    for wall in walls:
        doing = f"projecting {wall.layer.name}"
        for unit, drawn in _drawn(loaded, wall, found, batch, color, options):
            write_image(output / wall.path(unit), drawn)
            done += 1
            report(done, doing)
    write_pages(output, loaded, walls, found, options)
    return found


def _batches(
    loaded: LoadedModel,
    images: Sequence[Path],
    batch: int,
    found: Gallery,
    report: Callable[[int, str], None],
) -> Iterator[Tensor]:
    """The images that can be read, so many at a time; `found` records which ones."""
    crops: list[Pixels] = []
    for number, path in enumerate(images, 1):
        try:
            crops.append(loaded.preprocessing.crop(read_image(path)))
            found.images.append(path)
        except ImageError as error:
            found.failed[str(path)] = str(error)
        if len(crops) == batch or (crops and number == len(images)):
            yield loaded.prepare(crops)
            crops = []
        report(number, "looking for the strongest")
    if not found.images:
        reason = next(iter(found.failed.values()), "there are none")
        raise ImageError(f"none of {len(images)} images can be used: {reason}")


def figure(projections: Sequence[Pixels], patches: Sequence[Pixels]) -> Pixels:
    """The projections of a unit in a square grid, and beside it the patches they come from.

    Args:
        projections: (h, w, 3) uint8 each, all of one size.
        patches: as many, of the same size.

    Returns:
        An image (H, W, 3) uint8; small patches are enlarged, large ones reduced.

    Zeiler, Fergus 2014, figure 2.

    >>> figure([np.zeros((7, 7, 3), np.uint8)] * 9, [np.zeros((7, 7, 3), np.uint8)] * 9).shape
    (277, 562, 3)
    """
    columns = math.ceil(math.sqrt(len(patches)))
    left, right = (
        mosaic([scale_to(p, _TILE) for p in side], columns) for side in (projections, patches)
    )
    return np.concatenate([left, np.full((len(left), 8, 3), 255, np.uint8), right], axis=1)


# ---- what is shown -------------------------------------------------------------------------------


def _hung(
    loaded: LoadedModel,
    names: Sequence[str],
    units: Sequence[int],
    shown: int,
    options: dict[str, Any],
) -> list[GalleryLayer]:
    walls = []
    for layer, field in checked_layers(loaded, names, units, **options):
        chosen = list(dict.fromkeys(units)) or _even(layer.shape[0], shown)
        walls.append(GalleryLayer(layer, field, chosen))
    return walls


def _even(units: int, shown: int) -> list[int]:
    """So many units, at even distances."""
    shown = min(shown, units)
    return [i * units // shown for i in range(shown)]


class _Item(NamedTuple):
    """A projection to be made."""

    unit: int
    image: int
    place: tuple[int, int]


def _drawn(
    loaded: LoadedModel,
    wall: GalleryLayer,
    found: Gallery,
    batch: int,
    color: bool,
    options: dict[str, Any],
) -> Iterator[tuple[int, Pixels]]:
    """The figure of each unit shown, many projections at a time."""
    top = found.tops[wall.layer.name]
    count = top.values.shape[1]
    items = []
    for unit in wall.units:
        places = [(0, 0)] * count if top.places is None else top.places[unit].tolist()
        images = top.images[unit].tolist()
        items += [_Item(unit, n, place) for n, place in zip(images, places, strict=True)]
    parts = (items[start : start + batch] for start in range(0, len(items), batch))
    pairs = (pair for part in parts for pair in _pairs(loaded, wall, found, part, color, options))
    for unit in wall.units:
        yield unit, figure(*zip(*islice(pairs, count), strict=True))


def _pairs(
    loaded: LoadedModel,
    wall: GalleryLayer,
    found: Gallery,
    items: Sequence[_Item],
    color: bool,
    options: dict[str, Any],
) -> Iterator[tuple[Pixels, Pixels]]:
    """Projection and patch of each item, both cut to what the unit sees."""
    read = {n: read_image(found.images[n]) for n in {item.image for item in items}}
    crops = {n: loaded.preprocessing.crop(image) for n, image in read.items()}
    seen = [crops[item.image] for item in items]
    units, places = [item.unit for item in items], torch.tensor([item.place for item in items])
    layer, images = wall.layer, loaded.prepare(seen)
    options = {**options, "place": places if len(layer.shape) == 3 else "max"}
    signal = project(loaded.model, images, layer.name, units, **options).signal
    shown = to_images(signal, color=color, order=loaded.preprocessing.order)
    for item, projection, crop in zip(items, shown, seen, strict=True):
        box = wall.field.box(*item.place)
        yield patch(projection, box), patch(crop, box)


def write_pages(
    output: Path,
    loaded: LoadedModel,
    walls: Sequence[GalleryLayer],
    found: Gallery,
    options: dict[str, Any],
) -> None:
    """Write `top.json` and `index.html`, each whole or not at all.

    Figures of these layers that an earlier `top.json` names, and this one does not, are removed.

    Args:
        output: the gallery, in which the figures are.
        loaded: the model.
        walls: its layers that were looked at.
        found: the strongest of them.
        options: of the projections.
    """
    inputs = loaded.preprocessing
    facts = {
        "model": loaded.name,
        "inputs": {**vars(inputs), "mean": list(inputs.mean), "std": list(inputs.std)},
        "options": options,
        "images": [str(path) for path in found.images],
        "failed": found.failed,
        "layers": [_layer_facts(wall, found.tops[wall.layer.name]) for wall in walls],
    }
    stale = _stale(output / "top.json", walls)
    write_json(output / "top.json", facts)
    with atomic(output / "index.html") as temporary:
        page = _page(loaded, walls, found)
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # names of files
    given = {path.resolve() for path in (*found.images, *map(Path, found.failed))}
    for path in stale:
        if (output / path).resolve() not in given:
            (output / path).unlink(missing_ok=True)


def _stale(path: Path, walls: Sequence[GalleryLayer]) -> set[Path]:
    """The figures of these layers that an earlier `top.json` names, and that are shown no more."""
    try:
        layers = json.loads(path.read_text("utf-8"))["layers"]
        units = {facts["layer"]: [int(unit) for unit in facts["figures"]] for facts in layers}
    except (OSError, ValueError, TypeError, KeyError):  # none, or somebody else's
        return set()
    written = {wall.path(unit) for wall in walls for unit in units.get(wall.layer.name, [])}
    return written - {wall.path(unit) for wall in walls for unit in wall.units}


def _layer_facts(wall: GalleryLayer, top: TopActivations) -> dict[str, Any]:
    """What `top.json` says of a layer."""
    return {
        "layer": wall.layer.name,
        "shape": list(wall.layer.shape),
        "dead": top.dead,
        "field": {name: list(pair) for name, pair in wall.field._asdict().items()},
        "figures": {str(unit): wall.path(unit).as_posix() for unit in wall.units},
        "values": [[float(f"{v:.6g}") for v in row] for row in top.values.tolist()],
        "images": top.images.tolist(),
        "places": None if top.places is None else top.places.tolist(),
    }


def _page(loaded: LoadedModel, walls: Sequence[GalleryLayer], found: Gallery) -> str:
    links, sections = [], []
    for number, wall in enumerate(walls):
        top = found.tops[wall.layer.name]
        name, size = html.escape(wall.layer.name), wall.field.size
        links.append(f'<a href="#l{number}">{name}</a>')
        about = (
            f"{len(top.values)} units, {top.dead} of them never active; {len(wall.units)} are "
            f"shown, of which each sees {size[1]} &times; {size[0]} pixels"
        )
        cards = "\n".join(_card(wall, unit, top, found.images) for unit in wall.units)
        sections.append(f'<h2 id="l{number}">{name}</h2>\n<p>{about}</p>\n<div>{cards}</div>')
    title = f"What {html.escape(loaded.name)} has learned"
    about = f"{len(found.images)} images. Left: projections; right: the patches they come from."
    return _PAGE.format(
        title=title, about=about, links=" ".join(links), sections="\n".join(sections)
    )


def _card(wall: GalleryLayer, unit: int, top: TopActivations, images: Sequence[Path]) -> str:
    address = html.escape(quote(wall.path(unit).as_posix()))
    values, numbers = top.values[unit].tolist(), top.images[unit].tolist()
    lines = [f"{v:.4g}  {images[n]}" for v, n in zip(values, numbers, strict=True)]
    return (
        f'<figure><a href="{address}"><img src="{address}" loading="lazy" alt="unit {unit}" '
        f'title="{html.escape(chr(10).join(lines))}"></a>'
        f"<figcaption>{unit} <small>{values[0]:.3g} to {values[-1]:.3g}</small></figcaption>"
        "</figure>"
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px sans-serif; margin: 2em; color: #222; background: #fff }}
nav {{ position: sticky; top: 0; padding: .5em 0; background: #fff }}
nav a {{ margin-right: 1em }}
div {{ display: flex; flex-wrap: wrap; gap: 1.5em }}
figure {{ margin: 0 }}
img {{ max-width: 100% }}
</style>
<h1>{title}</h1>
<p>{about}</p>
<nav>{links}</nav>
{sections}
</html>
"""
