"""Load training batches in threads, ahead of the network."""

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Loaded = TypeVar("Loaded")


def load_ahead(
    make: Callable[[int], Loaded], start: int = 0, rank: int = 0, world: int = 1
) -> Iterator[Loaded]:
    """Endless batches, loaded in threads while the network learns.

    Args:
        make: loads the batch of a number.
        start: number of the first batch.
        rank, world: number of this process and of all, which take turns.

    Raises:
        ImageError, DataError: an image or mask cannot be used; raised when its batch is due.
    """
    own: set[int] = set()  # threads
    count = 2 if (os.cpu_count() or 1) > 2 else 1  # the network needs cores
    workers = ThreadPoolExecutor(count, initializer=lambda: own.add(threading.get_ident()))
    numbers = itertools.count(start + rank, world)
    try:
        pending = deque(workers.submit(make, next(numbers)) for _ in range(3))
        while True:
            batch = pending.popleft().result()
            pending.append(workers.submit(make, next(numbers)))
            yield batch
    finally:  # an error, or the caller is done: cancel the pending batches
        # the garbage collector may close the generator in a worker, which cannot wait for itself
        workers.shutdown(wait=threading.get_ident() not in own, cancel_futures=True)
