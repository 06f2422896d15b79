"""The echo engine: answers with the prompt's own words, one a token, and fails on demand.

Where it must call a function it calls the named or the first one, with nothing.

A product feature for tests and game days: the same config and the same requests give the same
answers and the same failures. Its knobs are `serverconfig.EchoConfig`.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from pippin_contract.serverconfig import EchoConfig

from .adapters import Adaptable
from .base import (
    Activity,
    Call,
    Delta,
    EngineFailed,
    EngineStopped,
    Finish,
    Loaded,
    Message,
    Progress,
    Prompt,
    PromptTooLong,
    Sampling,
    Shown,
)
from .misfortune import Misfortune
from .stops import StopFilter

#: Steps in which a slow load reports its progress.
_LOAD_STEPS = 20
_TOKEN = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True)
class _Work:
    """`stopped` ends a request's pauses; `breaks`: it fails in the middle of its answer."""

    stopped: asyncio.Event
    breaks: bool

    def over(self, done: int, of: int) -> None:
        """Raises EngineFailed once half of it is done."""
        if self.breaks and 2 * done >= of:
            raise EngineFailed("the echo engine broke off as configured")


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
        self._misfortune = Misfortune(knobs, crash)
        self._context_length = context_length
        self._clock = clock
        self._active: set[asyncio.Event] = set()
        self._closed = False
        self._progressed_at = clock()

    @property
    def knobs(self) -> EchoConfig:
        return self._misfortune.knobs

    @property
    def requests(self) -> int:
        """Since the knobs were last set."""
        return self._misfortune.requests

    def turn(self, knobs: EchoConfig) -> None:
        """Other knobs, from now on."""
        self._progressed_at = self._clock()
        self._misfortune.set(knobs)

    async def load(self, path: Path | None, progress: Progress) -> Loaded:
        if self.knobs.load_seconds:
            for step in range(_LOAD_STEPS):
                progress(100 * step // _LOAD_STEPS, "waiting as configured")
                await asyncio.sleep(self.knobs.load_seconds / _LOAD_STEPS)
        return Loaded(context_length=self._context_length, sees=True)

    async def warm_up(self) -> None:
        """Nothing is cold here."""

    def activity(self) -> Activity:
        # What stands still keeps its request, also when nobody waits for it any more.
        active = max(len(self._active), int(self._misfortune.wedged))
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
    async def _at_work(self) -> AsyncIterator[_Work]:
        """Around a request, which fails and is late as configured."""
        if self._closed:
            raise EngineStopped("the server is shutting down")
        if not self._active and not self._misfortune.wedged:
            self._progressed_at = self._clock()
        stopped = asyncio.Event()
        self._active.add(stopped)
        try:
            breaks = await self._misfortune.befall(stopped)
            await pause(self.knobs.first_token_seconds, stopped)
            yield _Work(stopped, breaks)
        finally:
            self._active.discard(stopped)


class EchoEngine(Echo, Adaptable):
    """Says what it is told, by whatever adapter."""

    adapters: Mapping[str, Path] = {}

    honours = frozenset(("tools", "tool_choice", "parallel_tool_calls", "echo", "image_url"))

    async def adapt(self, name: str, path: Path) -> None:
        """There is nothing that it would change."""

    async def forget(self, name: str) -> None:
        """Nor now."""

    async def generate(
        self, prompt: Prompt, sampling: Sampling
    ) -> AsyncGenerator[Sequence[Delta], None]:
        words = list(_answer(prompt))
        prompt_tokens = _count(prompt)
        _fit(prompt_tokens, sampling.max_tokens, self._context_length)
        async with self._at_work() as work:
            if prompt.tools is not None and prompt.tools.must:
                called = Call(prompt.tools.callable[0].name, "{}")
                told = Delta("", 1, prompt_tokens, finish="tool_calls", calls=(called,))
                yield [told]
                return
            before = [Delta(_text(prompt), 0, prompt_tokens)] if sampling.echo else []
            if before and sampling.max_tokens == 0:
                yield [replace(before[0], finish="length")]
                return
            async for delta in self._tokens(words, sampling, prompt_tokens, work):
                self._progressed_at = self._clock()
                yield [*before, delta]
                before = []

    async def _tokens(
        self, words: list[str], sampling: Sampling, prompt_tokens: int, work: _Work
    ) -> AsyncGenerator[Delta, None]:
        room = self._context_length - prompt_tokens
        limit = min(sampling.max_tokens or room, room)
        pace = 1 / self.knobs.tokens_per_second if self.knobs.tokens_per_second else 0.0
        stops = StopFilter(sampling.stop)
        for number, word in enumerate(words, start=1):
            if number > 1:
                await pause(pace, work.stopped)
            work.over(number - 1, len(words))
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
        return _said(prompt.messages[-1])
    return prompt.text if prompt.text is not None else " ".join(map(str, prompt.tokens or ()))


def _said(message: Message) -> str:
    """A picture by what it is."""
    parts = message.parts or (message.content,)
    return "\n".join(part if isinstance(part, str) else _picture(part) for part in parts)


def _picture(shown: Shown) -> str:
    digest = sha256(shown.content).hexdigest()[:8]
    return f"[{shown.kind} {shown.width}x{shown.height} {digest}]"


def _count(prompt: Prompt) -> int:
    if prompt.messages is not None:
        return sum(len(_said(message).split()) for message in prompt.messages)
    return len(prompt.tokens) if prompt.tokens is not None else len((prompt.text or "").split())


def _fit(prompt_tokens: int, wanted: int | None, limit: int) -> None:
    if prompt_tokens + (1 if wanted is None else wanted) > limit:
        raise PromptTooLong(prompt_tokens=prompt_tokens, wanted=wanted, limit=limit)


def _finish(number: int, words: int, limit: int, met_stop: bool) -> Finish | None:
    if met_stop or number == words:
        return "stop"
    return "length" if number >= limit else None


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
