"""Images and results in memory: under random ids, for a limited time, within a limited size.

Nothing is written to disk, and ids are not guessable, so that pages of one user do not show the
images of another.
"""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from unpool.limits import MAX_STORED, STORED_SECONDS
from unpool.serve.refusals import Refusal

T = TypeVar("T")


class _Entry(NamedTuple):
    value: Any
    size: int
    used: float


class Store:
    """Things by id. The one that was not used for longest goes first.

    Args:
        most: bytes of all things together.
        seconds: that a thing is kept after it was last used.
        fixed: things that stay, by ids of their own; they do not count.
        clock: seconds of a monotonic clock.

    >>> store = Store()
    >>> store.get(store.add("cat", 3), str)
    'cat'
    """

    def __init__(
        self,
        most: int = MAX_STORED,
        seconds: float = STORED_SECONDS,
        fixed: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most, self.seconds, self.clock = most, seconds, clock
        self.size = 0  #: bytes of all things
        self._fixed = dict(fixed or {})
        self._entries = OrderedDict[str, _Entry]()
        self._lock = threading.Lock()

    def add(self, value: object, size: int) -> str:
        """Keep a thing of `size` bytes; returns its id, 128 random bits.

        Raises:
            Refusal: 413 if it is larger than all that may be kept.
        """
        if size > self.most:
            raise Refusal(413, f"got a result of {size:,} bytes; use a smaller image")
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._entries[name] = _Entry(value, size, self.clock())
            self.size += size
            self._clean()
        return name

    def get(self, name: str, kind: type[T]) -> T:
        """The thing of an id, which counts as used.

        Raises:
            Refusal: 404 if there is none of this type, or none any more.
        """
        with self._lock:
            self._clean()
            value = self._fixed.get(name)
            if (entry := self._entries.get(name)) is not None:
                self._entries[name] = entry._replace(used=self.clock())
                self._entries.move_to_end(name)
                value = entry.value
        if not isinstance(value, kind):
            raise Refusal(
                404, "got an image or a result that is not kept any more; open the image again"
            )
        return value

    def __contains__(self, name: str) -> bool:
        with self._lock:
            self._clean()
            return name in self._fixed or name in self._entries

    def _clean(self) -> None:
        """Drop what is too old, and what is too much."""
        oldest = self.clock() - self.seconds
        while self._entries:
            name, entry = next(iter(self._entries.items()))
            if self.size <= self.most and entry.used >= oldest:
                return
            del self._entries[name]
            self.size -= entry.size
