"""The API of the page Draw: views, sprite sheets, animations and single units of the generator.

An image is a function of its address: it has the version of the package, the digest of the weights,
and all options. So browsers keep it.
"""

import asyncio
import io
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unpool import __version__
from unpool.cards import weights_digest
from unpool.errors import OptionError
from unpool.serve import options
from unpool.serve.applications import PNG, Answer, Models, generate
from unpool.serve.engine import Job
from unpool.serve.intake import Upload, query_options
from unpool.serve.refusals import Refusal
from unpool.serve.service import response

if TYPE_CHECKING:
    from unpool.generate import GeneratedImage
    from unpool.serve.studio.studio import Studio
    from unpool.vision.images import Pixels

WEBP, GIF = "image/webp", "image/gif"

COLUMNS = 8
"""Images in a row of a sprite sheet."""

_STYLES = 256  # on a sheet

_KEPT = {"cache-control": "private, max-age=31536000, immutable"}

_VIEW = tuple(option for option in options.GENERATE if option.name != "format")
_ANGLES = tuple(option for option in _VIEW if option.name in ("azimuth", "elevation"))
_MOVING = (
    options.Option("from", options.text),
    options.Option("to", options.text),
    options.Option("frames", options.whole(2, 64), "count"),
    *(option for option in _VIEW if option.name not in ("background", "scale")),
)
_FILM = (
    *_MOVING,
    options.Option("background", options.text),
    options.Option("scale", options.whole(1, 4)),
    options.Option("fps", options.number(1, 50)),
)
_UNITS = (
    options.Option("layer", options.text),
    options.Option("first", options.whole(0, 10**6)),
    options.Option("count", options.whole(1, 32)),
    options.Option("value", options.number(-1e6, 1e6)),
)


class Drawing(NamedTuple):
    """Something that the generator draws."""

    draw: Callable[[Models, dict[str, Any]], Answer]
    options: tuple[options.Option, ...]


class Draw:
    """The routes of the page Draw.

    Args:
        studio: what all pages share.
    """

    def __init__(self, studio: "Studio") -> None:
        self.studio, self.models = studio, studio.models

    @cached_property
    def version(self) -> str:
        """The part of all addresses that stands for the weights and the version."""
        return f"{__version__}-{weights_digest(self.models.chairs)[:16]}"

    async def describe(self, request: Request) -> Response:
        """`/api/chairs`: the styles, ranges and layers, and the address of the images."""
        about = await self.studio.run(request, lambda job: describe(self.models))
        return JSONResponse({**about, "address": f"/api/chairs/{self.version}"})

    async def image(self, request: Request) -> Response:
        """`/api/chairs/VERSION/NAME`: an image, see `DRAWINGS`."""
        version, name = request.path_params["version"], request.path_params["name"]
        if version != await asyncio.to_thread(lambda: self.version) or name not in DRAWINGS:
            raise Refusal(404, "got an address of other weights or no image; load the page again")
        draw, known = DRAWINGS[name]
        given = options.parse(query_options(request), known)
        answer = await self.studio.run(request, lambda job: draw(self.models, given))
        return response(answer, _KEPT)


def routes(studio: "Studio") -> list[Route]:
    """The routes of the page."""
    draw = Draw(studio)
    return [Route("/api/chairs", draw.describe), Route("/api/chairs/{version}/{name}", draw.image)]


def describe(models: Models) -> dict[str, Any]:
    """What can be asked of the generator: its styles, transformations and layers, as plain values.

    Images beyond the `elevations` carry a note, as do those that are changed more than in training.
    """
    from unpool.generate import CHANGES, list_layers
    from unpool.generate.transformations import LENGTH
    from unpool.generate.units import count_units

    generator = models.generator
    changes = [
        {"name": name, "low": min(change[1:]), "high": max(change[1:])}
        for name, change in CHANGES.items()
    ]
    layers = list_layers(generator.model)
    return {
        "name": models.chairs_name,
        "styles": generator.styles,
        "side": generator.size,
        "elevations": list(generator.elevations),
        "changes": changes if generator.model.numbers == LENGTH else [],
        "layers": [{"name": name, "units": count_units(generator, name)} for name in layers],
    }


# ---- what is drawn -------------------------------------------------------------------------------


def draw_view(models: Models, given: dict[str, Any]) -> Answer:
    """A view as a PNG: what `/v1/generate` answers."""
    return generate(models, Upload(b"", "", {}), given, Job())


def draw_sheet(models: Models, given: dict[str, Any]) -> Answer:
    """A turn or a morph as a sprite sheet: a WebP without loss, transparent, in rows of `COLUMNS`.

    The facts have the frames, the columns, and the azimuth or the fraction of each frame.
    """
    import numpy as np

    images, at = moving_images(models, given)
    notes = [*dict.fromkeys(image.note for image in images if image.note)]
    sheet = tiled([image.rgba for image in images])
    facts = {"frames": len(images), "columns": min(COLUMNS, len(images)), "at": at, "notes": notes}
    return Answer(_webp(np.ascontiguousarray(sheet)), WEBP, facts)


