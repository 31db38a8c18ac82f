"""Atomic writes, strict JSON, and digests of files."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unpool.errors import require_path


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
