"""Keep the libraries that decode images from printing; their errors are raised, too.

Filters of warnings and standard error belong to the process, so all threads share a change of them.
"""

import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it prints beside its exceptions

_lock = threading.Lock()
_reading = _decoding = 0  # the number of contexts in all threads
_stderr: int | None = None  # the file that standard error is outside of the contexts
_IGNORED = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)  # as in warnings.filters


@contextmanager
def without_warnings() -> Iterator[None]:
    """Ignore Pillow's warnings (odd metadata; sizes, checked in `opening`) while any thread reads.

    `warnings.catch_warnings` is not thread-safe: all threads share one list of filters, so one
    could restore it while another still needs its filter, or keep that filter forever.
    """
    global _reading
    with _lock:
        _reading += 1
        if _IGNORED not in warnings.filters:
            # filterwarnings() would forget which other warnings were shown before
            warnings.filters.insert(0, _IGNORED)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        with _lock:
            _reading -= 1
            if not _reading and _IGNORED in warnings.filters:
                warnings.filters.remove(_IGNORED)  # type: ignore[attr-defined]


@contextmanager
def without_stderr() -> Iterator[None]:
    """Send standard error nowhere while any thread decodes: libtiff prints errors, not only raises.

    Python has no other way to its handler of errors.
    """
    global _decoding, _stderr
    with _lock:
        _decoding += 1
        if _decoding == 1:
            with suppress(OSError):  # it may be closed
                _stderr = os.dup(2)
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 2)
                os.close(null)
    try:
        yield
    finally:
        with _lock:
            _decoding -= 1
            if not _decoding and _stderr is not None:
                os.dup2(_stderr, 2)
                os.close(_stderr)
                _stderr = None
