"""One thread, a bounded queue, deadlines and cancelling, without HTTP."""

import asyncio
import threading
import time

import pytest
import torch

from unpool.serve.engine import Engine, Job, StoppedError
from unpool.serve.refusals import Refusal


def use(test, **options):
    """Run a coroutine with a started engine."""

    async def run():
        engine = Engine(**options)
        engine.start()
        while not (engine.ready or engine.error):
            await asyncio.sleep(0.005)
        try:
            return await asyncio.wait_for(test(engine), 30)
        finally:
            await asyncio.to_thread(engine.close)

    return asyncio.run(run())


def never():
    return asyncio.get_running_loop().create_future()


def test_jobs_run_one_by_one_in_one_thread():
    seen = []

    def work(job):
        seen.append(threading.get_ident())
        time.sleep(0.01)
        seen.append(threading.get_ident())
        return len(seen)

    async def test(engine):
        return await asyncio.gather(*(engine.run(work, never()) for _ in range(4)))

    assert use(test) == [2, 4, 6, 8]
    assert len({*seen}) == 1
    assert seen[0] != threading.get_ident()


def test_errors_come_back():
    def work(job):
        raise ValueError("as raised")

    async def test(engine):
        with pytest.raises(ValueError, match="as raised"):
            await engine.run(work, never())
        return await engine.run(lambda job: "next", never())

    assert use(test) == "next"


def test_a_full_queue_refuses_at_once():
    gate = threading.Event()

    async def test(engine):
        engine.mean = 1.5
        running = [asyncio.ensure_future(engine.run(lambda job: gate.wait(), never()))
                   for _ in range(3)]  # fmt: skip
        await asyncio.sleep(0)
        assert engine.jobs == 3
        with pytest.raises(Refusal, match="busy; try again in 5 s") as refused:
            await engine.run(lambda job: None, never())
        gate.set()
        assert await asyncio.gather(*running) == [True] * 3
        while engine.jobs:
            await asyncio.sleep(0.005)
        assert await engine.run(lambda job: "room again", never()) == "room again"
        return refused.value

    refusal = use(test, waiting=2)
    assert (refusal.status, refusal.headers) == (429, {"retry-after": "5"})


def endless(job):
    """Only PyTorch is called, nothing of the job."""
    x = torch.zeros(2)
    while True:
        x = x + 1


def test_a_job_beyond_its_time_is_stopped_within():
    async def test(engine):
        with pytest.raises(Refusal, match=r"not done within 0\.2 s") as refused:
            await engine.run(endless, never())
        assert await engine.run(lambda job: "next", never()) == "next"
        return refused.value.status

    assert use(test, seconds=0.2) == 504


def test_when_the_client_leaves_its_job_stops_and_those_that_wait_never_start():
    started = []

    async def test(engine):
        leaving = never()
        first = asyncio.ensure_future(engine.run(endless, leaving))
        second = asyncio.ensure_future(engine.run(started.append, leaving))
        await asyncio.sleep(0.05)
        leaving.set_result(None)
        found = await asyncio.gather(first, second, return_exceptions=True)
        assert await engine.run(lambda job: "next", never()) == "next"
        return [error.status for error in found]

    assert use(test) == [499, 499]
    assert not started


def test_a_cancelled_request_gives_up_its_job():
    async def test(engine):
        task = asyncio.ensure_future(engine.run(endless, never()))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await engine.run(lambda job: "next", never())

    assert use(test) == "next"


def test_nothing_is_accepted_before_the_weights_are_loaded():
    gate = threading.Event()

    async def test():
        engine = Engine(gate.wait)
        engine.start()
        with pytest.raises(Refusal, match="being loaded") as refused:
            await engine.run(lambda job: None, never())
        gate.set()
        while not engine.ready:
            await asyncio.sleep(0.005)
        assert await engine.run(lambda job: 7, never()) == 7
        await asyncio.to_thread(engine.close)
        return refused.value

    refusal = asyncio.run(test())
    assert (refusal.status, refusal.headers) == (503, {"retry-after": "5"})


def test_weights_that_cannot_be_loaded_are_reported():
    calls = []

    def load():
        raise ValueError("damaged")

    async def test(engine):
        assert not engine.ready
        return str(engine.error)

    assert use(test, load=load, failed=lambda: calls.append(1)) == "damaged"
    assert calls == [1]


def test_closing_stops_what_runs():
    async def test():
        engine = Engine()
        engine.start()
        while not engine.ready:
            await asyncio.sleep(0.005)
        task = asyncio.ensure_future(engine.run(endless, never()))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(engine.close)
        with pytest.raises(StoppedError):
            await task

    asyncio.run(test())


def test_a_job_checks_in_every_function_of_torch_and_changes_no_number():
    job = Job()
    x = torch.linspace(0, 1, 50).reshape(1, 1, 5, 10)
    weight = torch.ones(1, 1, 3, 3, requires_grad=True)
    plain = torch.nn.functional.conv2d(x, weight)
    with job.stopping():
        found = torch.nn.functional.conv2d(x, weight)
        (gradient,) = torch.autograd.grad(found.sum(), weight)
    assert torch.equal(found, plain)
    assert gradient.shape == weight.shape
    job.stopped = True
    with job.stopping(), pytest.raises(StoppedError):
        x.sum()
    with pytest.raises(StoppedError):
        job.progress(1, 2)
    assert float(x.sum()) == pytest.approx(25)  # the mode ends with its context
