"""Bounded reads, atomic writes, strict JSON, and digests of files."""

import hashlib
import json
import math
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unpool.errors import UnpoolError, require_path
from unpool.limits import MAX_TEXT


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path, which replaces `path` on success.

    The temporary file is in the same folder, is flushed to disk and renamed. So readers see the
    old file or the new one, and an error or a kill leaves no partial file under the final name.
    Missing folders are created, and the temporary path has the suffix of `path`.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic(folder / "note.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [p.name for p in folder.iterdir()]
    ['note.txt']
    """
    path = require_path("path", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp and safetensors use 0600
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def require_regular(path: str | os.PathLike[str], error: type[UnpoolError]) -> Path:
    """The path of a regular file, checked before it is opened.

    Opening a FIFO waits for a writer, and a device such as /dev/zero never ends.

    Raises:
        error: there is no file, or it is a folder, a FIFO, a device or a socket.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise error(f"got {path}, which does not exist; check the path") from None
    except (OSError, ValueError) as reason:  # ValueError: a NUL byte in the name
        raise error(f"got {str(path)!r}, which cannot be read ({reason}); check the path") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, device or socket"
        raise error(f"got {path}, which is {kind}; wanted a regular file: name one")
    return Path(path)


def read_bytes(
    path: str | os.PathLike[str], error: type[UnpoolError], limit: int = MAX_TEXT
) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises:
        error: it is no regular file, cannot be read, or is larger.
    """
    path = require_regular(path, error)
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as reason:
        raise error(f"got {path}, which cannot be read ({reason.strerror})") from reason
    if len(content) > limit:
        raise error(f"got {path} of more than {limit} bytes; wanted a smaller file")
    return content


def read_json(path: str | os.PathLike[str], error: type[UnpoolError], limit: int = MAX_TEXT) -> Any:
    """The contents of a JSON file of at most `limit` bytes, in UTF-8.

    Raises:
        error: it is no regular file, too large, or not JSON.
    """
    content = read_bytes(path, error, limit)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as reason:  # numbers of 4,300 digits are a ValueError, too
        raise error(f"got {path}, which is not JSON ({reason}); copy or export it again") from None


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | os.PathLike[str], values: object) -> None:
    """Write plain values as an indented JSON file, atomically; see `strict`."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(strict(values), indent=1) + "\n", encoding="utf-8")


def json_line(values: object) -> str:
    """Plain values as one line of strict JSON.

    >>> json_line({"iou": [0.5, float("nan")]})
    '{"iou": [0.5, null]}'
    """
    return json.dumps(strict(values))


def strict(values: object) -> object:
    """Replace NaN and infinity, which JSON does not have, by None in plain values."""
    if isinstance(values, dict):
        return {key: strict(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [strict(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
