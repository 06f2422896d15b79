"""The echo engine's vectors: of a text's hash, so the same text always has the same one."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import shake_128
from zlib import crc32

from pippin_contract.serverconfig import Batching, EchoConfig

from .base import Activity, Embedded, Embedder, Input, Loaded, Progress, Vector
from .batching import Batches, Tokens, fitting, normal
from .echo import Echo, pause


class EchoEmbedder(Echo, Embedder):
    """Fails and is late like the echo of a chat, and fills batches like an engine with a model."""

    def __init__(
        self,
        knobs: EchoConfig,
        batching: Batching,
        *,
        context_length: int,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(knobs, context_length=context_length, clock=clock)
        self.dimensions = knobs.dimensions
        self._batches = Batches(batching, clock=clock, tell=lambda texts: self.batched(texts))

    async def load(self, path: object, progress: Progress) -> Loaded:
        self._batches.start(self._vectors)
        return await super().load(None, progress)

    async def embed(self, inputs: Sequence[Input]) -> Embedded:
        async with self._at_work() as work:
            texts = fitting([_tokens(one) for one in inputs], self._context_length)
            total = sum(map(len, texts))
            speed = self.knobs.tokens_per_second
            await pause(total / speed if speed else 0, work.stopped)
            work.over(1, 1)
            vectors = await self._batches.run(_made(texts))
            self._progressed_at = self._clock()
            return Embedded(vectors, total)

    def activity(self) -> Activity:
        return replace(super().activity(), batch=self._batches.activity().batch)

    async def close(self) -> None:
        await super().close()
        await self._batches.close()

    def _vectors(self, texts: Sequence[Tokens]) -> list[Vector]:
        return [_vector(tokens, self.dimensions) for tokens in texts]


async def _made(texts: Sequence[Tokens]) -> Sequence[Tokens]:
    await asyncio.sleep(0)  # those who came at the same time are seen to come
    return texts


def _tokens(text: Input) -> Tokens:
    """A number for each word; a text of spaces is a word too."""
    if not isinstance(text, str):
        return text
    return [crc32(word.encode()) for word in text.split() or [text]]


def _vector(tokens: Tokens, size: int) -> Vector:
    numbers = array("h")
    numbers.frombytes(shake_128(repr(list(tokens)).encode()).digest(size * numbers.itemsize))
    return normal(numbers)