def draw_film(models: Models, given: dict[str, Any]) -> Answer:
    """A turn or a morph as a GIF: the file of `unpool generate interpolate` or `morph`."""
    from unpool.generate.result import encode_animation
    from unpool.generate.sequences import there_and_back

    how = {name: given.pop(name) for name in ("fps", "scale") if name in given}
    background, morphs = given.pop("background", "white"), "to" in given
    images, _ = moving_images(models, given)
    shown = there_and_back(images) if morphs else images
    return Answer(encode_animation(".gif", [i.on(background) for i in shown], **how), GIF, {})


def draw_styles(models: Models, given: dict[str, Any]) -> Answer:
    """All styles from one side, up to 256, as a sprite sheet."""
    generator = models.generator
    images = generator.generate(generator.styles[:_STYLES], **{"azimuth": 301.0, **given})
    facts = {"frames": len(images), "columns": min(COLUMNS, len(images))}
    return Answer(_webp(tiled([image.rgba for image in images])), WEBP, facts)


def draw_units(models: Models, given: dict[str, Any]) -> Answer:
    """Images of single units, from `first` on, as a sprite sheet; see `activate_units`.

    With `png`, as a PNG, to save.
    """
    from unpool.generate import activate_units, count_units
    from unpool.vision.images import encode_png

    layer = given.pop("layer", "shared.fc4")
    first, count = given.pop("first", 0), given.pop("count", 32)
    encode, media_type = (encode_png, PNG) if given.pop("png", False) else (_webp, WEBP)
    chosen = range(first, min(first + count, count_units(models.generator, layer)))
    if not chosen:
        raise OptionError(f"got unit {first}, which {layer} does not have; choose a smaller one")
    images = activate_units(models.generator, layer, chosen, **given).images()
    height, width = images.shape[1:3]
    facts = {"layer": layer, "units": [*chosen], "columns": min(COLUMNS, len(images))}
    content = encode(tiled(list(images)))
    return Answer(content, media_type, {**facts, "size": [width, height]})


def moving_images(
    models: Models, given: dict[str, Any]
) -> tuple[list["GeneratedImage"], list[float]]:
    """The images of a morph, if `to` is given, or of a turn; and their fractions or azimuths."""
    from unpool.generate import morph, morph_fractions, parse_style, turntable
    from unpool.generate.sequences import encode_changes

    generator, count = models.generator, given.pop("count", 36)
    change = encode_changes(given.pop("changes", []))
    names = ("from", "to") if "to" in given else ("style",)
    if missing := [name for name in names if not given.get(name)]:
        raise OptionError(f"got no {missing[0]}; wanted from and to for a morph, style for a turn")
    styles = [parse_style(given.pop(name), generator.styles) for name in names]
    if more := {"from", "to", "style"} & given.keys():
        raise OptionError(f"got {more.pop()} with {names[0]}; leave it out")
    if len(styles) == 2:
        at = morph_fractions(count)
        images = morph(generator, styles[0], styles[1], at, transformation=change, **given)
        return images, at
    if "azimuth" in given:
        raise OptionError("got an azimuth for a turn, which has all; leave it out")
    images = turntable(generator, styles[0], count=count, transformation=change, **given)
    return images, [360 * i / count for i in range(count)]


def tiled(images: list["Pixels"]) -> "Pixels":
    """Images (H, W, C) in rows of `COLUMNS`, the last one filled with zeros.

    >>> import numpy as np
    >>> tiled([np.ones((2, 3, 4), np.uint8)] * 9).shape
    (4, 24, 4)
    """
    import numpy as np

    columns = min(COLUMNS, len(images))
    empty = [np.zeros_like(images[0])] * (-len(images) % columns)
    rows = np.stack([*images, *empty])
    rows = rows.reshape(-1, columns, *rows.shape[1:])  # (rows, columns, H, W, C)
    return np.concatenate([np.concatenate([*row], 1) for row in rows])


def _webp(pixels: "Pixels") -> bytes:
    from PIL import Image

    file = io.BytesIO()
    # the fastest method: more effort saves a fifth of the bytes and takes five times as long
    Image.fromarray(pixels).save(file, "WEBP", lossless=True, method=0)
    return file.getvalue()


DRAWINGS = {
    "view.png": Drawing(draw_view, _VIEW),
    "sheet.webp": Drawing(draw_sheet, _MOVING),
    "film.gif": Drawing(draw_film, _FILM),
    "styles.webp": Drawing(draw_styles, _ANGLES),
    "units.webp": Drawing(draw_units, _UNITS),
    "units.png": Drawing(lambda models, given: draw_units(models, {**given, "png": True}), _UNITS),
}
"""By the last part of the address."""
