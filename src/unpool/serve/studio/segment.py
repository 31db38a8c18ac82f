"""The page Segment: results of an image by options, and the files of a result."""

import asyncio
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image as Pillow
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unpool.files import json_line
from unpool.formats import coco
from unpool.formats.geojson import to_geojson
from unpool.formats.labelme import to_labelme
from unpool.formats.objects import has_background
from unpool.formats.yolo import to_yolo
from unpool.recipes.presets import EDECONVNET
from unpool.serve.applications import JPEG, JSON, PNG, mask_facts, read, segment_image
from unpool.serve.options import SEGMENT, parse
from unpool.serve.studio.studio import File, Image, Studio, file_response, require_known_id
from unpool.vision.boxes import reduced, reduced_size
from unpool.vision.georeference import read_georeference
from unpool.vision.images import encode_image, encode_mask, encode_png, read_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unpool.formats.objects import Objects
    from unpool.segment.result import Segmentation
    from unpool.serve.applications import Models
    from unpool.serve.engine import Job

OPTIONS = tuple(option for option in SEGMENT if option.name != "format")
"""Of a result; its formats are its files."""

_RESULT = 64 * 1024  # bytes of the small things of a result


class Result(NamedTuple):
    """A segmented image: what a page shows, and what its files are made of."""

    image: Image
    facts: dict[str, Any]
    ids: bytes  #: gray PNG of class ids, as large as the view
    scores: bytes  #: gzip of probabilities from 0 to 255, (classes, height, width) of the view
    mask: bytes  #: the index PNG
    json: bytes
    objects: "Objects"
    palette: "NDArray[np.uint8]"

    @property
    def size(self) -> int:
        """Bytes in memory."""
        parts = self.ids, self.scores, self.mask, self.json
        return sum(map(len, parts)) + self.objects.numbers.nbytes + _RESULT


def routes(studio: Studio) -> list[Route]:
    """The routes of the page."""
    page = _Page(studio)
    return [
        Route("/api/images/{id}/segment", page.segment, methods=["POST"]),
        Route("/api/results/{id}", page.result),
        Route("/api/results/{id}/{file}", page.file),
    ]


