"""Keys that want work: each at most once at a time, woken as often as one likes.

Fifty wakes of a key while it waits make one run; wakes during its run make one more. A run that
fails is tried again with a growing pause. Who may run and what failed is decided elsewhere: `work`
never raises, it answers with an `Outcome`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `again` in so many seconds (None: when woken), `failed` grows the pause."""

    again: float | None = None
    failed: bool = False


DONE = Outcome()
FAILED = Outcome(failed=True)


@dataclass(frozen=True)
class Backoff:
    """Seconds until the next try after so many failures in a row."""

    first: float = 0.2
    factor: float = 2
    most: float = 10

    def after(self, failures: int) -> float:
        return min(self.most, self.first * self.factor ** min(failures - 1, 32))


class WorkQueue(Generic[Key]):
    """Runs `work(key)` for woken keys, at most `concurrency` at once."""

    def __init__(
        self,
        work: Callable[[Key], Awaitable[Outcome]],
        *,
        concurrency: int,
        backoff: Backoff | None = None,
    ) -> None:
        self._work = work
        self._backoff = backoff or Backoff()
        self._slots = asyncio.Semaphore(concurrency)
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._closed = False

    def wake(self, key: Key, after: float = 0) -> None:
        """Run `key` after so many seconds, or sooner when something else wakes it sooner."""
        if self._closed:
            return
        if after > 0:
            self._wake_later(key, after)
            return
        self._stop_timer(key)
        if key in self._tasks:
            self._again.add(key)
            return
        self._tasks[key] = asyncio.create_task(self._run(key), name=f"work on {key}")

    @property
    def depth(self) -> int:
        """Keys that run or wait for a slot."""
        return len(self._tasks)

    async def close(self) -> None:
        """No more runs; those under way are cancelled."""
        self._closed = True
        for key in list(self._timers):
            self._stop_timer(key)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: Key) -> None:
        try:
            async with self._slots:
                # Whatever woke the key until here is seen by this run.
                self._again.discard(key)
                outcome = await self._work(key)
        finally:
            del self._tasks[key]
        pause = self._pause(key, outcome)
        if key in self._again:
            self._again.discard(key)
            # A failing key keeps its pause, however often it is woken: events of its own
            # failed attempts would otherwise make it spin.
            self.wake(key, pause or 0 if outcome.failed else 0)
        elif pause is not None:
            self.wake(key, pause)

    def _pause(self, key: Key, outcome: Outcome) -> float | None:
        if not outcome.failed:
            self._failures.pop(key, None)
            return outcome.again
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return self._backoff.after(failures)

    def _wake_later(self, key: Key, after: float) -> None:
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= loop.time() + after:
            return
        self._stop_timer(key)
        self._timers[key] = loop.call_later(after, self._due, key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.wake(key)

    def _stop_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
