"""A steady stream of chat requests through a gateway, and what became of each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import openai


@dataclass
class Tally:
    """Outcomes so far: complete answers, and the words of every failure."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)


async def stream_once(client: openai.AsyncOpenAI, model: str, prompt: str) -> str:
    """One streamed chat answer as text; raises unless it ended with a finish reason."""
    text, finished = [], None
    stream = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], stream=True, max_tokens=16
    )
    async for chunk in stream:
        for choice in chunk.choices:
            text.append(choice.delta.content or "")
            finished = choice.finish_reason or finished
    if finished is None:
        raise AssertionError(f"the stream ended without a finish reason after {text!r}")
    return "".join(text)


@contextlib.asynccontextmanager
async def steady(
    client: openai.AsyncOpenAI, model: str, *, lanes: int = 4, pause: float = 0.05
) -> AsyncIterator[Tally]:
    """Requests one after another in a few lanes for as long as the block runs."""
    tally = Tally()
    stopping = asyncio.Event()

    async def lane(number: int) -> None:
        count = 0
        while not stopping.is_set():
            count += 1
            started = time.monotonic()
            try:
                await stream_once(client, model, f"lane {number} request {count}")
            except (openai.OpenAIError, AssertionError) as error:
                at = time.strftime("%H:%M:%S")
                tally.failures.append(f"{at} +{time.monotonic() - started:.2f}s {error!r}")
            else:
                tally.answered += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)

    async with asyncio.TaskGroup() as group:
        for number in range(lanes):
            group.create_task(lane(number))
        try:
            yield tally
        finally:
            stopping.set()
