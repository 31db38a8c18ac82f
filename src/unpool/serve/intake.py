"""Read the body of a request within its limits: size, time, and the memory of all bodies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from PIL import Image
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from unpool.errors import ImageError
from unpool.limits import (
    MAX_BODIES,
    MAX_BODY,
    MAX_FIELD,
    MAX_OPTIONS,
    MAX_SERVED_BYTES,
    MAX_SERVED_PIXELS,
    MIB,
)
from unpool.serve.refusals import Refusal
from unpool.vision.images import image_size
from unpool.vision.stacks import read_stack
from unpool.vision.tiff import MAGIC

_CLOSE = {"connection": "close"}  # what is left of the body is not read


class Upload(NamedTuple):
    """What a request brought."""

    data: bytes  #: the file; empty if there is none
    name: str  #: of the file, by the client; empty if unknown
    options: dict[str, list[str]]  #: of the query and the form, by name


class Intake:
    """Reads bodies, and counts the bytes of all that are in memory.

    Args:
        seconds: in which a body must arrive.
    """

    def __init__(self, seconds: float = 20.0) -> None:
        self.seconds = seconds
        self.held = 0  #: bytes of the bodies in memory

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, which counts as held within the context.

        Raises:
            Refusal: 413 if it is too large, 408 if it is too slow, 429 if all bodies together need
                too much memory.
        """
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > MAX_BODY:
            raise _too_large(close=int(length[:20]) > 4 * MAX_BODY)
        parts, size = list[bytes](), 0
        try:
            try:
                async with asyncio.timeout(self.seconds):
                    async for part in request.stream():
                        size += len(part)
                        self.held += len(part)
                        if size > MAX_BODY:
                            raise _too_large(close=True)
                        if self.held > MAX_BODIES:
                            raise Refusal(
                                429, "busy; try again in 2 s", {"retry-after": "2", **_CLOSE}
                            )
                        parts.append(part)
            except TimeoutError:
                message = f"the body did not arrive within {self.seconds:g} s; send it faster"
                raise Refusal(408, message, _CLOSE) from None
            yield b"".join(parts)
        finally:
            self.held -= size

    @asynccontextmanager
    async def upload(self, request: Request) -> AsyncIterator[Upload]:
        """The file and the options of a request: the body is the file, or a form with both.

        Raises:
            Refusal: as `read`; 400 for a damaged form.
        """
        async with self.read(request) as body:
            options = query_options(request)
            if not request.headers.get("content-type", "").startswith("multipart/form-data"):
                yield Upload(body, "", options)
                return
            data, file_name = b"", ""
            async with _form(request, body) as fields:
                for name, field in fields:
                    if not isinstance(field, UploadFile):
                        options.setdefault(name, []).append(field)
                    elif name == "file":
                        data, file_name = await field.read(), field.filename or ""
                    else:
                        raise Refusal(400, f"got a file in the field {name!r}; wanted it in 'file'")
            yield Upload(data, file_name, options)


def query_options(request: Request) -> dict[str, list[str]]:
    """The options in the query of a request, by name."""
    options = dict[str, list[str]]()
    for name, value in request.query_params.multi_items():
        options.setdefault(name, []).append(value)
    return options


class _InMemory(MultiPartParser):
    """Starlette's parser, without files on the disk."""

    spool_max_size = MAX_BODY + MIB

    def close(self) -> None:
        """Close all files; Starlette leaves some open where a form is damaged."""
        for file in self._files_to_close_on_error:
            file.close()


@asynccontextmanager
async def _form(request: Request, body: bytes) -> AsyncIterator[list[tuple[str, Any]]]:
    """The fields of a form."""

    async def stream() -> AsyncIterator[bytes]:
        yield body

    limits = {"max_files": 1, "max_fields": MAX_OPTIONS, "max_part_size": MAX_FIELD}
    parser = _InMemory(request.headers, stream(), **limits)  # type: ignore[arg-type]
    try:
        try:
            form = await parser.parse()
        except (MultiPartException, FormParserError, KeyError, UnicodeError, ValueError) as error:
            raise Refusal(400, f"got a form that cannot be read ({error}); send another") from None
        yield form.multi_items()
    finally:
        parser.close()


def require_size(data: bytes) -> None:
    """Refuse an image with too many pixels by its header, with 413.

    Raises:
        ImageError: this is not an image.

    >>> from unpool.vision.images import encode_mask
    >>> import numpy as np
    >>> require_size(encode_mask(np.zeros((2, 3), np.uint8)))
    """
    try:
        height, width = image_size(data)
    except ImageError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise Refusal(413, str(error)) from None
        raise
    if height * width > MAX_SERVED_PIXELS:
        raise Refusal(
            413,
            f"got {width} x {height} pixels; wanted {MAX_SERVED_PIXELS:,} at most: scale the image "
            "down, or use the command line",
        )


def require_samples(data: bytes) -> None:
    """The same for images of any numeric type, and for all pages of a TIFF together."""
    if not data.startswith(MAGIC):
        return require_size(data)
    if (size := read_stack(data).bytes) > MAX_SERVED_BYTES:
        raise Refusal(
            413,
            f"got {size // MIB} MiB of samples; wanted {MAX_SERVED_BYTES // MIB} at most: send "
            "fewer pages, or use the command line",
        )


def _too_large(close: bool) -> Refusal:
    # many clients read no answer before they have sent all, which uvicorn then passes over
    message = f"got a body of more than {MAX_BODY // MIB} MiB; scale the image down"
    return Refusal(413, message, _CLOSE if close else {})
