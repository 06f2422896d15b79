"""The owning thread: in and out, cancellation, failed steps, the end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from pippin_server.engines.base import Delta, EngineFailed, EngineStopped, OutOfMemory
from pippin_server.engines.worker import MAX_FAILURES, Event, Worker
from support.eventually import eventually


class Counting:
    """A batcher whose requests each get so many tokens, one a step, when the gate is open."""

    def __init__(self) -> None:
        self.left: dict[int, int] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.fail: Exception | None = None
        self.fail_once = False
        #: Tickets of requests that have not begun.
        self.spared: set[int] = set()
        self.thread = threading.get_ident()

    @property
    def size(self) -> int:
        return len(self.left)

    def add(self, ticket: int, job: int) -> None:
        if job < 0:
            raise ValueError("a secret of the library")
        self.left[ticket] = job

    def remove(self, tickets: Iterable[int]) -> None:
        for ticket in tickets:
            self.left.pop(ticket, None)

    def reset(self) -> list[int]:
        ended = [ticket for ticket in self.left if ticket not in self.spared]
        for ticket in ended:
            del self.left[ticket]
        return ended

    def step(self) -> list[tuple[int, Event]]:
        self.gate.wait(10)
        if self.fail is not None:
            failure, self.fail = self.fail, None if self.fail_once else self.fail
            raise failure
        events: list[tuple[int, Event]] = []
        for ticket in list(self.left):
            self.left[ticket] -= 1
            done = not self.left[ticket]
            events.append((ticket, Delta(text=".", finish="length" if done else None)))
            if done:
                del self.left[ticket]
        return events


@asynccontextmanager
async def a_worker() -> AsyncIterator[tuple[Worker[int, Delta], Counting]]:
    worker = Worker[int, Delta]("test-engine", time.monotonic)
    made: list[Counting] = []

    def make() -> Counting:
        made.append(Counting())
        return made[0]

    await worker.start(make)
    try:
        yield worker, made[0]
    finally:
        made[0].gate.set()
        await worker.close()


async def all_of(worker: Worker[int, Delta], job: int) -> int:
    return sum([len(deltas) async for deltas in worker.run(job)])


async def test_everyone_gets_their_tokens_from_the_one_thread() -> None:
    async with a_worker() as (worker, batcher):
        assert await asyncio.gather(*(all_of(worker, n) for n in (1, 5, 20))) == [1, 5, 20]
        assert batcher.thread != threading.get_ident()
        assert worker.active == 0


async def test_leaving_takes_the_request_out_before_the_next_step() -> None:
    async with a_worker() as (worker, batcher):
        answer = worker.run(1_000_000_000)
        await anext(answer)
        await answer.aclose()
        await eventually(lambda: batcher.size == 0, within=5)
        assert worker.active == 0


async def test_a_request_that_cannot_be_taken_in_fails_alone() -> None:
    async with a_worker() as (worker, _):
        good = asyncio.create_task(all_of(worker, 500))
        with pytest.raises(EngineFailed) as failed:
            await all_of(worker, -1)
        assert "secret" not in str(failed.value)
        assert await good == 500


async def test_a_failed_step_ends_its_requests_and_the_next_ones_are_served() -> None:
    async with a_worker() as (worker, batcher):
        batcher.gate.clear()
        running = [asyncio.create_task(all_of(worker, 5)) for _ in range(3)]
        await eventually(lambda: worker.active == 3, within=5)
        batcher.fail = RuntimeError("a secret of the library")
        batcher.gate.set()
        results = await asyncio.gather(*running, return_exceptions=True)
        assert [type(result) for result in results] == [EngineFailed] * 3
        batcher.fail = None
        assert await all_of(worker, 3) == 3
        assert worker.alive


async def test_who_had_not_begun_goes_on_after_a_failed_step() -> None:
    async with a_worker() as (worker, batcher):
        batcher.gate.clear()
        running = [asyncio.create_task(all_of(worker, 5)) for _ in range(3)]
        await eventually(lambda: worker.active == 3, within=5)
        batcher.spared, batcher.fail_once = {2}, True
        batcher.fail = RuntimeError("broken")
        batcher.gate.set()
        results = await asyncio.gather(*running, return_exceptions=True)
        assert [type(result) for result in results] == [EngineFailed, int, EngineFailed]
        assert results[1] == 5


async def test_no_memory_is_borne_longer_than_an_error() -> None:
    async with a_worker() as (worker, batcher):
        batcher.fail = OutOfMemory("out of memory")
        for _ in range(MAX_FAILURES + 1):
            with pytest.raises(OutOfMemory):
                await all_of(worker, 5)
        assert worker.alive


async def test_an_engine_that_keeps_failing_is_dead() -> None:
    async with a_worker() as (worker, batcher):
        batcher.fail = RuntimeError("broken")
        for _ in range(MAX_FAILURES):
            with pytest.raises(EngineFailed):
                await all_of(worker, 5)
        await eventually(lambda: not worker.alive, within=5)
        with pytest.raises(EngineStopped):
            await all_of(worker, 5)


async def test_closing_tells_those_who_wait() -> None:
    async with a_worker() as (worker, batcher):
        batcher.gate.clear()
        waiting = asyncio.create_task(all_of(worker, 5))
        await eventually(lambda: worker.active == 1, within=5)
        closing = asyncio.create_task(worker.close())
        await asyncio.sleep(0)
        batcher.gate.set()
        await closing
        with pytest.raises(EngineStopped):
            await waiting


async def test_the_clock_of_progress_stands_while_a_step_hangs() -> None:
    async with a_worker() as (worker, batcher):
        await all_of(worker, 1)
        await eventually(lambda: worker.batch_size == 0, within=5)
        batcher.gate.clear()
        waiting = asyncio.create_task(all_of(worker, 1))
        await eventually(lambda: worker.batch_size == 1, within=5)
        seen = worker.progressed_at
        await asyncio.sleep(0.05)
        assert worker.progressed_at == seen
        batcher.gate.set()
        await waiting
        assert worker.progressed_at > seen


async def test_a_call_runs_on_the_thread_between_steps_and_fails_alone() -> None:
    def broken() -> None:
        raise ValueError("no")

    async with a_worker() as (worker, batcher):
        assert await worker.between_steps(threading.get_ident) == batcher.thread
        answer = asyncio.create_task(all_of(worker, 3))
        with pytest.raises(ValueError, match="no"):
            await worker.between_steps(broken)
        assert await answer == 3


async def test_a_call_that_comes_too_late_is_told_so() -> None:
    async with a_worker() as (worker, batcher):
        batcher.gate.clear()
        asked = asyncio.create_task(all_of(worker, 5))
        await eventually(lambda: worker.batch_size == 1)
        waiting = asyncio.create_task(worker.between_steps(threading.get_ident))
        await asyncio.sleep(0)
        closing = asyncio.create_task(worker.close())
        await asyncio.sleep(0)
        batcher.gate.set()
        await closing
        for task in (asked, waiting):
            with pytest.raises(EngineStopped):
                await task
        with pytest.raises(EngineStopped):
            await worker.between_steps(threading.get_ident)
