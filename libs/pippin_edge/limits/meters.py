"""How much of a limit is used, as data and decisions given `now`. No clock, no I/O.

Every meter answers `wait`, the seconds until a cost fits, and takes a cost by `add`, whose mark
`correct` wants when the true cost is known.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

SECONDS = 60.0
DAY = 86_400.0
#: Windows with more room than this join what comes within one tick (10 ms) into one entry, which
#: counts from the tick's end: so that a window never holds more than ~6000 entries.
EXACT_UP_TO = 6000
TICK = SECONDS / EXACT_UP_TO
#: Seconds after which it is worth asking again whether a request has ended.
SOON = 1.0

#: When it was added (of whatever meaning to the meter), and its cost.
Mark = list[float]


class Meter(Protocol):
    used: int

    def wait(self, limit: int, cost: int, now: float) -> float: ...
    def add(self, limit: int, cost: int, now: float) -> Mark: ...
    def correct(self, mark: Mark, by: int) -> None: ...
    def reset_after(self, now: float) -> float: ...


class Window:
    """What was used in the last 60 s, exactly: in no 60 s more than the limit is let in."""

    __slots__ = ("_entries", "_horizon", "used")

    def __init__(self) -> None:
        self._entries: deque[Mark] = deque()  # oldest first
        self._horizon = -math.inf
        self.used = 0

    def wait(self, limit: int, cost: int, now: float) -> float:
        self.expire(now)
        over = self.used + cost - limit
        if over <= 0:
            return 0.0
        for time, part in self._entries:
            over -= int(part)
            if over <= 0:
                return max(time + SECONDS - now, 1e-6)
        return SECONDS  # a limit below the cost never has room

    def add(self, limit: int, cost: int, now: float) -> Mark:
        entries = self._entries
        self.used += cost
        at = now if limit <= EXACT_UP_TO else math.ceil(now / TICK) * TICK
        if limit > EXACT_UP_TO and entries and entries[-1][0] == at:
            entries[-1][1] += cost
        else:
            entries.append([at, cost])
        return entries[-1]

    def correct(self, mark: Mark, by: int) -> None:
        """What has left the window already is of no interest."""
        if mark[0] > self._horizon:
            mark[1] += by
            self.used += by

    def reset_after(self, now: float) -> float:
        return self._entries[-1][0] + SECONDS - now if self._entries else 0.0

    def expire(self, now: float) -> None:
        """Forget what is older than the window."""
        entries, horizon = self._entries, now - SECONDS
        self._horizon = max(self._horizon, horizon)
        while entries and entries[0][0] <= horizon:
            self.used -= int(entries.popleft()[1])

    def since(self, moment: float) -> list[Mark]:
        """What was added since that moment and still counts."""
        return [mark for mark in self._entries if mark[0] >= moment]


class Day:
    """What was used since midnight UTC. `now` is Unix time."""

    __slots__ = ("_day", "used")

    def __init__(self) -> None:
        self._day = -1.0
        self.used = 0

    def wait(self, limit: int, cost: int, now: float) -> float:
        self.expire(now)
        return 0.0 if self.used + cost <= limit else self.reset_after(now)

    def add(self, limit: int, cost: int, now: float) -> Mark:
        self.used += cost
        return [self._day, cost]

    def correct(self, mark: Mark, by: int) -> None:
        if mark[0] == self._day:
            self.used += by

    def reset_after(self, now: float) -> float:
        return DAY - now % DAY

    def expire(self, now: float) -> None:
        day = now // DAY
        if day != self._day:
            self._day, self.used = day, 0


class Flight:
    """What is under way."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0

    def wait(self, limit: int, cost: int, now: float) -> float:
        return 0.0 if self.used + cost <= limit else SOON

    def add(self, limit: int, cost: int, now: float) -> Mark:
        self.used += cost
        return [now, cost]

    def correct(self, mark: Mark, by: int) -> None:
        self.used += by

    def reset_after(self, now: float) -> float:
        return 0.0

    def expire(self, now: float) -> None:
        """Only the end of a request takes from it."""
