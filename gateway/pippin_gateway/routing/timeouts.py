"""How long each phase of a request may take: the model's own times, else the gateway's."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..catalog.model import UNSAID, Timeouts
from .retry import Failure


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds. `queue`: for a replica to come. `request` is of answers in one piece; None: only
    the total counts."""

    connect: float
    queue: float
    first_token: float
    stream_idle: float
    total: float
    request: float | None = None


def budget(asked: Timeouts, default: Budget) -> Budget:
    """The model's times over the defaults."""
    if asked is UNSAID:
        return default
    return Budget(
        connect=_or(asked.connect, default.connect),
        queue=_or(asked.queue, default.queue),
        first_token=_or(asked.first_token, default.first_token),
        stream_idle=_or(asked.stream_idle, default.stream_idle),
        total=_or(asked.total, default.total),
        request=asked.request,
    )


class Deadlines:
    """When the next phase of one request is late; `began` and the results are monotonic seconds.

    An answer that does not stream has no token to wait for, only its end.
    """

    __slots__ = ("_budget", "_end", "_streams")

    def __init__(self, budget: Budget, began: float, streams: bool) -> None:
        self._budget = budget
        self._end = began + budget.total
        self._streams = streams

    def replica(self, now: float) -> float:
        """Until when a replica may come. A stream, whose client hears that it still waits, has all
        the time that is left but what its first token may take."""
        due = now + self._budget.queue
        if self._streams and self._budget.queue:
            due = max(due, self._end - self._budget.first_token)
        return min(due, self._end)

    def connect(self, now: float) -> tuple[float, Failure]:
        return self._first(now + self._budget.connect, Failure.CONNECT_TIMEOUT)

    def answer(self, now: float) -> tuple[float, Failure]:
        if not self._streams:
            whole = self._budget.request
            return self._first(now + (whole or math.inf), Failure.REQUEST_TIMEOUT)
        return self._first(now + self._budget.first_token, Failure.FIRST_TOKEN_TIMEOUT)

    def end(self) -> tuple[float, Failure]:
        return self._end, Failure.TOTAL_TIMEOUT

    def next_part(self, now: float) -> tuple[float, Failure]:
        return self._first(now + self._budget.stream_idle, Failure.IDLE_TIMEOUT)

    def _first(self, due: float, failure: Failure) -> tuple[float, Failure]:
        return (due, failure) if due < self._end else (self._end, Failure.TOTAL_TIMEOUT)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
