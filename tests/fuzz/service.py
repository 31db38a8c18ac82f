"""Requests to the service, as uvicorn passes them on; answers within bounds, without its inside."""

import asyncio
import json
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h11

from tests.fuzz.seeds import weights
from unpool.errors import DataError

ACCEPTED = (200, 201, 202, 204, 206, 304)
REFUSALS = (400, 403, 404, 405, 413, 415, 416, 421, 422, 503, 504)
"""The codes that a request alone can cause; 503 is for lack of memory."""

_SECONDS = 5.0  # of a request or a job


@cache
def _service() -> tuple[Any, asyncio.Runner, tuple[str, ...]]:
    """The application, the loop that it runs in, and what no answer may hold."""
    from unpool.models import save_pretrained
    from unpool.serve.app import make_app
    from unpool.serve.applications import Models
    from unpool.serve.studio import jobs
    from unpool.serve.studio.studio import Settings

    jobs.JOB_SECONDS = _SECONDS  # type: ignore[misc]
    card = {"classes": ["background", "cat", "dog"], "long_side": 64, "license": "none"}
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    models = Models(str(save_pretrained(weights.small_net(), folder / "tiny", card)))
    app = make_app(models, load=models.segmenter, seconds=_SECONDS, studio=Settings())
    app.service.engine.start()
    while not app.service.engine.ready:
        assert app.service.engine.error is None
        time.sleep(0.01)
    secrets = (str(folder), str(Path.home()), sys.prefix, str(Path(__file__).parents[2]))
    return app, asyncio.Runner(), (*secrets, "Traceback", "site-packages")


def ask(head: bytes, body: bytes) -> None:
    """Send a request, and check the answer.

    Raises:
        DataError: it was refused, with the message.
        AssertionError: a fault of the service.
    """
    app, runner, secrets = _service()
    scope, body = _scope(head, body)
    status, headers, content = runner.run(_answer(app, scope, body))
    _check(status, headers, content, secrets)
    if status == 202:
        path = f"/api/jobs/{json.loads(content)['job']}/events"
        events = scope | {"method": "GET", "path": path, "query_string": b""}
        _, headers, content = runner.run(_answer(app, events, b""))
        _check(200, headers, content, secrets)
        _, event, data = content.decode().strip().rpartition("\n\n")[2].split("\n")
        if event == "event: failed":
            error = json.loads(data.partition(" ")[2])["error"]
            assert "a fault of the service" not in error
            raise DataError(error)
    end = time.monotonic() + 2 * _SECONDS
    while app.service.engine.jobs:
        assert time.monotonic() < end, "a job goes on after its answer"
        time.sleep(0.001)
    assert app.service.intake.held == 0


def _check(status: int, headers: list[str], content: bytes, secrets: tuple[str, ...]) -> None:
    text = content.decode("latin-1") + json.dumps(headers)
    assert not [secret for secret in secrets if secret in text], text[:500]
    if status not in ACCEPTED:
        assert status in REFUSALS, (status, content[:500])
        raise DataError("no such range" if status == 416 else json.loads(content)["error"])


def _scope(head: bytes, body: bytes) -> tuple[dict[str, Any], bytes]:
    """A scope of ASGI, or a `DataError` for what uvicorn refuses itself."""
    lines = [line for line in head.split(b"\n") if not line.lower().startswith(b"content-length")]
    lines = [*filter(None, lines), b"Content-Length: %d" % len(body), b"", body]
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"\r\n".join(lines))
    parts = []
    try:
        event = request = connection.next_event()
        while isinstance(event := connection.next_event(), h11.Data):
            parts.append(event.data)
    except h11.RemoteProtocolError as error:
        raise DataError(f"got no request of HTTP: {str(error).encode()!r}") from None
    if not isinstance(request, h11.Request):
        raise DataError("got the beginning of a request")
    path, _, query = request.target.partition(b"?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
        "method": request.method.decode("ascii"), "path": unquote(path.decode("ascii")),
        "raw_path": path, "query_string": query, "root_path": "", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "headers": [*request.headers],
    }  # fmt: skip
    return scope, b"".join(parts)


async def _answer(app: Any, scope: dict[str, Any], body: bytes) -> tuple[int, list[str], bytes]:
    pending = [body[: len(body) // 2], body[len(body) // 2 :]]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not pending:
            await asyncio.sleep(3600)  # the client waits for the answer
        return {"type": "http.request", "body": pending.pop(0), "more_body": bool(pending)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers = [f"{k.decode('latin-1')}: {v.decode('latin-1')}" for k, v in sent[0]["headers"]]
    return sent[0]["status"], headers, b"".join(m.get("body", b"") for m in sent[1:])
