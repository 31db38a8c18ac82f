"""The thread that computes, the bounded queue before it, deadlines, and cancelling.

PyTorch uses all cores for one image, and several at a time gain nothing on a CPU, so there is one
thread. It cannot be killed, so a job that was given up is stopped from within: at each call of a
function of PyTorch, and whenever it reports its progress.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from unpool.serve.refusals import Refusal

T = TypeVar("T")

_SMOOTHING = 0.2  # weight of the last job in the mean duration


class StoppedError(Exception):
    """The job was given up, since its client left or its time is over."""


Report = Callable[[str, object], None]
"""Takes the name of an event of a job, and plain values."""


class Job:
    """A piece of work, as seen from within: it calls `check` or `progress` now and then."""

    def __init__(self) -> None:
        self.stopped = False
        self.report: Report = lambda event, values: None  #: for those who watch the job

    def check(self) -> None:
        """Raise a `StoppedError` if the job was given up."""
        if self.stopped:
            raise StoppedError

    def progress(self, done: int, total: int, what: str = "") -> None:
        """Check and report, as an `unpool.Progress`."""
        self.check()
        self.report("progress", {"done": done, "total": total, "stage": what})

    def stopping(self) -> AbstractContextManager[Any]:
        """A context in which each function of PyTorch checks first, in this thread.

        >>> import torch
        >>> job = Job()
        >>> with job.stopping():
        ...     float(torch.ones(2).sum())
        2.0
        """
        from torch.overrides import TorchFunctionMode

        check = self.check

        class Stopping(TorchFunctionMode):
            def __torch_function__(
                self, function: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                check()
                return function(*args, **(kwargs or {}))

        return Stopping()


class Engine:
    """One thread for all jobs, and a bound on those that wait for it.

    Args:
        load: called in the thread before the first job; no job is accepted until it is done.
        waiting: the largest number of jobs that wait.
        seconds: the longest time of a job, waiting included.
        failed: called if `load` raises; the exception is in `error`.
    """

    def __init__(
        self,
        load: Callable[[], object] = lambda: None,
        *,
        waiting: int = 8,
        seconds: float = 60.0,
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        self.most, self.seconds = waiting + 1, seconds
        self.error: BaseException | None = None
        self.ready = False
        self.mean = 1.0  #: seconds of a job
        self._load, self._failed = load, failed
        self._lock = threading.Lock()
        self._jobs = dict[int, Job]()
        self._pool = ThreadPoolExecutor(1, "unpool-model")

    @property
    def jobs(self) -> int:
        """The number of jobs in the thread and before it."""
        return len(self._jobs)

    def start(self) -> None:
        """Begin to load."""
        self._pool.submit(self._start)

    def _start(self) -> None:
        try:
            self._load()
            self.ready = True
        except BaseException as error:
            self.error = error
            self._failed()

    def close(self) -> None:
        """Give up all jobs, and wait until the thread has ended."""
        self.ready = False
        for job in [*self._jobs.values()]:
            job.stopped = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def require_ready(self) -> None:
        """Refuse a request with 503 while the weights are loaded."""
        if not self.ready:
            raise Refusal(503, "the weights are being loaded; try again", {"retry-after": "5"})

    def require_room(self) -> None:
        """Refuse a request before its body is read: 503 while loading, 429 if the queue is full."""
        self.require_ready()
        if self.jobs >= self.most:
            seconds = max(1, math.ceil(self.mean * self.jobs))
            raise Refusal(429, f"busy; try again in {seconds} s", {"retry-after": str(seconds)})

    async def run(
        self, work: Callable[[Job], T], leaving: "asyncio.Future[Any]", seconds: float | None = None
    ) -> T:
        """The result of a function, computed in the thread when its turn comes.

        Args:
            work: gets its job, and checks it now and then.
            leaving: done when nobody waits for the result any more.
            seconds: the longest time of this job, where it is another one.

        Raises:
            Refusal: 429 and 503, see `require_room`; 504 if the time is over, 499 if the client
                left. Then the job does not start, or is stopped.
        """
        self.require_room()
        seconds = self.seconds if seconds is None else seconds
        job = Job()
        future = self._submit(job, work)
        task = asyncio.wrap_future(future)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait({task, leaving}, timeout=seconds, return_when="FIRST_COMPLETED")
            if task.done():
                return task.result()
        finally:
            if not task.done():
                job.stopped = True
                future.cancel()
        if leaving.done():
            raise Refusal(499, "the client left")
        raise Refusal(504, f"not done within {seconds:g} s; ask for less, or try again later")

    def _submit(self, job: Job, work: Callable[[Job], T]) -> "Future[T]":
        def timed() -> T:
            job.check()
            start = time.perf_counter()
            with job.stopping():
                found = work(job)
            self.mean += _SMOOTHING * (time.perf_counter() - start - self.mean)
            return found

        with self._lock:
            self._jobs[id(job)] = job

        def done(_: object) -> None:
            with self._lock:
                del self._jobs[id(job)]

        future = self._pool.submit(timed)
        future.add_done_callback(done)
        return future
