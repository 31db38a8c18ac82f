"""Who may ask: the host that was named, pages of this origin only, and those with the key.

A page of another site can send a POST to a server on this machine without asking. So whatever is
not a GET must come from this origin, or from no browser at all, which sends neither `Origin` nor
`Sec-Fetch-Site`. A name of another site may also resolve to this machine (DNS rebinding), so hosts
are compared as a whole.
"""

import base64
import binascii
import hmac
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unpool.serve.refusals import Refusal

LOOPBACK = ("127.0.0.1", "localhost", "::1")

OPEN = ("/livez", "/readyz")
"""What needs no key."""

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Of every answer."""


class Guard:
    """An ASGI application that refuses some requests, and passes the others on.

    Args:
        app: the application behind it.
        hosts: names and addresses by which the service may be called.
        key: what requests must have; None for none.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = LOOPBACK, key: str | None = None):
        self.app, self.hosts = app, {host.casefold() for host in hosts}
        self.key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        try:
            self.check(scope["method"], scope["path"], headers)
        except Refusal as refusal:
            answer = JSONResponse({"error": str(refusal)}, refusal.status, refusal.headers)
            return await answer(scope, receive, with_headers)
        await self.app(scope, receive, with_headers)

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Raise a `Refusal`: 421 for another host, 403 for another origin, 401 without the key.

        >>> Guard(None).check("POST", "/", {"host": "localhost:8000", "sec-fetch-site": "none"})
        """
        host = headers.get("host", "")
        if _name(host) not in self.hosts:
            raise Refusal(
                421, f"got the host {host[:60]!r}, which is not served; name it with --allow-host"
            )
        if method not in ("GET", "HEAD") and not _is_own(headers, host):
            raise Refusal(403, "got a request by a page of another site; ask from a page of this")
        if self.key is not None and path not in OPEN:
            given = _key(headers.get("authorization", ""))
            if not hmac.compare_digest(given, self.key):
                raise Refusal(
                    401,
                    "got no key, or a wrong one; send the header 'Authorization: Bearer KEY'",
                    {"www-authenticate": 'Basic realm="unpool"'},  # Chromium reads one challenge
                )


def _name(host: str) -> str:
    """The name in a Host header, without the port; empty if there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").casefold()
    except ValueError:
        return ""


def _is_own(headers: Mapping[str, str], host: str) -> bool:
    """Whether a request comes from a page of this origin, or from no page."""
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == host
    except ValueError:
        return False


def _key(authorization: str) -> bytes:
    """The key in a header: of Bearer, or the password of Basic, which Label Studio sends."""
    kind, _, value = authorization.partition(" ")
    if kind.casefold() == "bearer":
        return value.strip().encode("latin-1")
    if kind.casefold() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
