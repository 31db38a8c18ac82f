"""The API of the page Look inside: layers, strongest units at a pixel, projections, the decoder.

Pixels are those of the square that the network sees, which `square.png` shows.
"""

import asyncio
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unpool.errors import OptionError
from unpool.serve import options
from unpool.serve.applications import PNG, project_image, read
from unpool.serve.intake import query_options
from unpool.serve.studio.studio import Studio, file_response, require_known_id

if TYPE_CHECKING:
    from torch import Tensor

    from unpool.serve.studio.studio import Image
    from unpool.vision.images import Pixels
    from unpool.visualize.decoding import DecoderMap
    from unpool.visualize.fields import Field
    from unpool.visualize.preprocessing import LoadedModel

TILE = 72
"""Side of the map of a unit on the sheet, in pixels."""

_UNITS = (
    options.Option("layer", options.text),
    options.Option("x", options.whole(0, 10**5)),
    options.Option("y", options.whole(0, 10**5)),
    options.Option("count", options.whole(1, 64)),
)
_PROJECT = tuple(option for option in options.PROJECT if option.name != "format")
_DECODE = (
    options.Option("class", options.text, "name"),
    options.Option("unit", options.whole(0, 10**6)),
)


def routes(studio: Studio) -> list[Route]:
    """The routes of the page."""
    page = _Page(studio, Inside(studio))
    return [
        Route("/api/layers", page.layers),
        Route("/api/top.png", page.top),
        Route("/api/images/{id}/square.png", page.square),
        Route("/api/images/{id}/units", page.units, methods=["POST"]),
        Route("/api/images/{id}/project", page.project, methods=["POST"]),
        Route("/api/images/{id}/decode", page.decode, methods=["POST"]),
    ]


class _Page:
    """Answers requests."""

    def __init__(self, studio: Studio, inside: "Inside") -> None:
        self.studio, self.inside = studio, inside

    async def layers(self, request: Request) -> Response:
        """`/api/layers`: the layers of the model, and what else can be asked of it."""
        return JSONResponse(await self.studio.run(request, lambda job: self.inside.describe()))

    async def square(self, request: Request) -> Response:
        """`/api/images/ID/square.png`: what the network sees of an image."""
        data = self.studio.image(request).data
        return file_response(
            await self.studio.run(request, lambda job: self.inside.square(data)), PNG
        )

    async def units(self, request: Request) -> Response:
        """`POST /api/images/ID/units`: the strongest units of a layer at a pixel."""
        image, given = self.studio.image(request), options.parse(query_options(request), _UNITS)
        return JSONResponse(
            await self.studio.run(request, lambda job: self.inside.units(image, **given))
        )

    async def project(self, request: Request) -> Response:
        """`POST /api/images/ID/project`: the projection of a unit, or of the score of a class."""
        image, given = self.studio.image(request), options.parse(query_options(request), _PROJECT)
        return JSONResponse(
            await self.studio.run(request, lambda job: self.inside.project(image, given))
        )

    async def decode(self, request: Request) -> Response:
        """`POST /api/images/ID/decode`: the decoder of the network, stage by stage."""
        image, given = self.studio.image(request), options.parse(query_options(request), _DECODE)
        return JSONResponse(
            await self.studio.run(request, lambda job: self.inside.decode(image, **given))
        )

    async def top(self, request: Request) -> Response:
        """`/api/top.png`: the strongest patches of a unit, where the studio was given them."""
        given = options.parse(query_options(request), options.PROJECT[:2])
        content = await asyncio.to_thread(self.inside.top, **given)
        require_known_id(content is not None)
        return file_response(content or b"", PNG)


