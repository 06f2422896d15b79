"""The bounded way in: places, the queue, and the drain."""

from __future__ import annotations

import asyncio
import time

import pytest

from pippin_edge.errors import NotReady, Overloaded
from pippin_server.admission import NOBODY, Admission
from pippin_server.fairness import Standing

BATCH = Standing("nightly", batch=True)


def an_admission(*, places: int = 1, queue: int = 1, timeout: float = 5) -> Admission:
    return Admission(
        max_concurrency=places, max_queue=queue, queue_timeout=timeout, clock=time.monotonic
    )


class Guest:
    """Holds a slot until told to leave."""

    def __init__(self, admission: Admission, standing: Standing = NOBODY) -> None:
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._stay(admission, standing))

    async def _stay(self, admission: Admission, standing: Standing) -> None:
        async with admission.slot(standing):
            self.entered.set()
            await self.leave.wait()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_who_wait_come_in_by_their_order() -> None:
    admission = an_admission(queue=3)
    guests = [Guest(admission) for _ in range(4)]
    await settled()
    for now, then in zip(guests, guests[1:], strict=False):
        assert now.entered.is_set() and not then.entered.is_set()
        assert admission.active == 1
        now.leave.set()
        await settled()
    guests[-1].leave.set()
    await asyncio.gather(*(guest.task for guest in guests))
    assert (admission.active, admission.pending) == (0, 0)


async def test_a_full_queue_refuses_at_once() -> None:
    admission = an_admission()
    guests = [Guest(admission), Guest(admission)]
    await settled()
    with pytest.raises(Overloaded) as refused:
        async with admission.slot():
            raise AssertionError("must not come in")
    assert refused.value.retry_after is not None
    for guest in guests:
        guest.leave.set()
    await asyncio.gather(*(guest.task for guest in guests))


async def test_a_place_is_not_lost_when_the_one_it_was_given_to_leaves_in_that_moment() -> None:
    admission = an_admission(queue=2)
    first, second, third = (Guest(admission) for _ in range(3))
    await settled()
    first.leave.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second.task.cancel()
    await settled()
    assert third.entered.is_set()
    assert admission.active == 1
    third.leave.set()
    await asyncio.gather(first.task, second.task, third.task, return_exceptions=True)
    assert admission.active == 0


async def test_waiting_has_an_end() -> None:
    admission = an_admission(timeout=0.01)
    first = Guest(admission)
    await settled()
    with pytest.raises(Overloaded):
        async with admission.slot():
            raise AssertionError("must not come in")
    assert admission.pending == 0
    first.leave.set()
    await first.task


async def test_a_drain_sends_the_waiting_away_and_waits_for_the_running() -> None:
    admission = an_admission()
    running, waiting = Guest(admission), Guest(admission)
    await settled()
    drained = asyncio.create_task(admission.drain(5))
    await settled()
    with pytest.raises(NotReady):
        await waiting.task
    with pytest.raises(NotReady):
        async with admission.slot():
            raise AssertionError("must not come in")
    assert not drained.done()
    running.leave.set()
    assert await drained is True


async def test_a_drain_gives_up_in_time() -> None:
    admission = an_admission()
    running = Guest(admission)
    await settled()
    assert await admission.drain(0.01) is False
    running.leave.set()
    await running.task


async def test_an_interactive_request_comes_in_before_batches_that_wait() -> None:
    admission = an_admission(queue=9)
    running, *batches = [Guest(admission), Guest(admission, BATCH), Guest(admission, BATCH)]
    await settled()
    late = Guest(admission, Standing("person"))
    await settled()
    assert admission.pending_batch == 2
    running.leave.set()
    await settled()
    assert late.entered.is_set() and not any(batch.entered.is_set() for batch in batches)
    late.leave.set()
    await settled()
    assert batches[0].entered.is_set() and not batches[1].entered.is_set()
    for batch in batches:
        batch.leave.set()
    await asyncio.gather(*(one.task for one in (running, late, *batches)))


async def test_batches_leave_a_place_for_others() -> None:
    admission = an_admission(places=2, queue=9)
    batches = [Guest(admission, BATCH) for _ in range(3)]
    await settled()
    assert (admission.active, admission.pending_batch) == (1, 2)
    person = Guest(admission, Standing("person"))
    await settled()
    assert person.entered.is_set()
    for one in (person, *batches):
        one.leave.set()
    await asyncio.gather(*(one.task for one in (person, *batches)))
    assert (admission.active, admission.pending) == (0, 0)


async def test_a_queue_full_of_batches_takes_an_interactive_request_for_the_last_of_them() -> None:
    admission = an_admission(queue=2)
    running = Guest(admission)
    await settled()
    batches = [Guest(admission, BATCH), Guest(admission, BATCH)]
    await settled()
    person = Guest(admission, Standing("person"))
    await settled()
    with pytest.raises(Overloaded):
        await batches[1].task
    with pytest.raises(Overloaded):
        await Guest(admission, BATCH).task
    for one in (running, person, batches[0]):
        one.leave.set()
        await settled()
    await asyncio.gather(running.task, person.task, batches[0].task)


async def test_tokens_decide_who_of_two_keys_comes_in_next() -> None:
    admission = an_admission(queue=9)
    async with admission.slot(Standing("heavy")) as place:
        guests = {key: Guest(admission, Standing(key)) for key in ("heavy", "light")}
        await settled()
        place.tokens = 5000
    await settled()
    assert guests["light"].entered.is_set() and not guests["heavy"].entered.is_set()
    for guest in guests.values():
        guest.leave.set()
    await asyncio.gather(*(guest.task for guest in guests.values()))
