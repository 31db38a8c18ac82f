"""Read large JSON files in pieces: one element of a list at a time, in bounded memory."""

import codecs
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from unpool.errors import DataError
from unpool.files import require_regular
from unpool.limits import MAX_ANNOTATIONS, MAX_OBJECTS, MAX_PIECE, MIB

_SPACE = " \t\n\r"
_AFTER = [*_SPACE, *",:]}"]  # what may follow a value


def read_pieces(path: Path) -> Iterator[tuple[str, Any]]:
    """The fields of the object in a JSON file; of lists, an iterator over the elements.

    The iterator must be used before the next field is read. A file whose value is a list has one
    field, whose name is empty.

    Raises:
        DataError: the file is no regular one, too large, or not JSON.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.json")
    >>> _ = path.write_text('{"info": {"year": 2017}, "images": [{"id": 1}, {"id": 2}]}')
    >>> for name, value in read_pieces(path):
    ...     print(name, list(value))
    info ['year']
    images [{'id': 1}, {'id': 2}]
    """
    path = require_regular(path, DataError)
    if (size := path.stat().st_size) > MAX_ANNOTATIONS:
        raise DataError(f"got {path} of {size} bytes; wanted {MAX_ANNOTATIONS} at most: split it")
    with _reported(path), path.open("rb") as file:
        yield from _Text(path, file).fields()


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn all errors of reading into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"got {path}, which is not JSON ({error}); export it again") from None


class _Text:
    """The text of a file, of which some lies in memory."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file, self.text, self.at = path, file, "", 0
        self.bytes = codecs.getincrementaldecoder("utf-8-sig")()
        self.decode = json.JSONDecoder().raw_decode

    def fields(self) -> Iterator[tuple[str, Any]]:
        """The fields of the value."""
        if self.peek() == "[":
            yield from self.list_field("")
        else:
            for _ in self.items("{", "}"):
                if self.peek() != '"':
                    raise ValueError(f"{self.peek()!r} where a name should be")
                name = self.value()
                self.take(":")
                if self.peek() == "[":
                    yield from self.list_field(name)
                else:
                    yield name, self.value()
        if self.peek():
            raise ValueError(f"more text after the end, at {self.text[self.at : self.at + 20]!r}")

    def list_field(self, name: str) -> Iterator[tuple[str, Any]]:
        """A field with a list, to whose end is read if the caller did not."""
        elements = self.elements()
        yield name, elements
        for _ in elements:
            pass

    def elements(self) -> Iterator[Any]:
        """The elements of a list."""
        with _reported(self.path):
            for n, _ in enumerate(self.items("[", "]"), 1):
                if n > MAX_OBJECTS:
                    raise DataError(f"got {self.path} with a list of over {MAX_OBJECTS}; split it")
                yield self.value()

    def items(self, start: str, end: str) -> Iterator[None]:
        """Stand at each item between two brackets, which the caller must read."""
        self.take(start)
        if self.peek() == end:
            self.at += 1
            return
        while True:
            yield
            if self.peek() == end:
                self.at += 1
                return
            self.take(",")

    def value(self) -> Any:
        """The value that begins here."""
        self.peek()
        while True:
            try:
                value, end = self.decode(self.text, self.at)
            except json.JSONDecodeError:
                if not self.more():
                    raise
            else:
                if self.text[end : end + 1] in _AFTER or not self.more():  # a number may continue
                    self.at = end
                    return value

    def take(self, character: str) -> None:
        """Read a character."""
        if (found := self.peek()) != character:
            raise ValueError(f"{found!r} where {character!r} should be")
        self.at += 1

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def more(self) -> bool:
        """Read about as much again as there is; False at the end of the file."""
        rest = self.text[self.at :]
        if len(rest) > MAX_PIECE:
            raise ValueError(f"a part of over {MAX_PIECE} characters")
        read = self.file.read(max(len(rest), MIB))
        self.text, self.at = rest + self.bytes.decode(read, final=not read), 0
        return bool(read)
