"""Bounded reads, atomic writes, strict JSON, and digests of files."""

import errno
import hashlib
import json
import math
import os
import stat
import struct
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from unpool.errors import UnpoolError, require_path
from unpool.limits import MAX_HASHED, MAX_TEXT, MAX_ZIP_DIRECTORY
from unpool.temporary import leftovers, remove, temporary_folder, temporary_path

HIDDEN = Path(".unpool")
"""The folder in that of the results for what only later runs need; not taken for an input."""

# errors of fsync that say that the file system has none, as on some network shares
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)  # those that say that data is lost
_ZIP_TAIL = 2**16 + 22 + 20 + 56  # bytes: the records at the end, behind which may be a comment
_written: ContextVar[list[Path]] = ContextVar("written")


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path, which replaces `path` on success.

    The temporary file is in the same folder, is flushed to disk and renamed. So readers see the
    old file or the new one, and an error or a kill leaves no partial file under the final name.
    Missing folders are created. The temporary path has the suffix of `path`, unless that is long;
    what it leaves if the process is killed is removed by the next one that writes in this folder
    (see `unpool.temporary`). An `OSError` of writing names `path`.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic(folder / "note.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [p.name for p in folder.iterdir()]
    ['note.txt']
    """
    path = require_path("path", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path.parent, path.suffix)
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # less the umask
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        os.close(handle)
        yield temporary
        _publish(temporary, path, mode)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        remove(temporary)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically, see `atomic`.

    What an encoder writes is best made in memory and written by this: encoders report a full disk
    in words of their own, or not at all.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def drafts(folder: str | os.PathLike[str], *names: str) -> Iterator[Path]:
    """Write several files that belong together: yield a temporary folder for them.

    On success they move to `folder`, in order; the last one should vouch for the others. Whatever
    else is in the temporary folder is removed. See `is_draft` for what a kill leaves.

    Args:
        folder: created if missing.
        names: the files to move.
    """
    folder = require_path("folder", folder)
    with temporary_folder(folder) as draft:
        mode = stat.S_IMODE(draft.stat().st_mode) & 0o666
        try:
            yield draft
            for name in names:
                _publish(draft / name, folder / name, mode)
        except OSError as error:
            if str(error.filename).startswith(f"{draft}{os.sep}"):
                error.filename, error.filename2 = str(folder / Path(error.filename).name), None
            raise


def is_draft(folder: Path, name: str) -> bool:
    """Whether a process was killed before it moved this file out of the `drafts` in a folder."""
    return any((left / name).exists() for left in leftovers(folder))


@contextmanager
def written_files() -> Iterator[list[Path]]:
    """List the files that this thread writes by `atomic` or `drafts` within the context.

    >>> import tempfile
    >>> with written_files() as files:
    ...     write_bytes(Path(tempfile.mkdtemp()) / "note.txt", b"whole")
    >>> [file.name for file in files]
    ['note.txt']
    """
    token = _written.set([])
    try:
        yield _written.get()
    finally:
        _written.reset(token)


def note_written(path: Path) -> None:
    """Add a file or folder to the `written_files`: one that got its name in another way."""
    if (written := _written.get(None)) is not None:
        written.append(path)


def fold_name(name: object) -> str:
    """A file name in the form that file systems compare that ignore case or compose accents.

    >>> fold_name("Cafe\u0301.JPG") == fold_name("CAF\u00c9.jpg")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(name)).casefold())


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
    except (OSError, ValueError) as failure:  # ValueError: a NUL byte in the name
        reason = getattr(failure, "strerror", failure)
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
        raise error(
            f"got {path}, which cannot be read ({reason.strerror}); copy it again"
        ) from reason
    if len(content) > limit:
        raise error(
            f"got {path} of more than {limit:,} bytes; wanted another file, or a part of it"
        )
    return content


def require_zip_directory(path: Path, error: type[UnpoolError]) -> None:
    """Refuse a zip file whose list of entries would take much memory; `zipfile` reads it whole.

    Raises:
        error: the list is larger than `MAX_ZIP_DIRECTORY`.
    """
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _ZIP_TAIL))
        tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) < end + 22:
        return  # then `zipfile` says what it is
    size = struct.unpack_from("<I", tail, end + 12)[0]
    large = end - 20 - 56  # the record of archives of more than 4 GiB
    if tail[end - 20 : end - 16] == b"PK\6\7" and large >= 0:
        size = struct.unpack_from("<Q", tail, large + 40)[0]
    if size > MAX_ZIP_DIRECTORY:
        got = f"{path} has a list of files of {size:,} bytes, wanted at most {MAX_ZIP_DIRECTORY:,}"
        raise error(f"{got}; unpack it yourself, or make it again")


def read_text(path: str | os.PathLike[str], error: type[UnpoolError], limit: int = MAX_TEXT) -> str:
    """The text of a file of at most `limit` bytes, in UTF-8, with or without byte order mark.

    Raises:
        error: it is no regular file, too large, or other text.
    """
    content = read_bytes(path, error, limit)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(
            f"got {path}, which is not text in UTF-8 ({reason}); save it as UTF-8"
        ) from None


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


def read_json_lines(
    path: str | os.PathLike[str], error: type[UnpoolError], start: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with one on each line, and the bytes before each, from `start` on.

    Lines that a kill has cut, or with something else than an object, are left out.

    Raises:
        error: it is no regular file.
        OSError: it cannot be read.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "metrics.jsonl")
    >>> _ = path.write_text('{"n": 1}\\n{"n": 2}\\n{"n"')
    >>> list(read_json_lines(path, UnpoolError))
    [(0, {'n': 1}), (9, {'n': 2})]
    """
    with require_regular(path, error).open("rb") as file:
        file.seek(start)
        while line := file.readline(MAX_TEXT):
            value = None
            with suppress(ValueError, RecursionError):
                value = json.loads(line)
            if isinstance(value, dict):
                yield start, value
            start += len(line)


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: str | os.PathLike[str], error: type[UnpoolError]) -> str:
    """What identifies the content of a regular file: `sha256`.

    Of a file larger than any image, which may be endless, it is the size and the time of change.

    Raises:
        error: it is no regular file.
        OSError: it cannot be read.
    """
    state = require_regular(path, error).stat()
    return sha256(path) if state.st_size <= MAX_HASHED else f"{state.st_size} {state.st_mtime_ns}"


def write_json(path: str | os.PathLike[str], values: object) -> None:
    """Write plain values as an indented JSON file, atomically; see `strict`."""
    write_bytes(path, f"{json.dumps(strict(values), indent=1)}\n".encode())


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


def _publish(temporary: Path, path: Path, mode: int) -> None:
    """Flush a file to disk, and rename it."""
    _sync(temporary)
    if stat.S_IMODE(temporary.stat().st_mode) != mode:  # safetensors gives its files 0600
        with suppress(OSError):  # file systems without permissions, as of memory cards
            temporary.chmod(mode)
    temporary.replace(path)
    _sync_folder(path.parent)
    note_written(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)  # Windows flushes no file that is open for reading
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """Flush the names in a folder, as well as can be: Windows and network shares may refuse."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in _LOST:
            raise
    finally:
        os.close(descriptor)