class _Page:
    """Answers requests, and knows which results there are already."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.known: dict[tuple[str, str], str] = {}  # results by image and options

    async def segment(self, request: Request) -> Response:
        """`POST /api/images/ID/segment`: the result if there is one, or a job that makes it."""
        studio, name = self.studio, request.path_params["id"]
        image = studio.image(request)
        given = parse({k: request.query_params.getlist(k) for k in request.query_params}, OPTIONS)
        key = name, json.dumps(given, sort_keys=True)
        self.known = {k: result for k, result in self.known.items() if result in studio.store}
        if (result := self.known.get(key)) is not None:
            return JSONResponse({"result": self._facts(result)})

        def work(job: "Job") -> dict[str, Any]:
            result = compute(studio.models, image, dict(given), job)
            self.known[key] = made = studio.store.add(result, result.size)
            return self._facts(made)

        return JSONResponse({"job": await studio.jobs.start(work)}, 202)

    async def result(self, request: Request) -> Response:
        """`/api/results/ID`: the facts of a result."""
        return JSONResponse(self._facts(request.path_params["id"]))

    async def file(self, request: Request) -> Response:
        """`/api/results/ID/FILE`: a file of a result; with `?download=NAME` one to save."""
        result = self.studio.store.get(request.path_params["id"], Result)
        name = request.path_params["file"]
        if name == "scores.bin":
            packed = {"content-encoding": "gzip"}
            return file_response(result.scores, "application/octet-stream", **packed)
        found = await asyncio.to_thread(make_file, result, name)
        given = request.query_params.get("download", "")
        stem = "".join(c for c in given if c.isascii() and (c.isalnum() or c in "-_"))
        return file_response(*found, f"{stem[:80]}.{name}" if stem else "")

    def _facts(self, name: str) -> dict[str, Any]:
        return {"id": name, **self.studio.store.get(name, Result).facts}


def view(data: bytes) -> bytes:
    """An image as pages show it: a JPEG, upright, of at most the size at which scores are kept."""
    shown = Pillow.fromarray(reduced(read(data)))
    return encode_image(shown, ".jpg")


def compute(models: "Models", image: Image, given: dict[str, Any], job: "Job") -> Result:
    """Segment an image with the options of `/v1/segment`."""
    start = time.perf_counter()
    if given.get("mode") == "instance":
        job.report("boxes", find_boxes(models, image, given))
    found, description = segment_image(models, image.data, job, **given)
    seconds = round(time.perf_counter() - start, 3)
    height, width = reduced_size(found.labels.shape)
    classes, scores = _scores(found)
    facts = {
        **found.to_dict(),
        "width": width,
        "height": height,
        "boxes": found.boxes.tolist(),
        "description": description,
        "seconds": seconds,
        "scores": classes,
        "strongest": strongest(found),
    }
    labels = Pillow.fromarray(found.labels)
    if labels.size != (width, height):
        labels = labels.resize((width, height), Pillow.Resampling.NEAREST)
    about = {**mask_facts(models, found), **found.to_dict(), "description": description}
    return Result(
        image,
        facts,
        encode_image(labels),
        gzip.compress(scores, 1),
        encode_mask(found.labels, found.palette),
        json_line({**about, "seconds": seconds}).encode(),
        found.objects(),
        found.palette,
    )


def find_boxes(models: "Models", image: Image, given: dict[str, Any]) -> list[list[int]]:
    """The squares that instance-wise segmentation will look at, in its order."""
    from unpool.segment.aggregate import squares

    segmenter: Any = models.segmenter(given.get("preset"), given.get("ensemble"))
    segmenter = getattr(segmenter, "deconvnet", segmenter)  # an ensemble has it for the proposals
    preset = None if given.get("preset") == EDECONVNET else given.get("preset")
    names = ("method", "proposals")
    options = {name: given[name] for name in names if name in given}
    how = segmenter.resolve("instance", preset=preset, **options)
    pixels = read(image.data)
    small = reduced(pixels)
    boxes = squares(small, how.preset, how.method, how.proposals)
    scale = pixels.shape[1] / small.shape[1]
    found: list[list[int]] = np.rint(boxes * scale).astype(np.int64).tolist()
    return found


def make_file(result: Result, name: str) -> File:
    """A file of a result, as the command line writes it.

    Raises:
        Refusal: 404 for another name.
    """
    kind, _, number = name.removesuffix(".png").partition("-")
    if kind == "cutout" and number.isdecimal() and name.endswith(".png"):
        return File(cutout(result, int(number[:3])), PNG)
    require_known_id(name in FILES)
    make, media_type = FILES[name]
    return File(make(result), media_type)


def cutout(result: Result, label: int) -> bytes:
    """A class of an image on transparent ground, as large as its objects, as a PNG."""
    labels = read_mask(result.mask)
    rows, columns = (np.flatnonzero((labels == label).any(axis)) for axis in (1, 0))
    require_known_id(len(rows) > 0)
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    alpha = np.where(labels[box] == label, 255, 0).astype(np.uint8)
    return encode_png(np.dstack([read(result.image.data)[box], alpha]))


def _overlay(result: Result) -> bytes:
    from unpool.vision.drawing import overlay

    labels, classes = read_mask(result.mask), result.objects.classes
    painted = overlay(read(result.image.data), labels, result.palette, classes)
    return encode_image(Pillow.fromarray(painted), ".jpg")


def _coco(result: Result) -> bytes:
    part = coco.to_coco(result.objects, _name(result))
    return "".join(coco.merged([part], result.objects.classes)).encode()


def _labelme(result: Result) -> bytes:
    return json.dumps(to_labelme(result.objects, _name(result))).encode()


def _geojson(result: Result) -> bytes:
    return json.dumps(to_geojson(result.objects, read_georeference(None))).encode()


def _name(result: Result) -> str:
    """The name of the image in the formats of other tools."""
    return Path(result.image.name).name or "image"


FILES: dict[str, tuple[Callable[[Result], bytes], str]] = {
    "ids.png": (lambda result: result.ids, PNG),
    "mask.png": (lambda result: result.mask, PNG),
    "overlay.jpg": (_overlay, JPEG),
    "json": (lambda result: result.json, JSON),
    "coco.json": (_coco, JSON),
    "labelme.json": (_labelme, JSON),
    "geojson": (_geojson, JSON),
    "yolo.txt": (lambda result: to_yolo(result.objects).encode(), "text/plain; charset=utf-8"),
}
"""The files of a result by name, besides the probabilities and the cut-outs."""


def _scores(found: "Segmentation") -> tuple[list[int], bytes]:
    """The classes that are probable anywhere, and their probabilities from 0 to 255."""
    if found.stored_probabilities is None:
        return [], b""
    planes = np.rint(255 * found.probabilities).astype(np.uint8)
    kept = np.flatnonzero(planes.any((1, 2)))
    return kept.tolist(), planes[kept].tobytes()


def strongest(found: "Segmentation") -> dict[str, Any] | None:
    """The class that was most probable anywhere, and how probable, if there is only background."""
    if found.logits is None or list(found.fractions()) != found.classes[:1]:
        return None
    if not has_background(found.classes) or len(found.classes) < 2:
        return None
    logits = found.logits.reshape(len(found.classes), -1)
    odds = np.exp(logits - logits.max(0))
    best = (odds[1:] / odds.sum(0)).max(1)
    label = int(best.argmax())
    return {"name": found.classes[1 + label], "probability": float(best[label])}
