"""Wait for a state with a deadline, and say what was seen last when it does not come."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")

#: Pause between two looks, seconds.
PAUSE = 0.05


class NeverHappened(AssertionError):
    """The state did not come in time; the message holds the last value or error seen."""


@overload
async def eventually(
    probe: Callable[[], Coroutine[Any, Any, T]],
    *,
    within: float = ...,
    until: Callable[[T], Any] = ...,
    retry: tuple[type[BaseException], ...] = ...,
) -> T: ...
@overload
async def eventually(
    probe: Callable[[], T],
    *,
    within: float = ...,
    until: Callable[[T], Any] = ...,
    retry: tuple[type[BaseException], ...] = ...,
) -> T: ...
async def eventually(
    probe: Callable[[], Any],
    *,
    within: float = 20,
    until: Callable[[Any], Any] = bool,
    retry: tuple[type[BaseException], ...] = (AssertionError,),
) -> Any:
    """The probe's first value that satisfies `until`.

    Errors named in `retry` count as "not yet"; all others end the wait at once.
    """
    deadline = time.monotonic() + within
    last: object = None
    while True:
        try:
            value = probe()
            result = await value if inspect.isawaitable(value) else value
            if until(result):
                return result
            last = result
        except retry as error:
            last = error
        if time.monotonic() > deadline:
            raise NeverHappened(f"not within {within} s; last seen: {last!r}")
        await asyncio.sleep(PAUSE)