class Inside:
    """The network that is looked into; all but `top` runs in the thread that computes.

    Args:
        studio: what all pages share.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._fields: dict[str, Field] = {}
        self._seen: tuple[tuple[int, str], Tensor] | None = None

    @cached_property
    def loaded(self) -> "LoadedModel":
        """The model that was named at the start, else the network that segments."""
        from unpool.visualize.preprocessing import load_model

        models, given = self.studio.models, self.studio.settings.model
        if not given:
            return models.loaded
        where = {k: v for k, v in models.loading.items() if k == "device"}
        return replace(load_model(**given, **where), name=given.get("torch_model", models.name))

    def describe(self) -> dict[str, Any]:
        """Layers with their shapes, and which of them end a stage; rules, classes, the decoder."""
        from unpool.visualize.activations import list_layers, stage_ends
        from unpool.visualize.decoding import has_decoder
        from unpool.visualize.rules import RULES

        loaded = self.loaded
        layers = [
            e for e in list_layers(loaded.model, loaded.trial_image()) if len(e.shape) in (1, 3)
        ]
        return {
            "model": loaded.name,
            "side": loaded.preprocessing.size,
            "classes": list(loaded.classes),
            "decoder": has_decoder(loaded.model),
            "rules": [*RULES],
            "stages": stage_ends(layers),
            "layers": [layer._asdict() for layer in layers],
        }

    def square(self, data: bytes) -> bytes:
        """The square of an image that the network sees, as a PNG."""
        return _png(self.loaded.preprocessing.crop(read(data)))

    def units(
        self, image: "Image", layer: str = "", x: int = -1, y: int = -1, count: int = 12
    ) -> dict[str, Any]:
        """The units with the largest activations at the cell of a layer that is nearest to a pixel.

        Without a pixel, at the cell of the largest activation; in a layer without maps, of all.
        """
        import torch

        from unpool.vision.drawing import heat_map

        maps, shape = self._maps(image, layer), None
        values, place = maps, None
        if maps.dim() == 3:
            shape = list(maps.shape[1:])
            place = self._cell(layer, maps, x, y)
            values = maps[:, place[0], place[1]]
        best = torch.argsort(values, descending=True, stable=True)[:count].tolist()
        tiles = [heat_map(maps[unit].numpy(), "inferno") for unit in best] if shape else []
        field = self._field(layer)
        return {
            "layer": layer,
            "place": place,
            "map": shape,
            "box": place and list(field.box(*place)),
            "field": max(field.size) if shape else None,
            "units": [{"unit": unit, "value": float(values[unit])} for unit in best],
            "sheet": self.studio.keep(_png(_strip(tiles))) if tiles else None,
        }

    def _maps(self, image: "Image", layer: str) -> "Tensor":
        """The activations of a layer, (C, h, w) or (C,); those of the last call are kept."""
        import torch

        from unpool.visualize.activations import ActivationRecorder

        if not layer:
            raise OptionError("got no layer; name one, such as trunk.stages.4")
        key = hash(image.data), layer  # the image itself is not kept
        if self._seen is None or self._seen[0] != key:
            crop = self.loaded.preprocessing.crop(read(image.data))
            recorder = ActivationRecorder(self.loaded.model, [layer])
            with torch.no_grad():
                maps = recorder(self.loaded.prepare([crop]))[layer][0].float().cpu()
            if maps.dim() not in (1, 3):
                raise OptionError(f"got layer {layer!r}, which has no maps; choose another")
            self._seen = key, maps
        return self._seen[1]

    def _field(self, layer: str) -> "Field":
        from unpool.visualize.fields import measure_field

        if layer not in self._fields:
            loaded = self.loaded
            self._fields[layer] = measure_field(loaded.model, loaded.trial_image(), layer)
        return self._fields[layer]

    def _cell(self, layer: str, maps: "Tensor", x: int, y: int) -> list[int]:
        """The row and column whose receptive field has its center nearest to a pixel."""
        field, side = self._field(layer), self.loaded.preprocessing.size
        height, width = maps.shape[1:]
        if x < 0 or y < 0:
            flat = int(maps.amax(0).argmax())
            return [flat // width, flat % width]
        found = []
        for at, count, size, jump, start in zip((y, x), (height, width), *field, strict=True):
            near = (at + 0.5 - start - size / 2) / jump if jump else at * count / side - 0.5
            found.append(min(max(round(near), 0), count - 1))
        return found

    def project(self, image: "Image", given: dict[str, Any]) -> dict[str, Any]:
        """A projection as of `/v1/project`, and what is within the field: patch and signal."""
        from unpool.vision.figures import patch

        unit = given.get("unit")
        crop, shown, facts = project_image(self.loaded, self._fields, image.data, given)
        whole = [0, 0, crop.shape[1], crop.shape[0]]
        box, keep = facts["box"] or whole, self.studio.keep
        top = unit is not None and self.top(facts["layer"], unit) is not None
        return {
            **facts,
            "image": keep(_png(shown)),
            "patch": keep(_png(patch(crop, box))),
            "projection": keep(_png(patch(shown, box))),
            "top": top,
        }

    def top(self, layer: str = "", unit: int = 0) -> bytes | None:
        """The figure of a unit in the gallery that the studio was started with, if it has one."""
        from unpool.visualize.gallery import figure_path

        if not layer or (folder := self.studio.settings.gallery) is None:
            return None
        path = (folder / figure_path(layer, unit)).resolve()
        inside = path.is_relative_to(folder.resolve())
        return path.read_bytes() if inside and path.is_file() else None

    def decode(
        self, image: "Image", name: str | None = None, unit: int | None = None
    ) -> dict[str, Any]:
        """The maps of the decoder for a class: an image of each, as large as the map."""
        import torch

        from unpool.vision.drawing import to_images
        from unpool.visualize.class_scores import score_maps
        from unpool.visualize.decoding import decode

        loaded, keep = self.loaded, self.studio.keep
        label = None if name is None else loaded.find_class(name)
        prepared = loaded.prepare([loaded.preprocessing.crop(read(image.data))])
        found = decode(loaded.model, prepared, label, unit, names=loaded.classes)
        counts = torch.bincount(score_maps(loaded.model, prepared)[0].argmax(0).flatten())
        return {
            "class": loaded.class_name(found.label),
            "classes": [
                {"id": k, "name": loaded.class_name(k), "fraction": n / int(counts.sum())}
                for k, n in enumerate(counts.tolist())
                if n
            ],
            **found.to_dict(),
            "stages": [[one and self._map(one) for one in pair] for pair in found.stages],
            "image": keep(_png(to_images(found.scores[None], contrast="linear")[0])),
        }

    def _map(self, one: "DecoderMap") -> dict[str, Any]:
        from unpool.vision.drawing import heat_map

        image = self.studio.keep(_png(heat_map(one.values.numpy(), "inferno")))
        size, largest = list(one.values.shape), float(one.values.max())
        return {
            "layer": one.layer,
            "unit": one.unit,
            "size": size,
            "largest": largest,
            "image": image,
        }


def _strip(maps: list["Pixels"]) -> "Pixels":
    """Maps side by side, each `TILE` pixels wide and high."""
    import cv2
    import numpy as np

    side = max(maps[0].shape[:2])
    how = cv2.INTER_AREA if side > TILE else cv2.INTER_NEAREST
    return np.concatenate([cv2.resize(one, (TILE, TILE), interpolation=how) for one in maps], 1)


def _png(image: "Pixels") -> bytes:
    from unpool.vision.images import encode_png

    return encode_png(image)
