"""Standard input, output and error, which may be closed, full, or without a reader."""

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


@contextmanager
def streams() -> Iterator[None]:
    """Make standard input, output and error usable, whatever they are, for the program.

    Closed ones become empty: Python has None for them, and the next file that is opened would get
    their number and what libraries print. Standard error falls silent once it cannot be written to,
    since the work is worth more than its progress; for standard output see `lost_output`.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the lowest free number is this
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    if sys.stdout is sys.__stdout__:  # not replaced, as by a test
        sys.stdout = _Stream.text(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _Stream.text(2, sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be Unicode
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def lost_output() -> OSError | None:
    """The error, if standard output could not take all that was printed."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, _Stream) else None


class _Stream(io.FileIO):
    """Standard output or error, unbuffered; what follows an error is dropped."""

    error: OSError | None = None

    @classmethod
    def text(cls, number: int, stream: TextIO | None) -> TextIO:
        """The stream of this number, as text in the encoding of another."""
        if stream is not None and sys.platform == "win32":  # the console takes no bytes
            return stream
        encoding = "utf-8" if stream is None else stream.encoding
        if stream is not None:
            with suppress(OSError):
                stream.flush()  # what was printed before comes first
        buffer = io.BufferedWriter(cls(number, "w", closefd=False))
        return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=number == 2)

    def write(self, data: Any) -> int:
        """Write bytes, all or some."""
        if self.error is None:
            try:
                while (count := super().write(data)) is None:
                    select.select([], [self], [])  # another process made it non-blocking
                return count
            except OSError as error:
                self.error = error
                if self.fileno() == 1:
                    error.filename = "standard output"
                    raise
        return memoryview(data).nbytes
