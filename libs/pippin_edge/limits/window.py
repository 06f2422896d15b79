"""A sliding window of 60 s over events, exact, as data and decisions given `now`.

No clock, no I/O. In any 60 s no more than `limit` are let in, and after `retry_after` seconds
(if nobody else comes) the next one is.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

SECONDS = 60.0
#: Windows with more room than this join events of one tick into one entry (10 ms), so that a
#: window never holds more than ~6000 entries, whatever its limit.
EXACT_UP_TO = 6000
TICK = SECONDS / EXACT_UP_TO


class Verdict(NamedTuple):
    """What a limit says of one request. Times in seconds from now."""

    allowed: bool
    limit: int
    remaining: int
    #: Until the window is empty again.
    reset_after: float
    #: Until one more is let in; 0 when there is room.
    retry_after: float


class Window:
    """The events of one key."""

    __slots__ = ("_events", "used")

    def __init__(self) -> None:
        self._events: deque[list[float]] = deque()  # [time, count], oldest first
        self.used = 0

    def take(self, limit: int, now: float) -> Verdict:
        """Let one event in, if there is room."""
        self.expire(now)
        allowed = self.used < limit
        if allowed:
            self._add(limit, now)
        retry_after = 0.0 if self.used < limit else self._until_room(limit, now)
        return Verdict(
            allowed=allowed,
            limit=limit,
            remaining=max(0, limit - self.used),
            reset_after=self._events[-1][0] + SECONDS - now if self._events else 0.0,
            retry_after=retry_after,
        )

    def expire(self, now: float) -> None:
        """Forget what is older than the window."""
        events = self._events
        horizon = now - SECONDS
        while events and events[0][0] <= horizon:
            self.used -= int(events.popleft()[1])

    def _add(self, limit: int, now: float) -> None:
        events = self._events
        self.used += 1
        if limit > EXACT_UP_TO and events and now - events[-1][0] < TICK:
            events[-1][1] += 1  # counted from the tick's beginning: at most 10 ms too short
        else:
            events.append([now, 1])

    def _until_room(self, limit: int, now: float) -> float:
        """When enough of the oldest have left; the limit may have been lowered meanwhile."""
        over = self.used - limit + 1
        for time, count in self._events:
            over -= int(count)
            if over <= 0:
                return max(0.0, time + SECONDS - now)
        return SECONDS  # a limit of 0 never has room
