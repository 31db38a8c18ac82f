"""The routes of the studio: static files, images, jobs, and those of each page."""

import asyncio
from importlib import resources
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import unpool
from unpool.cards import MODES, Card, read_card
from unpool.limits import MAX_BODY, MAX_SERVED_PIXELS, STORED_SECONDS
from unpool.recipes.presets import AUTO
from unpool.serve.refusals import Refusal
from unpool.serve.studio import draw, look, restore, results, segment
from unpool.serve.studio.studio import STATIC, File, Image, Studio, file_response

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""The content security policy of the page: everything comes from this origin."""

_EVENTS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # no proxy may hold them back


def routes(studio: Studio) -> list[Route | Mount]:
    """All routes of the studio."""
    shell = _Shell(studio)
    return [
        Route("/", shell.index),
        Mount("/static", _Files(packages=[STATIC])),
        Route("/api/about", shell.about),
        Route("/api/samples", shell.samples),
        Route("/api/images", shell.open, methods=["POST"]),
        Route("/api/images/{id}", shell.image),
        Route("/api/images/{id}/view.jpg", shell.view),
        Route("/api/files/{id}", shell.file),
        Route("/api/jobs/{id}/events", shell.events),
        Route("/api/jobs/{id}", shell.cancel, methods=["DELETE"]),
        *segment.routes(studio),
        *look.routes(studio),
        *draw.routes(studio),
        *restore.routes(studio),
        *results.routes(studio),
    ]


class _Files(StaticFiles):
    """Static files that a browser asks for again, and gets again only if they changed."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        if str(args[0]).endswith(".js"):  # some systems call it text/plain, which is not run
            response.headers["content-type"] = "text/javascript; charset=utf-8"
        return response


class _Shell:
    """What all pages ask for."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        page = resources.files(STATIC[0]) / STATIC[1] / "index.html"
        self.page = page.read_bytes()

    async def index(self, request: Request) -> Response:
        """`/`: the one page, whose parts are after the # of its address."""
        headers = {"content-security-policy": POLICY, "cache-control": "no-cache"}
        return Response(self.page, 200, headers, "text/html; charset=utf-8")

    async def about(self, request: Request) -> Response:
        """`/api/about`: the networks, their classes, and what can be asked."""
        models = self.studio.models
        card = await asyncio.to_thread(read_card, models.weights)
        return JSONResponse(
            {
                "version": unpool.__version__,
                "weights": _weights(card, models.name),
                "limits": {"bytes": MAX_BODY, "pixels": MAX_SERVED_PIXELS},
                "results": self.studio.settings.results is not None,
                "model": bool(self.studio.settings.model),
            }
        )

    async def samples(self, request: Request) -> Response:
        """`/api/samples`: the sample images."""
        found = self.studio.samples.items()
        return JSONResponse([image.facts(name) for name, image in found])

    async def open(self, request: Request) -> Response:
        """`POST /api/images`: keep an image, which is the body or the field `file` of a form."""
        async with self.studio.service.intake.upload(request) as upload:
            if not upload.data:
                raise Refusal(400, "got no image; choose a file")
            name = upload.name or (upload.options.get("name") or [""])[0]
            image = await asyncio.to_thread(Image.from_file, upload.data, name[:80])
            await asyncio.to_thread(segment.view, image.data)  # damage shows here, not later
            name = self.studio.store.add(image, len(image.data))
        return JSONResponse({**image.facts(name), "seconds_kept": STORED_SECONDS}, 201)

    async def image(self, request: Request) -> Response:
        """`/api/images/ID`: name and size of an image."""
        return JSONResponse(self.studio.image(request).facts(request.path_params["id"]))

    async def view(self, request: Request) -> Response:
        """`/api/images/ID/view.jpg`: an image as pages show it, upright and of modest size."""
        data = await asyncio.to_thread(segment.view, self.studio.image(request).data)
        return file_response(data, "image/jpeg")

    async def file(self, request: Request) -> Response:
        """`/api/files/ID`: what `Studio.keep` has kept."""
        return file_response(*self.studio.store.get(request.path_params["id"], File))

    async def events(self, request: Request) -> Response:
        """`/api/jobs/ID/events`: what happens in a job, as it happens."""
        name, last = request.path_params["id"], request.headers.get("last-event-id", "")
        self.studio.jobs.require(name)
        events = self.studio.jobs.events(name, int(last[:9]) if last.isdecimal() else -1)
        return StreamingResponse(events, 200, _EVENTS, "text/event-stream")

    async def cancel(self, request: Request) -> Response:
        """`DELETE /api/jobs/ID`: give a job up."""
        self.studio.jobs.cancel(request.path_params["id"])
        return Response(status_code=204)


def _weights(card: Card, name: str) -> dict[str, Any]:
    """The network that segments, as a page needs to know it."""
    from unpool.models import MODELS
    from unpool.vision.images import voc_palette

    names = card.class_names(int(card.arguments.get("classes", len(card.classes or ()))))
    palette = voc_palette().tolist()
    palette[: len(card.palette or ())] = card.palette or ()
    whole = card.architecture in MODELS and card.architecture != "DeconvNet"
    return {
        "name": name,
        "architecture": card.architecture,
        "classes": [{"id": k, "name": n, "color": palette[k]} for k, n in enumerate(names)],
        "modes": [mode for mode in MODES if mode != "instance" or not whole],
        "mode": card.mode or "whole",
        "presence_threshold": card.presence_threshold or 0,
        "ensemble": card.partner is not None,
        "crf": AUTO if card.crf else "densecrf",
    }
