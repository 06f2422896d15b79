"""The echo engine: answers with the prompt's own words, one a token, and fails on demand.

Where it must call a function it calls the named or the first one, with nothing.

A product feature for tests and game days: the same config and the same requests give the same
answers and the same failures. Its knobs are `serverconfig.EchoConfig`.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from pippin_contract.serverconfig import EchoConfig

from .base import (
    Activity,
    Call,
    Delta,
    EngineFailed,
    EngineStopped,
    Finish,
    Loaded,
    OutOfMemory,
    Progress,
    Prompt,
    PromptTooLong,
    Sampling,
)
from .stops import StopFilter

#: Steps in which a slow load reports its progress.
_LOAD_STEPS = 20
#: sysexits' EX_SOFTWARE: what a crash on demand ends with.
_CRASHED = 70
_TOKEN = re.compile(r"\s*\S+")


class Echo:
    """What it is, whatever it makes. `crash` ends the process; a parameter so that tests need not
    die."""

    name = "echo"

    def __init__(
        self,
        knobs: EchoConfig,
        *,
        context_length: int,
        clock: Callable[[], float],
        crash: Callable[[int], object] = os._exit,
    ) -> None:
        self._knobs = knobs
        self._context_length = context_length
        self._clock = clock
        self._crash = crash
        self._requests = 0
        self._active: set[asyncio.Event] = set()
        self._closed = False
        self._wedged = False
        self._progressed_at = clock()

    async def load(self, path: Path | None, progress: Progress) -> Loaded:
        if self._knobs.load_seconds:
            for step in range(_LOAD_STEPS):
                progress(100 * step // _LOAD_STEPS, "waiting as configured")
                await asyncio.sleep(self._knobs.load_seconds / _LOAD_STEPS)
        return Loaded(context_length=self._context_length)

    async def warm_up(self) -> None:
        """Nothing is cold here."""

    def activity(self) -> Activity:
        # What stands still keeps its request, also when nobody waits for it any more.
        active = max(len(self._active), int(self._wedged))
        return Activity(
            active=active,
            batch=active,
            progressed_at=self._progressed_at,
            alive=not self._closed,
        )

    async def close(self) -> None:
        self._closed = True
        for stopped in self._active:
            stopped.set()

    @asynccontextmanager
    async def _at_work(self) -> AsyncIterator[asyncio.Event]:
        """Around a request, which fails and is late as configured; the event ends its pauses."""
        if not self._active and not self._wedged:
            self._progressed_at = self._clock()
        stopped = asyncio.Event()
        self._active.add(stopped)
        try:
            await self._misbehave(stopped)
            await pause(self._knobs.first_token_seconds, stopped)
            yield stopped
        finally:
            self._active.discard(stopped)

    async def _misbehave(self, stopped: asyncio.Event) -> None:
        """What the knobs ask of this request, by its number."""
        if self._closed:
            raise EngineStopped("the server is shutting down")
        self._requests += 1
        number, knobs = self._requests, self._knobs
        if _reached(knobs.crash_after, number):
            self._crash(_CRASHED)
        if _reached(knobs.out_of_memory_after, number):
            raise OutOfMemory("out of memory: ask for less, or try again later")
        if _reached(knobs.wedge_after, number):
            self._wedged = True
            await pause(None, stopped)
        if random.Random(f"{knobs.seed}/{number}").random() * 100 < knobs.error_percent:
            raise EngineFailed("the echo engine failed as configured")


class EchoEngine(Echo):
    """Says what it is told."""

    honours = frozenset(("tools", "tool_choice", "parallel_tool_calls", "echo"))

    async def generate(
        self, prompt: Prompt, sampling: Sampling
    ) -> AsyncGenerator[Sequence[Delta], None]:
        words = list(_answer(prompt))
        prompt_tokens = _count(prompt)
        _fit(prompt_tokens, sampling.max_tokens, self._context_length)
        async with self._at_work() as stopped:
            if prompt.tools is not None and prompt.tools.must:
                called = Call(prompt.tools.callable[0].name, "{}")
                told = Delta("", 1, prompt_tokens, finish="tool_calls", calls=(called,))
                yield [told]
                return
            before = [Delta(_text(prompt), 0, prompt_tokens)] if sampling.echo else []
            if before and sampling.max_tokens == 0:
                yield [replace(before[0], finish="length")]
                return
            async for delta in self._tokens(words, sampling, prompt_tokens, stopped):
                self._progressed_at = self._clock()
                yield [*before, delta]
                before = []

    async def _tokens(
        self, words: list[str], sampling: Sampling, prompt_tokens: int, stopped: asyncio.Event
    ) -> AsyncGenerator[Delta, None]:
        room = self._context_length - prompt_tokens
        limit = min(sampling.max_tokens or room, room)
        pace = 1 / self._knobs.tokens_per_second if self._knobs.tokens_per_second else 0.0
        stops = StopFilter(sampling.stop)
        for number, word in enumerate(words, start=1):
            if number > 1:
                await pause(pace, stopped)
            text, met = stops.feed(word)
            finish = _finish(number, len(words), limit, met)
            if finish and not met:
                text += stops.flush()
            yield Delta(text=text, prompt_tokens=prompt_tokens, finish=finish)
            if finish:
                return


def _answer(prompt: Prompt) -> Iterator[str]:
    """The words of what was said last, each with the space before it; never nothing."""
    return iter(_TOKEN.findall(_text(prompt)) or ["(nothing)"])


def _text(prompt: Prompt) -> str:
    if prompt.messages is not None:
        return prompt.messages[-1].content
    return prompt.text if prompt.text is not None else " ".join(map(str, prompt.tokens or ()))


def _count(prompt: Prompt) -> int:
    if prompt.messages is not None:
        return sum(len(message.content.split()) for message in prompt.messages)
    return len(prompt.tokens) if prompt.tokens is not None else len((prompt.text or "").split())


def _fit(prompt_tokens: int, wanted: int | None, limit: int) -> None:
    if prompt_tokens + (1 if wanted is None else wanted) > limit:
        raise PromptTooLong(prompt_tokens=prompt_tokens, wanted=wanted, limit=limit)


def _finish(number: int, words: int, limit: int, met_stop: bool) -> Finish | None:
    if met_stop or number == words:
        return "stop"
    return "length" if number >= limit else None


def _reached(after: int, number: int) -> bool:
    return bool(after) and number >= after


async def pause(seconds: float | None, stopped: asyncio.Event) -> None:
    """Wait (None: for ever), unless the engine is closed meanwhile."""
    if seconds == 0:
        await asyncio.sleep(0)
    else:
        try:
            async with asyncio.timeout(seconds):
                await stopped.wait()
        except TimeoutError:
            return
    if stopped.is_set():
        raise EngineStopped("the server is shutting down")
