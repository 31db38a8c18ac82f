"""Seconds spent in each stage of segmentation, collected on request."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# for each thread by itself, since the service segments in several
_seconds: ContextVar[dict[str, float] | None] = ContextVar("seconds", default=None)


@contextmanager
def measuring() -> Iterator[dict[str, float]]:
    """Collect the seconds that stages take, by name, in the order of their first use.

    >>> with measuring() as seconds:
    ...     with stage("network"):
    ...         pass
    >>> list(seconds)
    ['network']
    """
    seconds: dict[str, float] = {}
    token = _seconds.set(seconds)
    try:
        yield seconds
    finally:
        _seconds.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Add the time spent inside to a stage; does nothing outside `measuring`."""
    seconds = _seconds.get()
    if seconds is None:
        yield
        return
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
