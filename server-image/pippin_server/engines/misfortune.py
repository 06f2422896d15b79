"""What goes wrong in an echo engine, on demand: by a request's number, or by lot.

The number counts from the last time that the knobs were set, and the lots follow from it and the
seed: the same knobs and the same requests have the same fate.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from pippin_contract.serverconfig import EchoConfig

from .base import EngineBusy, EngineFailed, EngineStopped, OutOfMemory

#: sysexits' EX_SOFTWARE: what a crash on demand ends with.
_CRASHED = 70
_NO_MEMORY = "out of memory: ask for less, or try again later"


class Misfortune:
    """`crash` ends the process; a parameter so that tests need not die."""

    def __init__(self, knobs: EchoConfig, crash: Callable[[int], object]) -> None:
        self.knobs = knobs
        self.requests = 0
        self.wedged = False
        self._crash = crash
        self._stuck: set[asyncio.Event] = set()

    def set(self, knobs: EchoConfig) -> None:
        """From the next request on; what stands still fails now."""
        self.knobs, self.requests, self.wedged = knobs, 0, False
        for stopped in self._stuck:
            stopped.set()

    async def befall(self, stopped: asyncio.Event) -> bool:
        """What happens to the next request; True: it breaks off in the middle of its answer."""
        self.requests += 1
        number, knobs = self.requests, self.knobs
        if _reached(knobs.crash_after, number):
            self._crash(_CRASHED)
        if _reached(knobs.out_of_memory_after, number):
            raise OutOfMemory(_NO_MEMORY)
        if _reached(knobs.wedge_after, number):
            await self._stand_still(stopped)
        lot = random.Random(f"{knobs.seed}/{number}").random() * 100
        return _drawn(lot, knobs)

    async def _stand_still(self, stopped: asyncio.Event) -> None:
        self.wedged = True
        self._stuck.add(stopped)
        try:
            await stopped.wait()
        finally:
            self._stuck.discard(stopped)
        if self.wedged:
            raise EngineStopped("the server is shutting down")
        raise EngineFailed("the echo engine stood still as configured")


def _drawn(lot: float, knobs: EchoConfig) -> bool:
    """One of the failures, each with its share of a hundred, or none."""
    if lot < knobs.error_percent:
        raise EngineFailed("the echo engine failed as configured")
    lot -= knobs.error_percent
    if lot < knobs.overloaded_percent:
        raise EngineBusy("the echo engine takes no more, as configured: try again")
    lot -= knobs.overloaded_percent
    if lot < knobs.out_of_memory_percent:
        raise OutOfMemory(_NO_MEMORY)
    return lot - knobs.out_of_memory_percent < knobs.broken_percent


def _reached(after: int, number: int) -> bool:
    return bool(after) and number >= after
