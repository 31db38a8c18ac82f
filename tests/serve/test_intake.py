"""Bodies: how large, how slow and how many may be; forms."""

import asyncio
import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from starlette.requests import Request

from unpool.errors import ImageError
from unpool.limits import MIB
from unpool.serve import intake as module
from unpool.serve.intake import Intake, require_samples, require_size
from unpool.serve.refusals import Refusal


def request(*parts, headers=None, query="", slow=False):
    """A request whose body comes in parts; with `slow`, the last one never comes."""
    waiting = [*parts]

    async def receive():
        if not waiting and slow:
            await asyncio.sleep(3600)
        body = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": body, "more_body": bool(waiting) or slow}

    given = [(k.encode(), v.encode()) for k, v in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "headers": given, "query_string": query.encode()}
    return Request(scope, receive)


def read(one, intake=None):
    async def run():
        async with (intake or Intake()).upload(one) as upload:
            return upload

    return asyncio.run(run())


def refused(one, intake=None):
    intake = intake or Intake()
    with pytest.raises(Refusal) as error:
        read(one, intake)
    assert intake.held == 0
    return error.value


def form(*fields):
    """The body and the header of a form; a field is a name, a value, and for a file its name."""
    lines = []
    for name, value, *file in fields:
        about = f'; filename="{file[0]}"' if file else ""
        lines += [b"--xx", f'Content-Disposition: form-data; name="{name}"{about}'.encode()]
        lines += [b"", value if isinstance(value, bytes) else value.encode()]
    body = b"\r\n".join([*lines, b"--xx--", b""])
    return body, {"content-type": "multipart/form-data; boundary=xx"}


def test_a_raw_body_and_the_query():
    upload = read(request(b"ab", b"", b"c", query="mode=tiles&change=a%3D1&change=b&gray"))
    assert upload == (b"abc", "", {"mode": ["tiles"], "change": ["a=1", "b"], "gray": [""]})


def test_a_form():
    content = bytes(range(256)) * 9
    body, headers = form(("mode", "tiles"), ("file", content, "a b.png"), ("crf", "auto"))
    for parts in ([body], [body[:30], body[30:]], [bytes([b]) for b in body]):
        upload = read(request(*parts, headers=headers, query="mode=whole"))
        assert upload.data == content
        assert upload.name == "a b.png"
        assert upload.options == {"mode": ["whole", "tiles"], "crf": ["auto"]}


def test_forms_are_not_kept_on_the_disk(monkeypatch):
    monkeypatch.setattr("tempfile._io.open", None)  # what a rollover to the disk would call
    body, headers = form(("file", bytes(3 * MIB), "a.png"))
    assert len(read(request(body, headers=headers)).data) == 3 * MIB


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (form(("file", "a", "a"), ("file", "b", "b"))[0], "Too many files"),
        (form(*((f"n{i}", "v") for i in range(50)))[0], "Too many fields"),
        (form(("mode", "v" * 70_000))[0], "maximum size"),
        (form(("other", "a", "a"))[0], "wanted it in 'file'"),
        (b"--xx\r\nno header", "cannot be read"),
        (b"no form", "cannot be read"),
    ],
)
def test_damaged_forms(body, message):
    refusal = refused(request(body, headers={"content-type": "multipart/form-data; boundary=xx"}))
    assert refusal.status == 400
    assert message in str(refusal)


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary="])
def test_forms_without_a_boundary(kind):
    assert refused(request(b"abc", headers={"content-type": kind})).status == 400


def test_bodies_that_are_too_large(monkeypatch):
    monkeypatch.setattr(module, "MAX_BODY", 10)
    assert read(request(b"0123456789")).data == b"0123456789"
    close = {"connection": "close"}
    for one, headers in (
        (request(b"0" * 11, headers={"content-length": "11"}), {}),  # the client may send the rest
        (request(b"0" * 41, headers={"content-length": "41"}), close),
        (request(b"01234", b"567890"), close),
        (request(headers={"content-length": "9" * 4000}, slow=True), close),  # nothing is read
    ):
        refusal = refused(one)
        assert (refusal.status, refusal.headers) == (413, headers)


def test_bodies_that_are_too_many(monkeypatch):
    monkeypatch.setattr(module, "MAX_BODIES", 10)

    async def run():
        intake = Intake()
        async with intake.read(request(b"01234567")) as first:
            assert intake.held == 8
            with pytest.raises(Refusal) as error:
                async with intake.read(request(b"012")):
                    pass
            assert intake.held == 8
            async with intake.read(request(b"01")) as second:
                assert (first, second) == (b"01234567", b"01")
        assert intake.held == 0
        return error.value

    refusal = asyncio.run(run())
    assert refusal.status == 429
    assert refusal.headers["retry-after"] == "2"


def test_bodies_that_are_too_slow():
    refusal = refused(request(b"abc", slow=True), Intake(0.05))
    assert (refusal.status, refusal.headers) == (408, {"connection": "close"})
    assert "within 0.05 s" in str(refusal)


def png_header(width, height):
    """A PNG that claims to have so many pixels, and has none."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_pixels_are_counted_by_the_header():
    require_size(png_header(8000, 5000))
    with pytest.raises(Refusal, match=r"got 8000 x 5001 pixels; wanted 40,000,000") as error:
        require_size(png_header(8000, 5001))
    assert error.value.status == 413
    for read in (require_size, require_samples):
        with pytest.raises(Refusal, match="too large by its header") as error:
            read(png_header(30_000, 30_000))
        assert error.value.status == 413
    with pytest.raises(ImageError):
        require_size(b"hello")


def test_samples_of_all_pages_are_counted(monkeypatch):
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((3, 20, 30), np.float32), photometric="minisblack")
    require_samples(file.getvalue())
    monkeypatch.setattr(module, "MAX_SERVED_BYTES", 3 * 20 * 30 * 4 - 1)
    with pytest.raises(Refusal, match="MiB of samples") as error:
        require_samples(file.getvalue())
    assert error.value.status == 413
