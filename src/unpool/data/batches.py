"""Batches of training crops, made while the network learns from the ones before."""

import itertools
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from unpool.data.crops import Draw
from unpool.vision.images import Pixels


class Batch(NamedTuple):
    """What one pass of the network learns from."""

    images: Pixels  #: (N, S, S, 3) RGB; 0 outside the image
    labels: Pixels  #: (N, S, S) class ids; 255 where void or outside the image


def batches(
    draw: Draw, size: int, start: int = 0, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Endless batches of crops; the next ones are made meanwhile.

    Batch n holds the crops at the places from n * size on. It depends on nothing else: a run
    resumed at n sees what the uninterrupted run saw, and the processes of a run see together what
    a single one would see.

    Args:
        draw: gives the crop at a place; called in threads.
        size: N, of the batch.
        start: number of the first batch.
        rank: of this process, which takes every `world`-th batch.
        world: number of the processes.

    Raises:
        ImageError, DataError: an image or mask that is found not to be usable when its turn
            comes.
    """

    def make(n: int) -> Batch:
        pairs = [draw(place) for place in range(n * size, (n + 1) * size)]
        return Batch(np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs]))

    own: set[int] = set()  # threads
    count = 2 if (os.cpu_count() or 1) > 2 else 1  # the network needs cores
    workers = ThreadPoolExecutor(count, initializer=lambda: own.add(threading.get_ident()))
    numbers = itertools.count(start + rank, world)
    try:
        coming = deque(workers.submit(make, next(numbers)) for _ in range(3))
        while True:
            batch = coming.popleft().result()
            coming.append(workers.submit(make, next(numbers)))
            yield batch
    finally:  # an error, or the caller is done: of the batches to come, none is begun any more
        # the garbage collector may do this in a worker, which cannot wait for itself
        workers.shutdown(wait=threading.get_ident() not in own, cancel_futures=True)
