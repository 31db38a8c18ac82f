"""Peak memory: of a process of its own for each thing that is measured, and of tensors alone."""

import multiprocessing
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def alone(function: Callable[..., Iterator[None]], *args: Any) -> list[int | None]:
    """The peak memory in bytes of a new process that runs a generator: one for each part of it.

    A part ends at a `yield`, or at the end. Where the system cannot begin a peak anew (other than
    Linux), what a part needs is only seen if it is more than what the parts before needed.

    Args:
        function: of a module, so that the new process finds it.
        *args: plain values.

    Raises:
        MemoryError: the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as process:
        try:
            return process.submit(_call, torch.get_num_threads(), function, args).result()
        except BrokenProcessPool:
            raise MemoryError from None


def nothing() -> Iterator[None]:
    """What a process does whose memory is that of Python and the libraries."""
    yield from ()


def peak_memory() -> int | None:
    """The most memory that this process has held, in bytes; None where the system does not say.

    >>> (peak_memory() or 2**21) > 2**20
    True
    """
    with suppress(OSError):  # not Linux; there, getrusage counts what the parent held at the start
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    with suppress(ImportError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def trace(work: Callable[[], object], held: Iterable[Tensor]) -> list[int]:
    """How many bytes all tensors hold together after each operation of a work.

    Scratch space inside of an operation is not seen. Storage that several tensors share counts
    once, and until the last of them is gone.

    Args:
        work: on the CPU, with its gradient if it has one.
        held: the tensors that are there before.

    >>> x = torch.zeros(256)
    >>> trace(lambda: (x + 1).sum(), [x])
    [2048, 2052]
    """
    living = _Living()
    for tensor in held:
        living.add(tensor)
    with living:
        work()
    return living.totals


def peak_of_batch(batch: int, traces: Mapping[int, Sequence[int]]) -> int:
    """The largest of the totals that a batch of any size reaches, computed from two small ones.

    What an operation makes is a line in the size of the batch; so is each total.

    Args:
        batch: of which the peak is wanted.
        traces: of the same work with two other batches, by their sizes; see `trace`.

    >>> peak_of_batch(10, {1: [5, 6], 2: [6, 6]})
    14
    """
    (a, first), (b, second) = traces.items()
    lines = zip(first, second, strict=True)
    return max(round(low + (high - low) * (batch - a) / (b - a)) for low, high in lines)


def gigabytes(count: int | None) -> float | None:
    """Bytes as GB (of a thousand million), to two decimals.

    >>> gigabytes(1_234_567_890)
    1.23
    """
    return None if count is None else round(count / 1e9, 2)


def _call(
    threads: int, function: Callable[..., Iterator[None]], args: tuple[Any, ...]
) -> list[int | None]:
    torch.set_num_threads(threads)
    peaks = []
    for _ in function(*args):
        peaks.append(peak_memory())
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak begins anew
    return [*peaks, peak_memory()]


class _Living(TorchDispatchMode):
    """Adds up the storage of all tensors that are made while it is on, and still live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: dict[int, int] = {}
        self.total = 0
        self.totals: list[int] = []

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if (place := storage._cdata) not in self.sizes:
            self.sizes[place] = storage.nbytes()
            self.total += storage.nbytes()
            weakref.finalize(storage, self._drop, place).atexit = False

    def _drop(self, place: int) -> None:
        self.total -= self.sizes.pop(place)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        self.totals.append(self.total)
        return made
