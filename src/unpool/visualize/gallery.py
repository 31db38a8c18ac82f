"""Galleries: the strongest patches of each unit beside their projections, as in the paper.

A gallery is a folder with `index.html` to browse, `top.json` with all results, and a figure for
each unit shown, LAYER/UNIT.png. Layer names are percent-encoded in paths: relu%3A2.
"""

import html
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import torch
from torch import Tensor

from unpool.errors import DataError
from unpool.files import atomic, read_json, write_json
from unpool.vision.figures import join, mosaic, patch, scale_to
from unpool.vision.images import Pixels, read_image, write_image
from unpool.vision.sources import Source, spare_inputs
from unpool.visualize.projection import LayerUnits, choose_units, project
from unpool.visualize.top import TopActivations, top_activations

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.visualize.preprocessing import LoadedModel

_TILE = 96  # pixels; smaller patches are enlarged by a whole factor, larger ones reduced


class Gallery(NamedTuple):
    """The results that a gallery shows."""

    images: list[Path]  #: those that were read; numbers of images are indices into this list
    failed: dict[str, str]  #: unreadable files, with the reasons
    tops: dict[str, TopActivations]  #: by layer


def figure_path(layer: str, unit: int) -> Path:
    """The path of a unit's figure within the gallery.

    >>> figure_path("relu:2", 3).as_posix()
    'relu%3A2/0003.png'
    """
    return Path(quote(layer, safe=""), f"{unit:04}.png")


