"""The bounded way in: so many at once, so many waiting, nobody for ever; and the way out, draining.

Held around the whole answer, until its last byte is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pippin_edge.errors import NotReady, Overloaded

from .fairness import Ledger, Row, Standing

#: Seconds after which a refused caller may find another replica, or this one restarted.
RETRY_AFTER = 2
#: Of the places, the part that batches leave to others: at least one, where there are two.
KEPT_FREE = 8

NOBODY = Standing()


@dataclass(slots=True)
class Place:
    """Among the active. Tell it `tokens`, once they are known: its key's share goes by them."""

    waited: float
    tokens: int | None = None


class Admission:
    """Who comes in is fair among keys, see `fairness`. `active` and `pending` are for everyone to
    read."""

    def __init__(
        self,
        *,
        max_concurrency: int,
        max_queue: int,
        queue_timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self.max_concurrency = max_concurrency
        self.max_queue = max_queue
        self.queue_timeout = queue_timeout
        self.draining = False
        self.active = 0
        self._batch_places = max(1, max_concurrency - max(1, max_concurrency // KEPT_FREE))
        self._batches = 0
        self._clock = clock
        self._ledger = Ledger()
        self._waiting: Row[asyncio.Future[float]] = Row(self._ledger)
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def pending(self) -> int:
        return len(self._waiting)

    @property
    def pending_batch(self) -> int:
        return self.pending - self._waiting.before(NOBODY)

    def stats(self) -> dict[str, object]:
        """Of /v1/queue/stats."""
        return {
            "active": self.active,
            "pending": self.pending,
            "pending_batch": self.pending_batch,
            "max_concurrency": self.max_concurrency,
            "max_queue": self.max_queue,
            "draining": self.draining,
        }

    @asynccontextmanager
    async def slot(self, standing: Standing = NOBODY) -> AsyncIterator[Place]:
        """A place among the active. Raises Overloaded."""
        began = self._clock()
        guessed = await self._enter(standing)
        place = Place(self._clock() - began)
        try:
            yield place
        finally:
            self._leave(standing, guessed, place.tokens)

    async def drain(self, within: float) -> bool:
        """Take in nobody any more; True when all have left in time."""
        self.draining = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(_draining())
        try:
            async with asyncio.timeout(within):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def _enter(self, standing: Standing) -> float:
        """Returns what it is guessed to take."""
        if self.draining:
            raise _draining()
        if self._has_place(standing) and not self._waiting.before(standing):
            self._waiting.arrives(standing)
            return self._take(standing)
        self._make_room(standing)
        waiter: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.add(standing, waiter)
        try:
            async with asyncio.timeout(self.queue_timeout):
                return await waiter
        except TimeoutError as error:
            self._forget(standing, waiter)
            raise Overloaded(
                f"no place became free within {self.queue_timeout:g} seconds: try again later",
                retry_after=RETRY_AFTER,
            ) from error
        except BaseException:
            self._forget(standing, waiter)
            raise

    def _make_room(self, standing: Standing) -> None:
        """In the queue. Raises Overloaded, unless somebody of a batch can go instead."""
        if self.pending < self.max_queue:
            return
        evicted = None if standing.batch else self._waiting.evict()
        if evicted is None:
            raise self._full()
        if not evicted.done():
            evicted.set_exception(self._full())

    def _full(self) -> Overloaded:
        return Overloaded(
            f"{self.active} requests are running and {self.pending} waiting, "
            "which is all this server takes: try again later",
            retry_after=RETRY_AFTER,
        )

    def _has_place(self, standing: Standing) -> bool:
        return self.active < self.max_concurrency and (
            not standing.batch or self._batches < self._batch_places
        )

    def _take(self, standing: Standing) -> float:
        self.active += 1
        self._batches += standing.batch
        self._empty.clear()
        return self._ledger.enters(standing.key)

    def _leave(self, standing: Standing, guessed: float, tokens: int | None) -> None:
        self._ledger.leaves(standing.key, guessed, tokens)
        self.active -= 1
        self._batches -= standing.batch
        self._let_in()
        if not self.active:
            self._empty.set()

    def _let_in(self) -> None:
        """As many of those who wait as there are places."""
        while self.active < self.max_concurrency:
            found = self._waiting.pop(batch_too=self._batches < self._batch_places)
            if found is None:
                return
            standing, waiter = found
            if not waiter.done():
                waiter.set_result(self._take(standing))

    def _forget(self, standing: Standing, waiter: asyncio.Future[float]) -> None:
        """A waiter that goes: out of the row, or, when its place had just come, that is free."""
        if self._waiting.discard(standing, waiter):
            return
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self._leave(standing, waiter.result(), 0)


def _draining() -> NotReady:
    return NotReady("this server is about to end: try again", retry_after=RETRY_AFTER)
