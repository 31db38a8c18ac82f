"""Jobs and their events, without HTTP."""

import asyncio
import threading

import pytest

from unpool.errors import OptionError
from unpool.serve.engine import Engine
from unpool.serve.refusals import Refusal
from unpool.serve.studio.jobs import Jobs


def run(test, **options):
    """Run a coroutine function with jobs on an engine that is ready."""

    async def within():
        engine = Engine(waiting=options.pop("waiting", 8))
        engine.start()
        while not engine.ready:
            await asyncio.sleep(0.01)
        try:
            return await asyncio.wait_for(test(Jobs(engine, str, **options)), 20)
        finally:
            await asyncio.to_thread(engine.close)

    return asyncio.run(within())


async def collect(jobs, name, last=-1):
    """The events of a job: number, name and values."""
    found = []
    async for text in jobs.events(name, last):
        assert text.endswith("\n\n")
        if not text.startswith(":"):
            number, event, data = (line.partition(": ")[2] for line in text.splitlines()[:3])
            found.append((int(number), event, data))
    return found


def counting(job):
    job.report("box", [0, 0, 1, 1])
    for n in range(1, 4):
        job.progress(n, 3, "counting")
    return {"result": "r"}


def test_events_come_in_order_and_again_from_where_they_were_lost():
    async def test(jobs):
        name = await jobs.start(counting)
        found = await collect(jobs, name)
        assert [event for _, event, _ in found] == ["queued", "box", *["progress"] * 3, "done"]
        assert found[0][2] == '{"before": 0}'
        assert found[3][2] == '{"done": 2, "total": 3, "stage": "counting"}'
        assert found[-1][2] == '{"result": "r"}'
        assert await collect(jobs, name, 2) == found[3:]
        for last in (5, 99):  # the last event again
            assert await collect(jobs, name, last) == found[-1:]

    run(test)


def test_failures_are_sentences():
    def wrong(job):
        raise OptionError("got mode 'x'; wanted another")

    def fault(job):
        raise ZeroDivisionError("division")

    async def test(jobs):
        for work, error in ((wrong, "got mode 'x'; wanted another"), (fault, "division")):
            assert (await collect(jobs, await jobs.start(work)))[-1] == (
                1, "failed", f'{{"error": "{error}"}}',
            )  # fmt: skip

    run(test)


def endless(begun):
    def work(job):
        begun.set()
        while True:
            job.progress(0, 1)
            threading.Event().wait(0.01)

    return work


def test_a_cancelled_job_ends_and_the_next_begins():
    async def test(jobs):
        begun = threading.Event()
        name = await jobs.start(endless(begun))
        waiting = await jobs.start(counting)
        await asyncio.to_thread(begun.wait, 5)
        jobs.cancel(name)
        assert (await collect(jobs, name))[-1][1:] == ("cancelled", "{}")
        found = await collect(jobs, waiting)
        assert found[0][2] == '{"before": 1}'
        assert found[-1][1] == "done"

    run(test)


def test_a_job_that_nobody_watches_is_given_up():
    async def test(jobs):
        begun = threading.Event()
        name = await jobs.start(endless(begun))
        events = jobs.events(name)
        await anext(events)
        await asyncio.sleep(0.2)  # someone listens
        assert jobs.engine.jobs == 1
        await events.aclose()
        while jobs.engine.jobs:
            await asyncio.sleep(0.01)
        assert (await collect(jobs, name))[-1][1] == "cancelled"

    run(test, grace=0.1)


def test_silent_connections_are_kept_open():
    async def test(jobs):
        gate = threading.Event()
        name = await jobs.start(lambda job: {"done": gate.wait(5)})
        events = jobs.events(name)
        assert (await anext(events)).startswith("id: 0\nevent: queued")
        assert await anext(events) == ": still here\n\n"
        gate.set()
        await events.aclose()

    run(test, alive=0.05)


def test_bounds():
    async def test(jobs):
        gate = threading.Event()
        names = [await jobs.start(lambda job: {"done": gate.wait(5)}) for _ in range(2)]
        with pytest.raises(Refusal, match="busy") as refused:
            await jobs.start(counting)
        assert refused.value.status == 429
        gate.set()
        for name in names:
            assert (await collect(jobs, name))[-1][1] == "done"
        with pytest.raises(Refusal, match="not known any more"):
            jobs.cancel("nothing")
        for _ in range(70):  # old ones are forgotten
            await collect(jobs, await jobs.start(lambda job: {}))
        with pytest.raises(Refusal, match="not known any more"):
            jobs.require(names[0])

    run(test, waiting=1)