def make_gallery(
    loaded: "LoadedModel",
    images: Sequence[Path],
    output: Path,
    layers: Sequence[str] = (),
    *,
    units: Sequence[int] = (),
    shown: int = 16,
    count: int = 9,
    color: bool = True,
    batch: int = 8,
    progress: "Progress | None" = None,
    **options: Any,
) -> Gallery:
    """Find the strongest images of all units of some layers, and show some of the units.

    One pass over the images finds the strongest of all units; then those of the units shown are
    projected in batches.

    Args:
        images: files; unreadable ones are skipped.
        output: the folder of the gallery.
        layers: names from `list_layers`; the last of each stage when not given.
        units: the units of each layer to show; `shown` evenly spaced ones when not given.
        shown: see `units`.
        count: images kept of each unit.
        batch: images at a time.
        options: `rule`, `start`, `overlap`, `lrn` and `activations` of `project`.

    Raises:
        OptionError: no such layer or unit, a function without a rule, or a figure that would
            overwrite one of the images.
        ShapeError, ImageError: the model takes no images of this size, or none can be read.
    """

    def spaced(count: int) -> list[int]:
        return [i * count // min(shown, count) for i in range(min(shown, count))]

    chosen = choose_units(loaded.model, loaded.trial_image(), layers, units, spaced, **options)
    figures = [output / figure_path(c.name, unit) for c in chosen for unit in c.units]
    spare_inputs([Source(path, PurePosixPath(path.name)) for path in images], figures)
    done, found = len(images), Gallery([], {}, {})

    def report(done: int, doing: str) -> None:
        if progress is not None:
            progress(done, len(images) + len(figures), doing)

    def stream() -> Iterator[Tensor]:
        reading = loaded.read_crops(
            images, found.failed, lambda done, *_: report(done, "looking for the strongest")
        )
        while part := list(islice(reading, batch)):
            found.images.extend(path for path, _, _ in part)
            yield loaded.prepare([crop for _, crop, _ in part])

    names = [part.name for part in chosen]
    found.tops.update(top_activations(loaded.model, stream(), names, count))
    for part in chosen:
        for unit, image in _figures(loaded, part, found, batch, color, options):
            write_image(output / figure_path(part.name, unit), image)
            done += 1
            report(done, f"projecting {part.name}")
    _write_pages(output, loaded, chosen, found, options)
    return found


def figure(projections: Sequence[Pixels], patches: Sequence[Pixels]) -> Pixels:
    """The projections of a unit in a square grid, beside the patches they come from.

    All are (h, w, 3) uint8 of one size; small ones are enlarged, large ones reduced. Zeiler, Fergus
    2014, figure 2.

    >>> import numpy as np
    >>> figure([np.zeros((7, 7, 3), np.uint8)] * 9, [np.zeros((7, 7, 3), np.uint8)] * 9).shape
    (277, 562, 3)
    """
    columns = math.ceil(math.sqrt(len(patches)))
    sides = [[scale_to(p, _TILE) for p in side] for side in (projections, patches)]
    return join([mosaic(side, columns) for side in sides], 1)


def _figures(
    loaded: "LoadedModel",
    chosen: LayerUnits,
    found: Gallery,
    batch: int,
    color: bool,
    options: dict[str, Any],
) -> Iterator[tuple[int, Pixels]]:
    """Each unit with its figure; projections are made in batches, across units."""
    (name, shape, field, units), top = chosen, found.tops[chosen.name]
    count = top.values.shape[1]
    at = torch.zeros(*top.images.shape, 2, dtype=torch.int64) if top.places is None else top.places

    def pairs(items: Sequence[tuple[int, int]]) -> Iterator[tuple[Pixels, Pixels]]:
        """Projection and patch of each (unit, rank), both cut to the receptive field."""
        numbers = [int(top.images[item]) for item in items]
        crops = {n: loaded.preprocessing.crop(read_image(found.images[n])) for n in {*numbers}}
        seen = [crops[n] for n in numbers]
        places = torch.stack([at[item] for item in items])
        where: Any = places if len(shape) == 3 else "max"
        own, images = [unit for unit, _ in items], loaded.prepare(seen)
        projected = project(loaded.model, images, name, own, place=where, **options)
        shown = projected.images(color, loaded.preprocessing.order)
        for place, projection, crop in zip(places.tolist(), shown, seen, strict=True):
            box = field.box(*place)
            yield patch(projection, box), patch(crop, box)

    items = [(unit, rank) for unit in units for rank in range(count)]
    parts = (items[start : start + batch] for start in range(0, len(items), batch))
    made = (pair for part in parts for pair in pairs(part))
    for unit in units:
        yield unit, figure(*zip(*islice(made, count), strict=True))


def _write_pages(
    output: Path,
    loaded: "LoadedModel",
    chosen: Sequence[LayerUnits],
    found: Gallery,
    options: dict[str, Any],
) -> None:
    """Write `top.json` and `index.html`, and remove figures of an earlier run shown no more."""
    inputs = loaded.preprocessing
    facts = {
        "model": loaded.name,
        "inputs": {**vars(inputs), "mean": list(inputs.mean), "std": list(inputs.std)},
        "options": options,
        "images": [str(path) for path in found.images],
        "failed": found.failed,
        "layers": [_layer_facts(part, found.tops[part.name]) for part in chosen],
    }
    outdated = _outdated(output / "top.json", chosen)
    write_json(output / "top.json", facts)
    with atomic(output / "index.html") as temporary:
        page = _page(loaded, chosen, found)
        # names of files may hold bytes that are no text
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    inputs_given = {path.resolve() for path in (*found.images, *map(Path, found.failed))}
    for path in outdated:
        if (output / path).resolve() not in inputs_given:
            (output / path).unlink(missing_ok=True)


def _outdated(path: Path, chosen: Sequence[LayerUnits]) -> set[Path]:
    """Figures of these layers that an earlier `top.json` lists, and this run does not."""
    try:
        layers = read_json(path, DataError)["layers"]
        units = {facts["layer"]: [int(unit) for unit in facts["figures"]] for facts in layers}
    except (ValueError, TypeError, KeyError):  # none, or not one of ours
        return set()
    return {
        figure_path(part.name, unit)
        for part in chosen
        for unit in {*units.get(part.name, [])} - {*part.units}
    }


def _layer_facts(chosen: LayerUnits, top: TopActivations) -> dict[str, Any]:
    """The entry of a layer in `top.json`."""
    name = chosen.name
    return {
        "layer": name,
        "shape": list(chosen.shape),
        "dead": top.dead,
        "field": {key: list(pair) for key, pair in chosen.field._asdict().items()},
        "figures": {str(unit): figure_path(name, unit).as_posix() for unit in chosen.units},
        "values": [[float(f"{v:.6g}") for v in row] for row in top.values.tolist()],
        "images": top.images.tolist(),
        "places": None if top.places is None else top.places.tolist(),
    }


def _page(loaded: "LoadedModel", chosen: Sequence[LayerUnits], found: Gallery) -> str:
    links, sections = [], []
    for number, (layer, _, field, units) in enumerate(chosen):
        top, name = found.tops[layer], html.escape(layer)
        links.append(f'<a href="#l{number}">{name}</a>')
        about = (
            f"{len(top.values)} units, {top.dead} of them never active; {len(units)} are "
            f"shown, each with a receptive field of {field.size[1]} &times; {field.size[0]} pixels"
        )
        cards = "\n".join(_card(layer, unit, top, found.images) for unit in units)
        sections.append(f'<h2 id="l{number}">{name}</h2>\n<p>{about}</p>\n<div>{cards}</div>')
    return _PAGE.format(
        title=f"What {html.escape(loaded.name)} has learned",
        about=f"{len(found.images)} images. Left: projections; right: the patches they come from.",
        links=" ".join(links),
        sections="\n".join(sections),
    )


def _card(layer: str, unit: int, top: TopActivations, images: Sequence[Path]) -> str:
    address = html.escape(quote(figure_path(layer, unit).as_posix()))
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
