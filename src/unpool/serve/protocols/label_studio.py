"""The backend of Label Studio for machine learning: predictions as brush labels.

Label Studio is given the address `http://HOST:PORT/label-studio`, and asks `/setup`, `/predict` and
`/health` below it. It names images by address, but a request must not choose what the service
reads: so only what the operator allowed is read, see `Images`.
"""

import asyncio
import base64
import binascii
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unpool.errors import ImageError, OptionError, UnpoolError, require_path
from unpool.files import require_regular
from unpool.formats.rle import encode_brush
from unpool.limits import MAX_BODY, MAX_CONFIG, MIB
from unpool.serve.applications import segment_image
from unpool.serve.intake import require_size
from unpool.serve.protocols.messages import parse_object, present_classes
from unpool.serve.refusals import Refusal

if TYPE_CHECKING:
    from unpool.serve.engine import Job
    from unpool.serve.service import Service

_SECONDS = 80.0  # after which tasks are left without predictions; Label Studio waits 100 s
_LOCAL = "/data/local-files/"


class Images:
    """Reads the images of tasks: those in the address itself (`data:`), and what is allowed here.

    Args:
        origin: the address of Label Studio, such as http://localhost:8080, whose `/data/` is read.
        token: of its API.
        folder: of the images that are in its local storage.

    Raises:
        OptionError: the origin is no address, or the folder is missing.

    >>> Images().read("data:image/png;base64,aW1hZ2U=")
    b'image'
    """

    def __init__(
        self, origin: str | None = None, token: str = "", folder: str | Path | None = None
    ) -> None:
        self.origin, self.token = None if origin is None else urlsplit(origin), token
        if self.origin is not None and not (
            self.origin.scheme in ("http", "https") and self.origin.netloc
        ):
            raise OptionError(
                f"got the address {origin!r} of Label Studio; wanted one such as "
                "http://localhost:8080"
            )
        self.folder = None if folder is None else require_path("images", folder).resolve()
        if self.folder is not None and not self.folder.is_dir():
            raise OptionError(f"got the folder {folder} of images, which does not exist; check it")

    def read(self, address: object) -> bytes:
        """The bytes of an image.

        Raises:
            ImageError: it may not be read, or cannot be.
        """
        if not isinstance(address, str):
            raise ImageError("got a task without the address of an image; check the config")
        if address.startswith("data:"):
            return _decoded(address)
        try:
            parts = urlsplit(address)
        except ValueError:
            raise ImageError("got a damaged address; import the image again") from None
        where = unquote(parts.path)
        known = self.origin and (self.origin.scheme, self.origin.netloc)
        ours = (parts.scheme, parts.netloc) in (("", ""), known)
        if ours and where == _LOCAL and self.folder is not None:
            return self._local(parse_qs(parts.query).get("d", [""])[0])
        if not ours or not where.startswith("/data/") or ".." in where.split("/"):
            raise ImageError(
                "got an address that is not of Label Studio's own files; import the images into "
                "Label Studio, or use local storage, whose folder the server is given"
            )
        if self.origin is None:
            raise ImageError("got an upload; start the server with Label Studio's address")
        query = f"?{parts.query}" if parts.query else ""
        base = f"{self.origin.scheme}://{self.origin.netloc}{self.origin.path.rstrip('/')}"
        return self._fetched(f"{base}{parts.path}{query}")

    def _local(self, name: str) -> bytes:
        assert self.folder is not None
        try:
            path = (self.folder / name).resolve()
        except (OSError, ValueError, RuntimeError):
            path = self.folder
        if not path.is_relative_to(self.folder) or not path.is_file():
            raise ImageError(f"got {name[:200]!r}, which is not in the server's folder of images")
        with require_regular(path, ImageError).open("rb") as file:
            return _bounded(file.read(MAX_BODY + 1))

    def _fetched(self, address: str) -> bytes:
        headers = {"Authorization": f"Token {self.token}"} if self.token else {}
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            request = urllib.request.Request(address, headers=headers)
            with opener.open(request, timeout=20) as answer:
                return _bounded(answer.read(MAX_BODY + 1))
        except urllib.error.HTTPError as error:
            error.close()
            cure = {401: "set LABEL_STUDIO_API_KEY", 403: "set LABEL_STUDIO_API_KEY"}
            redirected = "it is in other storage, which is not followed: import the image"
            what = cure.get(error.code, redirected if 300 <= error.code < 400 else "check it")
            raise ImageError(f"Label Studio answered {error.code} for an image; {what}") from None
        except (OSError, ValueError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ImageError(f"Label Studio cannot be reached ({reason}); check it") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirection, which may lead anywhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_BODY:
        raise ImageError(f"got an image of more than {MAX_BODY // MIB} MiB; scale it down")
    return data


def _decoded(address: str) -> bytes:
    head, _, content = address.partition(",")
    try:
        if head.endswith(";base64"):
            return base64.b64decode(content, validate=True)
    except (ValueError, binascii.Error):
        pass
    raise ImageError("got a damaged data: address; wanted base64")


class Tags(NamedTuple):
    """The tags of a labeling config that predictions are for."""

    name: str  #: of BrushLabels
    image: str  #: the name of its Image
    key: str  #: of the address in the data of a task
    labels: Mapping[str, str]  #: by name without case


def find_tags(config: object) -> Tags:
    """The first BrushLabels of a labeling config, and its Image.

    Raises:
        OptionError: there are none, or the config cannot be read.

    >>> from unpool.formats.label_studio import labeling_config
    >>> find_tags(labeling_config(["background", "cat"]))
    Tags(name='label', image='image', key='image', labels={'cat': 'cat'})
    """
    text = config if isinstance(config, str) else ""
    try:
        if len(text) > MAX_CONFIG or "<!" in text.replace("<!--", ""):  # entities may expand
            raise ElementTree.ParseError("declarations, or too long")
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise OptionError(
            f"got a labeling config that cannot be read ({error}); correct it"
        ) from None
    images = {one.get("name"): one.get("value", "") for one in root.iter("Image")}
    for brush in root.iter("BrushLabels"):
        name, image = brush.get("name", ""), brush.get("toName", "")
        if image in images:
            values = [label.get("value", "") for label in brush.iter("Label")]
            labels = {value.strip().casefold(): value for value in values}
            return Tags(name, image, images[image].removeprefix("$"), labels)
    raise OptionError(
        "got a labeling config without BrushLabels for an Image; add them: unpool segment "
        "writes a config with the format labelstudio"
    )


def predict(service: "Service", data: bytes, tags: Tags, job: "Job") -> dict[str, Any]:
    """The prediction for an image: a region for each class that has a label."""
    result, _ = segment_image(service.models, data, job)
    height, width = result.labels.shape
    regions = []
    for number, name, score, mask in present_classes(result):
        label = tags.labels.get(name.casefold())
        if label is None:
            continue
        code = encode_brush(mask, (height, width), (0, 0))
        regions.append({
            "id": f"unpool-{number}",
            "type": "brushlabels",
            "from_name": tags.name,
            "to_name": tags.image,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": score,
            "readonly": False,
            "value": {"format": "rle", "rle": code, "brushlabels": [label]},
        })  # fmt: skip
    scores = [region["score"] for region in regions]
    mean = round(sum(scores) / len(scores), 4) if scores else 0.0
    return {"model_version": service.models.version, "score": mean, "result": regions}


def routes(service: "Service", images: Images) -> list[Route]:
    """The routes below `/label-studio`."""
    version = service.models.version

    async def health(request: Request) -> Response:
        service.engine.require_ready()
        return JSONResponse({"status": "UP", "model_class": "unpool"})

    async def setup(request: Request) -> Response:
        async with service.intake.read(request) as body:
            given = parse_object(body)
        if given.get("schema"):
            find_tags(given["schema"])
        return JSONResponse({"model_version": version})

    async def webhook(request: Request) -> Response:
        async with service.intake.read(request):
            return JSONResponse({"status": "Unknown event"})

    async def predictions(request: Request) -> Response:
        service.engine.require_room()
        start = time.monotonic()
        async with service.intake.read(request) as body:
            given = parse_object(body)
            tags, tasks = find_tags(given.get("label_config")), given.get("tasks")
            if not isinstance(tasks, list):
                raise Refusal(400, "got no list of tasks; send one")
            results = []
            for task in tasks:
                found: dict[str, Any] = {"model_version": version, "score": 0.0, "result": []}
                try:
                    if time.monotonic() - start > _SECONDS:
                        raise ImageError("no time is left; ask for fewer tasks at a time")
                    content = task.get("data") if isinstance(task, dict) else None
                    address = content.get(tags.key) if isinstance(content, dict) else None
                    data = await asyncio.to_thread(images.read, address)
                    await asyncio.to_thread(require_size, data)
                    found = await service.run(request, partial(predict, service, data, tags))
                except UnpoolError as error:
                    if isinstance(error, Refusal) and error.status != 413:
                        raise
                    service.log(f"label-studio: a task has no prediction: {error}")
                results.append(found)
        return JSONResponse({"results": results})

    return [
        Route("/label-studio/", health),
        Route("/label-studio/health", health),
        Route("/label-studio/setup", setup, methods=["POST"]),
        Route("/label-studio/webhook", webhook, methods=["POST"]),
        Route("/label-studio/predict", predictions, methods=["POST"]),
    ]
