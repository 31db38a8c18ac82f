"""Who works on the items: this process, or others of this machine.

An engine takes a `Work` and items and yields an outcome for each, in any order. It has no state
that outlives it: a run that is killed is started again, and the ledger says what is left.
`unpool.batch.ray` is a third engine, for several machines.
"""

import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import TYPE_CHECKING

from unpool.batch.work import ATTEMPTS, Item, Outcome, Work, silent
from unpool.errors import UnpoolError

if TYPE_CHECKING:
    from unpool import Progress


def serial(work: Work, items: Iterable[Item], progress: "Progress" = silent) -> Iterator[Outcome]:
    """Work on items one by one in this process."""
    work.prepare()
    for item in items:
        progress(0, 1, "")
        yield work(item, progress)


def processes(work: Work, items: Iterable[Item], workers: int) -> Iterator[Outcome]:
    """Work on items in processes of this machine, which share its cores.

    A process is handed one item at a time. If it dies over it, another takes its place, and the
    item comes again at the end; after `ATTEMPTS` deaths `Work` gives it up. All end with this
    process, even if that is killed.

    Args:
        work: must be picklable.
        items: are read as they are needed.
        workers: the number of processes.

    Raises:
        UnpoolError: processes die before they work on anything.
        Exception: an error that ends the run, from `work`.
    """
    data, threads = pickle.dumps(work), max(cores() // workers, 1)
    waiting, again = iter(items), deque[Item]()
    unready = 0  # processes that were started since the last one said that it is ready
    idle: list[tuple[BaseProcess, Connection]] = []
    busy: dict[Connection, tuple[BaseProcess, Item]] = {}
    try:
        while True:
            while len(busy) < workers:
                item = next(waiting, None) or (again.popleft() if again else None)
                if item is None:
                    break
                unready += not idle
                process, pipe = idle.pop() if idle else _start(data, threads)
                busy[pipe] = process, item
                with suppress(OSError):  # it died meanwhile, and `wait` finds that
                    pipe.send(item)
            if not busy:
                return
            for found in wait(list(busy)):
                pipe = found  # type: ignore[assignment]  # these are all connections
                process, item = busy[pipe]
                try:
                    answer = pipe.recv()
                except (EOFError, OSError):
                    process.join()
                    del busy[pipe]
                    again.append(item)
                    if unready > workers + ATTEMPTS:
                        raise UnpoolError(_dying(process.exitcode)) from None
                    continue
                if answer is None:
                    unready = 0
                    continue
                if isinstance(answer, BaseException):
                    raise answer
                del busy[pipe]
                idle.append((process, pipe))
                yield answer
    finally:
        for process, pipe in [*idle, *((process, pipe) for pipe, (process, _) in busy.items())]:
            pipe.close()  # upon which it ends
            process.join()
        for _, item in busy.values():
            work.ledger.end(str(item.source.name))


def _dying(code: int | None) -> str:
    reason = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return (
        f"the worker processes die before they are ready, the last by {reason}; if memory is "
        "short, use fewer workers"
    )


def _start(data: bytes, threads: int) -> tuple[BaseProcess, Connection]:
    context = get_context("spawn")  # a fork would inherit the threads of PyTorch in any state
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(data, theirs, threads), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _serve(data: bytes, pipe: Connection, threads: int) -> None:
    """Work on the items that come through the pipe, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the other process ends us
    inbox: SimpleQueue[bytes] = SimpleQueue()

    def receive() -> None:
        try:
            while True:
                inbox.put(pipe.recv_bytes())  # to be read, which imports, by one thread only
        except (EOFError, OSError):
            os._exit(1)  # at once, so that nobody works on what the next run begins

    threading.Thread(target=receive, daemon=True).start()
    use_threads(threads)
    try:
        work: Work = pickle.loads(data)
        work.prepare()
        use_threads(threads)
        pipe.send(None)  # ready
        while True:
            pipe.send(work(pickle.loads(inbox.get())))
    except Exception as error:
        pipe.send(portable(error))
        inbox.get()  # until the pipe is closed


def cores() -> int:
    """The cores that this process may use, and no more than OMP_NUM_THREADS allows."""
    own = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return min(own, int(allowed)) if allowed.isdecimal() and int(allowed) else own


def use_threads(count: int) -> None:
    """Let the libraries of this process, loaded or not, compute with so many threads."""
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ[name] = str(count)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)
    if cv2 := sys.modules.get("cv2"):
        cv2.setNumThreads(count)


def portable(error: Exception) -> Exception:
    """An error for another process, with the place where it happened as a note."""
    place = traceback.format_exc()
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:  # classes of libraries, whose constructors want more
        error = RuntimeError(repr(error))
    error.add_note(place)
    return error
