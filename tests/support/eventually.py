"""Wait for a state with a deadline, and say what was seen last when it does not come."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

#: Pause between two looks, seconds.
PAUSE = 0.05


class NeverHappened(AssertionError):
    """The state did not come in time; the message holds the last value or error seen."""


async def eventually(
    probe: Callable[[], T | Awaitable[T]],
    *,
    within: float = 20,
    until: Callable[[T], Any] = bool,
    retry: tuple[type[BaseException], ...] = (AssertionError,),
) -> T:
    """The probe's first value that satisfies `until`.

    Errors named in `retry` count as "not yet"; all others end the wait at once.
    """
    deadline = time.monotonic() + within
    last: object = None
    while True:
        try:
            value = probe()
            result: T = await value if inspect.isawaitable(value) else value
            if until(result):
                return result
            last = result
        except retry as error:
            last = error
        if time.monotonic() > deadline:
            raise NeverHappened(f"not within {within} s; last seen: {last!r}")
        await asyncio.sleep(PAUSE)
