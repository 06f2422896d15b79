"""The bounded way in: so many at once, so many waiting, nobody for ever; and the way out, draining.

Held around the whole answer, until its last byte is written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pippin_edge.errors import NotReady, Overloaded

#: Seconds after which a refused caller may find another replica, or this one restarted.
RETRY_AFTER = 2


class Admission:
    """First come, first served. `active` and `pending` are for everyone to read."""

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
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def pending(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """A place among the active; yields the seconds it was waited for. Raises Overloaded."""
        began = self._clock()
        await self._enter()
        try:
            yield self._clock() - began
        finally:
            self._leave()

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

    async def _enter(self) -> None:
        if self.draining:
            raise _draining()
        if self.active < self.max_concurrency and not self._waiting:
            self._take()
            return
        if len(self._waiting) >= self.max_queue:
            raise Overloaded(
                f"{self.active} requests are running and {self.pending} waiting, "
                "which is all this server takes: try again later",
                retry_after=RETRY_AFTER,
            )
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(self.queue_timeout):
                await waiter
        except TimeoutError as error:
            self._forget(waiter)
            raise Overloaded(
                f"no place became free within {self.queue_timeout:g} seconds: try again later",
                retry_after=RETRY_AFTER,
            ) from error
        except BaseException:
            self._forget(waiter)
            raise

    def _take(self) -> None:
        self.active += 1
        self._empty.clear()

    def _leave(self) -> None:
        self.active -= 1
        while self._waiting and self.active < self.max_concurrency:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._take()
                waiter.set_result(None)
        if not self.active:
            self._empty.set()

    def _forget(self, waiter: asyncio.Future[None]) -> None:
        """A waiter that goes: out of the row, or, when its place had just come, that is free."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self._leave()


def _draining() -> NotReady:
    return NotReady("this server is about to end: try again", retry_after=RETRY_AFTER)
