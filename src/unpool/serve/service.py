"""What the routes share: the networks, the engine, the intake, the metrics; and the own routes."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from unpool.files import strict
from unpool.limits import MAX_HEADER
from unpool.serve import metrics
from unpool.serve.applications import ENDPOINTS, Answer, Models
from unpool.serve.options import parse
from unpool.serve.refusals import Refusal

if TYPE_CHECKING:
    from unpool.serve.engine import Engine, Job
    from unpool.serve.intake import Intake

T = TypeVar("T")

Log = Callable[[str], None]


class Service:
    """What the routes share.

    Args:
        models: the networks.
        engine: the thread that computes.
        intake: reads bodies.
        log: called with a line for each answer.
    """

    def __init__(self, models: Models, engine: "Engine", intake: "Intake", log: Log) -> None:
        self.models, self.engine, self.intake, self.log = models, engine, intake, log
        self.metrics = metrics.Metrics()

    async def run(self, request: Request, work: Callable[["Job"], T]) -> T:
        """Compute something for a request; given up when its client leaves."""
        leaving = asyncio.ensure_future(_left(request))
        try:
            return await self.engine.run(work, leaving)
        finally:
            leaving.cancel()

    async def apply(self, request: Request) -> Response:
        """Answer a request by the application of its path."""
        application, options, check, accepted = ENDPOINTS[request.scope["path"]]
        self.engine.require_room()
        async with self.intake.upload(request) as upload:
            given = parse(upload.options, options)
            if check is not None:
                if not upload.data:
                    raise Refusal(400, "got no image; send it as the body, or as the field 'file'")
                await asyncio.to_thread(check, upload.data)
            if wanted := accepted.get(request.headers.get("accept", "")):
                given.setdefault("format", wanted)
            answer = await self.run(
                request, lambda job: application(self.models, upload, given, job)
            )
        return response(answer)

    async def ready(self, request: Request) -> Response:
        """`/readyz`: 200 when requests are accepted, 503 before and while stopping."""
        if self.engine.ready:
            return PlainTextResponse("ok")
        return PlainTextResponse("loading", 503, {"retry-after": "5"})

    async def live(self, request: Request) -> Response:
        """`/livez`: 200 as long as the process answers."""
        return PlainTextResponse("ok")

    async def measure(self, request: Request) -> Response:
        """`/metrics`: for Prometheus."""
        text = self.metrics.text(self.engine)
        return PlainTextResponse(text, media_type=metrics.MEDIA_TYPE)


async def _left(request: Request) -> None:
    """Return when the client has left; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def response(answer: Answer, more: Mapping[str, str] | None = None) -> Response:
    """The content, with the facts in a header if they are not in it, and with more headers."""
    headers = dict(more or {})
    facts = json.dumps(strict(answer.facts))  # ASCII
    if answer.facts and len(facts) <= MAX_HEADER:
        headers["x-unpool-facts"] = facts
    return Response(answer.content, 200, headers, answer.media_type)
