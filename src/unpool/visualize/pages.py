"""The pages of a gallery: all that was found as JSON, and what is shown as a page to browse."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from unpool.files import atomic
from unpool.visualize.activations import Layer
from unpool.visualize.fields import Field
from unpool.visualize.preprocessing import LoadedModel
from unpool.visualize.top import TopActivations


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
        "layers": [_told(wall, found.tops[wall.layer.name]) for wall in walls],
    }
    stale = _stale(output / "top.json", walls)
    with atomic(output / "top.json") as temporary:
        text = json.dumps(facts, default=str, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
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


def _told(wall: GalleryLayer, top: TopActivations) -> dict[str, Any]:
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
