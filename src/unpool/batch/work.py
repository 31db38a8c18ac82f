"""What is done with one item, in whichever process: make its files, and say what came of it.

A `Work` changes nothing but the files of the item, which are the same each time; it may be killed
at any time and called again. What it returns is noted in the ledger by the one process that hands
out the items, so each is noted once, whatever happened to those that worked on it.
"""

import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unpool.errors import ImageError, ImageWarning, UnpoolError
from unpool.files import fingerprint, written_files

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.batch.ledger import Ledger
    from unpool.vision.sources import Source

Record = dict[str, Any]
"""The result for an item, as plain values."""

ATTEMPTS = 2
"""Processes that an item may end before it is given up."""


class Item(NamedTuple):
    """An image or a video to work on."""

    source: "Source"
    line: dict[str, Any] | None  #: its last one in the ledger


class Outcome(NamedTuple):
    """What came of an item."""

    item: Item
    record: Record  #: `source` and the result; or `source` and `error`
    line: dict[str, Any] | None = None  #: to be appended to the ledger


def nothing_more(source: "Source") -> object:
    """Results depend on the content of an image only."""
    return None


def nothing() -> None:
    """Prepare nothing."""


def silent(done: int, total: int, what: str) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Work:
    """All that a process needs to work on items; can be pickled if its functions can.

    Args:
        ledger: of the output folder; it is only asked, not written to.
        run: a name of this run that no other has; "" to count no attempts.
        make: reads an image, writes its results under the given path, to which it appends suffixes,
            and returns its record.
        explain: the message of an error that concerns one image; "" for errors that end the run.
        prepare: loads what `make` needs; called in each process before the first item.
        also: what the results depend on besides the content, plain values.
        video: as `make`, for videos; its third argument is a folder for the frames that are done.
        redo: work on finished items, too.
    """

    ledger: "Ledger"
    run: str
    make: Callable[["Source", Path, "Progress"], Record]
    explain: Callable[[Exception], str]
    prepare: Callable[[], object] = nothing
    also: Callable[["Source"], object] = nothing_more
    video: Callable[["Source", Path, Path, "Progress"], Record] | None = None
    redo: bool = False

    def __call__(self, item: Item, progress: "Progress" = silent) -> Outcome:
        """Work on an item, unless it is finished or given up.

        Raises:
            Exception: one that concerns not only this item, such as a full disk, or a bug.
        """
        source, name = item.source, str(item.source.name)
        with suppress(ImageError):  # reported when it is read again
            source = source.held()
        content = self._content(source)
        earlier = self._earlier(item.line, name, content)
        if earlier is not None:
            return Outcome(item, {"source": str(source), **earlier})
        attempts = self.ledger.begin(name, self.run) if self.run else 0
        try:
            with written_files() as files:
                if attempts < ATTEMPTS:
                    record = self._make(source, content, progress)
                else:
                    record = {"error": _given_up(attempts)}
        finally:
            if self.run:
                self.ledger.end(name)
        line = None
        if "error" in record and not source.is_stdin:
            given_up = attempts if attempts >= ATTEMPTS else 0
            line = self.ledger.failed(name, content, record["error"], given_up)
        elif content:
            line = self.ledger.done(name, content, record, [f for f in files if f.exists()])
        return Outcome(item, {"source": str(source), **record}, line)

    def _earlier(self, line: dict[str, Any] | None, name: str, content: str) -> Record | None:
        """The record of an earlier run, if the item need not be worked on."""
        if not content or self.redo or line is None:
            return None
        record = self.ledger.check(line, name, content)
        if record is not None:
            return {**record, "skipped": True}
        given_up = line.get("content") == content and "attempts" in line
        return {"error": str(line.get("error"))} if given_up else None

    def _make(self, source: "Source", content: str, progress: "Progress") -> Record:
        start = time.perf_counter()
        stem = self.ledger.output / source.name
        work = partial(self.make, source, stem, progress)
        if self.video is not None and source.is_video:
            frames = self.ledger.work_folder(str(source.name), content)
            if self.redo:
                shutil.rmtree(frames, ignore_errors=True)
            work = partial(self.video, source, stem, frames, progress)
        with _noted_warnings() as noted:
            try:
                record = work()
                record["seconds"] = round(time.perf_counter() - start, 3)
            except Exception as error:
                if not (message := self.explain(error)):
                    raise
                record = {"error": message}
        return {**record, "warnings": [*noted]} if noted else record

    def _content(self, source: "Source") -> str:
        """The digest of what goes in; "" for an unreadable image, and for standard input."""
        if source.is_stdin:
            return ""
        try:
            found = source.content()
            content = _digest(found)
            more = self.also(source)
        except (OSError, UnpoolError):
            return ""
        if more is None:
            return content
        return _sha256(json.dumps([content, more]).encode())


def _digest(content: Path | bytes) -> str:
    return _sha256(content) if isinstance(content, bytes) else fingerprint(content, ImageError)


def _given_up(attempts: int) -> str:
    return (
        f"ended the process that worked on it {attempts} times, and is given up; try it alone with "
        "redo=True, on a machine with more memory"
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _noted_warnings() -> Iterator[list[str]]:
    """List the warnings about images; all others are shown as usual."""
    noted: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", ImageWarning)  # for every image
        show = warnings.showwarning

        def note(message: Warning | str, category: type[Warning], *place: Any, **_: Any) -> None:
            if issubclass(category, ImageWarning):
                noted.append(str(message))
            else:
                show(message, category, *place)

        warnings.showwarning = note
        yield noted
