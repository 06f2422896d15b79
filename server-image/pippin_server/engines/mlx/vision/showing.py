"""From the pictures of a prompt to a model that has seen them. Lives on the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING

from ...base import Delta, EngineStopped, Prompt, Shown
from ...worker import Worker
from .decoding import decoded
from .gallery import Gallery, Look

if TYPE_CHECKING:
    from ..job import Job
    from .eyes import Eyes

#: Pictures that are in memory as tiles at one time: one is looked at, one comes next.
_AT_ONCE = 2


class Showing:
    """Pictures of all requests take turns, one by one, so that few are pixels at one time."""

    def __init__(self, eyes: Eyes, gallery: Gallery, worker: Worker[Job | Look, Delta]) -> None:
        self._eyes = eyes
        self._gallery = gallery
        self._worker = worker
        self._turns = asyncio.Semaphore(_AT_ONCE)
        # One at a time, also when who asked has left: whole pictures are large.
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix="pippin-pictures")

    def looks(self, prompt: Prompt) -> tuple[Look, ...]:
        """At each of its pictures; nothing is decoded."""
        return tuple(self._gallery.look(one, self._eyes.plan(one)) for one in prompt.pictures)

    async def seen(self, prompt: Prompt, looks: tuple[Look, ...]) -> None:
        """Raises EngineError."""
        for shown, look in zip(prompt.pictures, looks, strict=True):
            if look.vectors is None:
                async with self._turns:
                    await self._see(shown, look)

    async def _see(self, shown: Shown, look: Look) -> None:
        if look.vectors is None and look.tiles is None:
            loop = asyncio.get_running_loop()
            look.tiles = await loop.run_in_executor(self._decoding, self._cut, shown, look)
        async with aclosing(self._worker.run(look)) as answer:
            async for _ in answer:
                pass
        if look.vectors is None:
            raise EngineStopped("the picture was not looked at")

    def close(self) -> None:
        self._decoding.shutdown(wait=False, cancel_futures=True)

    def _cut(self, shown: Shown, look: Look) -> list[object]:
        return list(self._eyes.tiles(decoded(shown), look.plan))
