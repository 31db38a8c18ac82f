"""The ledger of an output folder: what is finished there, so that a run that ended goes on.

`OUTPUT/.unpool/ledger/` has a file for each process that works in the folder, with a line of JSON
for each item that it finished or that failed. A line is appended by one write when the results are
on disk, so a kill costs the item that was worked on, and at most cuts the last line, which is then
passed over. Processes share the folder without locks, also over a network: none writes to another's
file, and two lines of one item are one.

An item is known by three things: the name of its results, the digest of its content, and that of
the procedure, which is all that determines the results: options, weights, version. It is finished
if its last line says so and its files are still as they were written; what has failed is tried
again.

While an item is worked on, `OUTPUT/.unpool/begun/` has a file for it. What is left there after the
end of its process names the item that may have caused it.
"""

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from unpool.errors import DataError
from unpool.files import HIDDEN, atomic, fingerprint, json_line, read_json_lines
from unpool.temporary import is_gone, process_name


class Ledger:
    """What is finished in an output folder.

    Args:
        output: the folder; need not exist.
        procedure: all that determines the results besides the content of an item, plain values.

    >>> import tempfile
    >>> output = Path(tempfile.mkdtemp())
    >>> ledger = Ledger(output, {"mode": "whole"})
    >>> _ = (output / "cat.txt").write_text("a cat")
    >>> ledger.add("cat", "digest of the image", {"class": "cat"}, [output / "cat.txt"])
    >>> Ledger(output, {"mode": "whole"}).find("cat", "digest of the image")
    {'class': 'cat'}
    >>> Ledger(output, {"mode": "instance"}).find("cat", "digest of the image")
    """

    def __init__(self, output: Path, procedure: Mapping[str, Any]) -> None:
        self.output = output
        self.procedure = _digest(json.dumps(procedure, sort_keys=True, default=str))
        self._folder, self._begun = output / HIDDEN / "ledger", output / HIDDEN / "begun"

    def __getstate__(self) -> dict[str, Any]:
        """Without what was read: processes that only work on items need none of it."""
        return {name: value for name, value in vars(self).items() if name != "_last"}

    @cached_property
    def _last(self) -> dict[str, tuple[Path, int]]:
        """Where the last line of each name begins."""
        found = {}
        for path in _files(self._folder):
            for start, line in _lines(path):
                if line["procedure"] == self.procedure:
                    found[line["name"]] = path, start
        return found

    # ---- what is known of an item ----------------------------------------------------------------

    def last(self, name: str) -> dict[str, Any] | None:
        """The last line of an item with this name, whatever its content was; None without one."""
        for _ in range(2):
            path, start = self._last.get(name, (None, 0))
            if path is None:
                return None
            line = next((line for _, line in _lines(path, start)), {})
            if (line.get("name"), line.get("procedure")) == (name, self.procedure):
                return line
            del self._last  # another process has gathered the lines in the meantime
        return None

    def find(self, name: str, content: str) -> dict[str, Any] | None:
        """The record of a finished item whose files are still as they were written.

        Paths of these files in the record are those in `output`, wherever that was at the time.

        Args:
            name: of the results, relative to the output folder.
            content: the digest of what they are made from.
        """
        return self.check(self.last(name), name, content)

    def check(
        self, line: Mapping[str, Any] | None, name: str, content: str
    ) -> dict[str, Any] | None:
        """As `find`, given the last line of the item."""
        line = line or {}
        known = (line.get("name"), line.get("content"), line.get("procedure"))
        if known != (name, content, self.procedure) or not isinstance(line.get("record"), dict):
            return None
        try:
            names = [PurePath(file) for file in line["files"]]
            if any(file.is_absolute() or ".." in file.parts for file in names):
                return None
            if _digest_of_files(self.output / file for file in names) != line["digest"]:
                return None
            moved = {str(Path(line["output"]) / f): str(self.output / f) for f in names}
            return {key: _replace(value, moved) for key, value in line["record"].items()}
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    # ---- lines -----------------------------------------------------------------------------------

    def add(self, name: str, content: str, record: Mapping[str, Any], files: list[Path]) -> None:
        """Note that an item is finished; see `done`."""
        self.append(self.done(name, content, record, files))

    def fail(self, name: str, content: str, error: str) -> None:
        """Note that an item has failed, and why."""
        self.append(self.failed(name, content, error))

    def done(
        self, name: str, content: str, record: Mapping[str, Any], files: list[Path]
    ) -> dict[str, Any]:
        """The line of a finished item.

        Args:
            name: as of `find`.
            content: as of `find`.
            record: what `find` returns, plain values.
            files: the results, which are on disk; folders stand for all that is in them.
        """
        known = list(dict.fromkeys(file.relative_to(self.output).as_posix() for file in files))
        digest = _digest_of_files(self.output / file for file in known)
        facts = {"output": str(self.output), "files": known, "digest": digest}
        return self._line(name, content, **facts, record=dict(record))

    def failed(self, name: str, content: str, error: str, attempts: int = 0) -> dict[str, Any]:
        """The line of an item that has failed.

        Args:
            name: as of `find`.
            content: as of `find`.
            error: why.
            attempts: how many processes it has ended, if it is given up for that.
        """
        return self._line(
            name, content, error=error, **({"attempts": attempts} if attempts else {})
        )

    def append(self, line: Mapping[str, Any]) -> None:
        """Append a line to the file of this process, with the time."""
        data = f"{json_line({**line, 'time': round(time.time(), 3)})}\n".encode()
        path = self._path()
        self._folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            if os.write(file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            error.filename = str(path)
            raise
        finally:
            os.close(file)

    # ---- items that are worked on ----------------------------------------------------------------

    def begin(self, name: str, run: str) -> int:
        """Note that an item is worked on, until `end`.

        Returns:
            How often it was begun in the same run before and not ended. As the run goes on, these
            are the processes that have died over it.
        """
        path = self._begun / self._key(name)
        self._begun.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            earlier = os.read(file, 2**16).decode("ascii", "replace").split()
            os.write(file, f"{run}\n".encode())
        finally:
            os.close(file)
        return earlier.count(run)

    def end(self, name: str) -> None:
        """Note that an item is no longer worked on, whatever came of it."""
        (self._begun / self._key(name)).unlink(missing_ok=True)

    def unended(self, names: Iterable[str]) -> set[str]:
        """The names that were begun and not ended: a process has them, or died over them."""
        try:
            keys = set(os.listdir(self._begun))
        except OSError:
            return set()
        return {name for name in names if self._key(name) in keys} if keys else set()

    def work_folder(self, name: str, content: str) -> Path:
        """A folder for the parts of one item that are done, such as the frames of a video.

        It is not made here; whoever finishes the item removes it.
        """
        key = _digest(json.dumps([name, content, self.procedure]))
        return self.output / HIDDEN / "unfinished" / key

    def close(self) -> None:
        """Gather the lines of all processes of this host that have ended into one file.

        Of the lines of one name and procedure the last is kept.
        """
        own = self._path()
        ended = [path for path in _files(self._folder) if path == own or is_gone(path.stem)]
        if len(ended) < 2:
            return
        last = {_item(line): (path, start) for path in ended for start, line in _lines(path)}
        with atomic(own) as temporary, temporary.open("wb") as file:
            for path in ended:
                for start, line in _lines(path):
                    if last[_item(line)] == (path, start):
                        file.write(f"{json_line(line)}\n".encode())
        for path in ended:
            if path != own:
                path.unlink(missing_ok=True)  # another process may have done the same

    def _path(self) -> Path:
        return self._folder / f"{process_name()}.jsonl"

    def _line(self, name: str, content: str, **facts: Any) -> dict[str, Any]:
        return {"name": name, "content": content, "procedure": self.procedure, **facts}

    def _key(self, name: str) -> str:
        return _digest(json.dumps([name, self.procedure]))


def lines(output: Path, procedure: str) -> Iterator[dict[str, Any]]:
    """The lines of all processes in an output folder; of an item, the last one counts."""
    for path in _files(output / HIDDEN / "ledger"):
        yield from (line for _, line in _lines(path) if line["procedure"] == procedure)


def _files(folder: Path) -> list[Path]:
    """The files of all processes; that of this one, or else the newest, is the last."""
    own = f"{process_name()}.jsonl"
    found = [path for path in folder.glob("*.jsonl") if not path.name.startswith(".")]
    times = {path: _modified(path) for path in found}
    return sorted(found, key=lambda path: (path.name == own, times[path], path))


def _lines(path: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a file that are those of a ledger, and where they begin."""
    try:
        for at, line in read_json_lines(path, DataError, start):
            if all(isinstance(line.get(key), str) for key in ("name", "content", "procedure")):
                yield at, line
    except (OSError, DataError):
        return  # gathered by another process in the meantime: its items are done again


def _item(line: Mapping[str, Any]) -> tuple[str, str]:
    return line["name"], line["procedure"]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _digest_of_files(paths: Iterable[Path]) -> str:
    """The digest of the contents of files, and of all files in folders."""
    digests = []
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        digests += [fingerprint(file, DataError) for file in inside if not file.is_dir()]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _replace(value: Any, moved: Mapping[str, str]) -> Any:
    """Plain values with other strings in place of some."""
    match value:
        case str():
            return moved.get(value, value)
        case list():
            return [_replace(item, moved) for item in value]
        case dict():
            return {key: _replace(item, moved) for key, item in value.items()}
        case _:
            return value
