"""Jobs whose progress a page sees while it happens, as server-sent events.

WHATWG HTML, section 9.2, "Server-sent events": `EventSource` connects again by itself, and says in
the header `Last-Event-ID` how far it had come.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

from unpool.errors import UnpoolError
from unpool.files import strict
from unpool.limits import JOB_SECONDS, MAX_JOBS
from unpool.serve.engine import Engine, Job, StoppedError
from unpool.serve.refusals import Refusal

FINAL = ("done", "failed", "cancelled")
"""The events that end a job."""

Work = Callable[[Job], dict[str, Any]]
"""Computes what the event "done" says, and reports other events to its job."""


class _Running:
    """A job and its events, each with its number; used in the thread of the event loop."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.leaving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.listeners = 0
        self._changed = asyncio.Event()

    @property
    def over(self) -> bool:
        return bool(self.events) and self.events[-1][0] in FINAL

    def add(self, name: str, values: object) -> None:
        """Append an event; none comes after a final one."""
        if not self.over:
            self.events.append((name, json.dumps(strict(values))))
            self._changed.set()

    def cancel(self) -> None:
        """Give the job up."""
        if not self.leaving.done():
            self.leaving.set_result(None)
        self.add("cancelled", {})

    async def wait(self, seconds: float) -> None:
        """Return when an event is added, or after some time."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)


class Jobs:
    """Jobs by id, computed one after the other by the engine of the service.

    Args:
        engine: of the service.
        explain: the message of an error.
        alive: seconds after which a comment keeps a silent connection open.
        grace: seconds after which a job that nobody listens to any more is given up.
    """

    def __init__(
        self,
        engine: Engine,
        explain: Callable[[Exception], str],
        alive: float = 15.0,
        grace: float = 10.0,
    ) -> None:
        self.engine, self.explain, self.alive, self.grace = engine, explain, alive, grace
        self._jobs: dict[str, _Running] = {}
        self._tasks: set[asyncio.Future[None]] = set()

    async def start(self, work: Work) -> str:
        """Begin a job; returns its id.

        Raises:
            Refusal: 429 if the queue is full, 503 while the weights are loaded.
        """
        self.engine.require_room()
        name, running = secrets.token_urlsafe(16), _Running()
        for old in [n for n, job in self._jobs.items() if job.over][: -MAX_JOBS or None]:
            del self._jobs[old]
        self._jobs[name] = running
        running.add("queued", {"before": self.engine.jobs})
        self._keep(self._run(running, work))
        self._keep(self._watch(running))
        await asyncio.sleep(0)  # the job enters the queue, so that the next one sees it there
        return name

    def cancel(self, name: str) -> None:
        """Give a job up; the thread is free as soon as it notices.

        Raises:
            Refusal: 404 for an unknown job.
        """
        self._find(name).cancel()

    async def events(self, name: str, last: int = -1) -> AsyncIterator[str]:
        """The events of a job from `last` + 1 on, in the form of an event stream; at least one.

        Raises:
            Refusal: 404 for an unknown job, at the first step.
        """
        running = self._find(name)
        at = max(0, min(last + 1, len(running.events) - 1))
        running.listeners += 1
        try:
            while True:
                for n, (event, data) in enumerate(running.events[at:], at):
                    yield f"id: {n}\nevent: {event}\ndata: {data}\n\n"
                    at = n + 1
                    if event in FINAL:
                        return
                if at == len(running.events):
                    await running.wait(self.alive)
                if at == len(running.events):
                    yield ": still here\n\n"
        finally:
            running.listeners -= 1
            self._keep(self._watch(running))

    def require(self, name: str) -> None:
        """Refuse an unknown job with 404."""
        self._find(name)

    def _find(self, name: str) -> _Running:
        if name not in self._jobs:
            raise Refusal(404, "got a job that is not known any more; ask again")
        return self._jobs[name]

    def _keep(self, task: Any) -> None:
        """Keep a task from being collected before it is done."""
        future = asyncio.ensure_future(task)
        self._tasks.add(future)
        future.add_done_callback(self._tasks.discard)

    async def _watch(self, running: _Running) -> None:
        """Give a job up that nobody listens to, such as one whose page was closed."""
        if running.listeners or running.over:
            return
        await asyncio.sleep(self.grace)
        if not running.listeners and not running.over:
            running.cancel()

    async def _run(self, running: _Running, work: Work) -> None:
        loop = asyncio.get_running_loop()

        def reported(job: Job) -> dict[str, Any]:
            def report(event: str, values: object) -> None:
                loop.call_soon_threadsafe(running.add, event, values)

            job.report = report
            return work(job)

        try:
            found = await self.engine.run(reported, running.leaving, seconds=JOB_SECONDS)
            running.add("done", found)
        except (StoppedError, asyncio.CancelledError):
            running.add("cancelled", {})
        except UnpoolError as error:
            left = isinstance(error, Refusal) and error.status == 499
            running.add(*(("cancelled", {}) if left else ("failed", {"error": str(error)})))
        except Exception as error:
            running.add("failed", {"error": self.explain(error)})
