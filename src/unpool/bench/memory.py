"""Peak memory of processes, and of the tensors of a computation."""

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
    """Run a generator in a new process, and measure the peak memory of each of its parts, in bytes.

    A part ends at a `yield`, or at the end. Only Linux can reset a peak; elsewhere a part counts
    only if it needs more memory than the parts before. The function and its arguments are pickled.

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
    """Do nothing, to measure the memory of Python and the libraries."""
    yield from ()


def peak_memory() -> int | None:
    """The peak resident memory of this process in bytes; None if the system does not report it.

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
    """The bytes of all living tensors, `held` before, after each operation of a computation.

    Scratch space inside an operation is not seen. Storage that several tensors share counts once,
    until the last of them is freed.

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
    """The peak memory for any batch size in bytes, from the traces of two others, by their sizes.

    The outputs of every operation are linear in the batch size, and so is each total.

    >>> peak_of_batch(10, {1: [5, 6], 2: [6, 6]})
    14
    """
    (a, first), (b, second) = traces.items()
    lines = zip(first, second, strict=True)
    return max(round(low + (high - low) * (batch - a) / (b - a)) for low, high in lines)


def gigabytes(count: int | None) -> float | None:
    """Bytes as GB (10^9 bytes), to two decimals.

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
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): reset the peak
    return [*peaks, peak_memory()]


class _Living(TorchDispatchMode):
    """Adds up the storage of the tensors that were created inside it and still live."""

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
        outputs = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        self.totals.append(self.total)
        return outputs
