"""What ends a request from outside: a deadline that passed, or a client that left.

Both cancel the request's task, wherever it waits (connecting, reading, writing to a slow
client); `Guard.expired` then says why. Deadlines are compared, and those of streams put off, by
one coarse ticker for all requests: a timer of its own for every phase of every request costs more
than the phase.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from types import TracebackType

from pippin_edge.errors import ClientGone

from ..routing.retry import Failure
from .failure import UpstreamFailure

#: Seconds between two looks at the deadlines.
TICK = 0.05


class Guard:
    """Around one request: `with ticker.guard() as guard`.

    A client that left ends the request as errors.ClientGone. A deadline ends what the request
    waits for: catch CancelledError there and ask `expired()`.
    """

    __slots__ = ("_expired", "_kind", "_task", "_ticker", "due", "heard", "left", "next_part")

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker
        task = asyncio.current_task(ticker.loop)
        assert task is not None
        self._task = task
        self.due = math.inf
        self._kind = Failure.TOTAL_TIMEOUT
        #: The client hung up.
        self.left = False
        self._expired = False
        #: A part of a stream has come: the next one has its time from the next look on.
        self.heard = False
        self.next_part: Callable[[float], tuple[float, Failure]] | None = None

    def __enter__(self) -> Guard:
        self._ticker.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ticker.discard(self)
        if self.left and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise ClientGone from error

    def until(self, deadline: tuple[float, Failure]) -> None:
        """The next wait is late at this moment, and for this reason."""
        self.due, self._kind = deadline
        self.heard = False

    def expire(self) -> None:
        """The deadline passed."""
        self.due = math.inf
        self._expired = True
        self._task.cancel()

    def client_gone(self) -> None:
        """The caller hung up."""
        self.due = math.inf
        self.left = True
        self._task.cancel()

    def expired(self) -> UpstreamFailure | None:
        """After a CancelledError: the deadline behind it, from which the request may go on.

        None when the client left or the process ends: raise on.
        """
        if self.left or not self._expired:
            return None
        self._expired = False
        self._task.uncancel()
        return UpstreamFailure(self._kind)


class Ticker:
    """Looks at the deadlines of all running requests; sleeps when there are none. Belongs to the
    event loop that runs when it is made."""

    def __init__(self) -> None:
        #: Asked for once: until Python 3.12 each look-up of the running one is a system call.
        self.loop = asyncio.get_running_loop()
        self._guards: set[Guard] = set()
        self._timer: asyncio.TimerHandle | None = None

    def guard(self) -> Guard:
        return Guard(self)

    def __len__(self) -> int:
        return len(self._guards)

    def add(self, guard: Guard) -> None:
        self._guards.add(guard)
        if self._timer is None:
            self._timer = self.loop.call_later(TICK, self._tick)

    def discard(self, guard: Guard) -> None:
        self._guards.discard(guard)

    def _tick(self) -> None:
        if not self._guards:
            self._timer = None
            return
        now = self.loop.time()
        for guard in self._guards:
            if guard.heard and guard.next_part is not None:
                guard.until(guard.next_part(now))
        for guard in [guard for guard in self._guards if guard.due <= now]:
            guard.expire()
        self._timer = self.loop.call_later(TICK, self._tick)
