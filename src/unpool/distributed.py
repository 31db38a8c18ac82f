"""One training run or evaluation in several processes, started by `torchrun`.

Without `torchrun` there is a single process, and every function here does nothing.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")

_joined = count()


@contextmanager
def join(device: torch.device) -> Iterator[None]:
    """Join the processes that `torchrun` started: over nccl on GPUs, over gloo on CPUs."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # a prefix of its own: entries that an earlier group left in the store would block this one
    store, rank, world = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    store = dist.PrefixStore(f"unpool {next(_joined)}", store)  # type: ignore[attr-defined]
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world)
    try:
        yield
    finally:
        # gloo's thread may still release the last tensors, for which it needs the interpreter's
        # lock, and destroying the group holds that lock while it waits for the thread
        time.sleep(0.1)
        dist.destroy_process_group()


def local(device: str) -> str:
    """The device of this process; with several on a machine, each gets its own GPU."""
    if device in ("auto", "cuda") and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return device


def is_main_process() -> bool:
    """Whether this is the process that prints and writes files: the first.

    >>> is_main_process()
    True
    """
    return os.environ.get("RANK", "0") == "0"


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def shard(items: Sequence[T]) -> Sequence[T]:
    """The items of this process; each item belongs to one process."""
    return items[rank() :: world()]


def gather(found: list[T]) -> list[T]:
    """Collect the results of all processes in the order of the items before `shard`.

    >>> gather([1, 2, 3])
    [1, 2, 3]
    """
    if world() == 1:
        return found
    parts: list[list[T]] = [[] for _ in range(world())]
    dist.all_gather_object(parts, found)
    return [parts[i % world()][i // world()] for i in range(sum(map(len, parts)))]


def mean(value: float) -> float:
    """The mean of a number over the processes."""
    return sum(gather([value])) / world()


def replicate(module: nn.Module, unused: bool = False) -> nn.Module:
    """The module, or one whose gradients are averaged over the processes.

    `unused`: whether some parameters may take no part in the loss.
    """
    if world() == 1:
        return module
    return DistributedDataParallel(module, find_unused_parameters=unused)


def copy_from_first(module: nn.Module) -> None:
    """Give every process the parameters and buffers of the first."""
    if world() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


@contextmanager
def first_before_others() -> Iterator[None]:
    """Run the block in the first process, then in the others, which can use its cached result."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()


def barrier() -> None:
    """Wait for the other processes."""
    if world() > 1:
        dist.barrier()


def sample_index(
    place: int, count: int, seed: int, weights: NDArray[np.float64] | None = None
) -> int:
    """The item at a position of an endless sequence, the same in all processes.

    Each of `count` items comes once in every `count` positions, in an order that depends on the
    seed; with weights, items are random.

    >>> sorted(sample_index(place, 5, seed=0) for place in range(5, 10))
    [0, 1, 2, 3, 4]
    """
    epoch, number = divmod(place, count)
    if weights is None:
        return int(_shuffled(count, seed, epoch)[number])
    rng = np.random.default_rng([seed, 0, epoch])
    return int(rng.choice(count, count, p=weights / weights.sum())[number])


@lru_cache(8)
def _shuffled(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 0, epoch]).permutation(count)
