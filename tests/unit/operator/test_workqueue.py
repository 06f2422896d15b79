"""Keys run one at a time, as often as needed and no more."""

import asyncio
from collections import Counter

from pippin_operator.workqueue import DONE, FAILED, Backoff, Outcome, WorkQueue
from support.eventually import eventually


class Bench:
    """Work that waits for the test, and remembers who ran beside whom."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.now: Counter[str] = Counter()
        self.most = 0
        self.gate = asyncio.Event()
        self.outcomes: dict[str, Outcome] = {}

    async def work(self, key: str) -> Outcome:
        self.now[key] += 1
        assert self.now[key] == 1, "one worker a key"
        self.most = max(self.most, self.now.total())
        self.runs[key] += 1
        try:
            await self.gate.wait()
        finally:
            self.now[key] -= 1
        return self.outcomes.get(key, DONE)


async def test_fifty_wakes_make_two_runs():
    bench = Bench()
    queue = WorkQueue(bench.work, concurrency=4)
    queue.wake("a")
    await eventually(lambda: bench.runs["a"] == 1)
    for _ in range(50):
        queue.wake("a")
    bench.gate.set()
    await eventually(lambda: queue.depth == 0)
    assert bench.runs["a"] == 2


async def test_wakes_before_the_run_are_one():
    bench = Bench()
    bench.gate.set()
    queue = WorkQueue(bench.work, concurrency=1)
    for _ in range(50):
        queue.wake("a")
    await eventually(lambda: queue.depth == 0)
    assert bench.runs["a"] == 1


async def test_no_more_than_so_many_at_once():
    bench = Bench()
    queue = WorkQueue(bench.work, concurrency=3)
    for number in range(10):
        queue.wake(str(number))
    await eventually(lambda: bench.most == 3)
    bench.gate.set()
    await eventually(lambda: queue.depth == 0)
    assert bench.most == 3
    assert bench.runs.total() == 10


async def test_a_failed_run_is_tried_again_until_it_succeeds():
    bench = Bench()
    bench.gate.set()
    bench.outcomes["a"] = FAILED
    queue = WorkQueue(bench.work, concurrency=1, backoff=Backoff(first=0.01, most=0.02))
    queue.wake("a")
    await eventually(lambda: bench.runs["a"] >= 3)
    bench.outcomes["a"] = DONE
    runs = bench.runs["a"]
    await eventually(lambda: bench.runs["a"] > runs and queue.depth == 0)
    await queue.close()


def test_pauses_grow_to_a_bound():
    backoff = Backoff(first=0.2, factor=2, most=10)
    assert [backoff.after(n) for n in (1, 2, 3, 7, 1000)] == [0.2, 0.4, 0.8, 10, 10]


async def test_a_wake_cuts_a_pause_short():
    bench = Bench()
    bench.gate.set()
    bench.outcomes["a"] = Outcome(again=3600)
    queue = WorkQueue(bench.work, concurrency=1)
    queue.wake("a")
    await eventually(lambda: bench.runs["a"] == 1 and queue.depth == 0)
    queue.wake("a")
    await eventually(lambda: bench.runs["a"] == 2)
    await queue.close()


async def test_an_earlier_appointment_is_kept():
    bench = Bench()
    bench.gate.set()
    queue = WorkQueue(bench.work, concurrency=1)
    queue.wake("a", after=0.01)
    queue.wake("a", after=3600)
    await eventually(lambda: bench.runs["a"] == 1)
    await queue.close()


async def test_after_the_end_nothing_runs():
    bench = Bench()
    queue = WorkQueue(bench.work, concurrency=1)
    queue.wake("a")
    queue.wake("b", after=0.01)
    await eventually(lambda: bench.runs["a"] == 1)
    await queue.close()
    queue.wake("c")
    assert queue.depth == 0
    assert bench.now.total() == 0
    assert set(bench.runs) == {"a"}
