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
    """Yield batches without end, loaded in threads while the network trains.

    Args:
        make: loads the batch with a given number.
        start: number of the first batch.
        rank, world: the number of this process, and of all processes, which take batches in turn.

    Raises:
        ImageError, DataError: an image or mask cannot be used; raised when its batch is due.
    """
    own: set[int] = set()  # threads
    count = 2 if (os.cpu_count() or 1) > 2 else 1  # leave cores to the network
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
