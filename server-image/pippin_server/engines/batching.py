"""Texts of many requests, embedded together on the one thread that owns the model.

A batch holds texts of like lengths, so that little is computed for padding, and requests take turns
in it: one with two thousand texts does not hold up one with a single text. An idle engine begins at
once; it waits, for `window` at most, only while texts of other requests are known to be coming.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from array import array
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TypeVar

import structlog

from pippin_contract.serverconfig import Batching

from .base import Activity, EngineFailed, EngineStopped, InputTooLong, PromptRefused, Vector
from .worker import MAX_FAILURES, as_failure

log = structlog.get_logger("pippin.engine")

#: Tokens of one request, all its texts together, as OpenAI bounds them.
MAX_TOKENS = 300_000
#: Tokens of one batch, padding included: attention's memory grows with them.
_BATCH_TOKENS = 8_192
#: Texts shorter than this are of one length.
_SHORTEST = 16

Tokens = Sequence[int]
Compute = Callable[[Sequence[Tokens]], Sequence[Vector]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Text:
    tokens: Tokens
    vector: asyncio.Future[Vector]


class Batches:
    """Made and used on the event loop. `compute` runs on the thread, one batch at a time."""

    def __init__(
        self, batching: Batching, *, clock: Callable[[], float], tell: Callable[[int], object]
    ) -> None:
        """`tell` hears how many texts each batch has."""
        self._size = batching.max_batch_size
        self._window = batching.window_seconds
        self._tell = tell
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pippin-engine")
        self._compute: Compute | None = None
        self._pump: asyncio.Task[None] | None = None
        #: Heaps of (turn, number, text) by padded length.
        self._queues: dict[int, list[tuple[int, int, _Text]]] = {}
        self._turn = 0
        self._numbers = itertools.count()
        self._coming = 0
        self._changed = asyncio.Event()
        self._unanswered: set[asyncio.Future[Vector]] = set()
        self._ended: Exception | None = None
        self._active = 0
        self._in_step = 0
        self._progressed_at = clock()

    async def on_thread(self, call: Callable[[], T]) -> T:
        """Libraries may tie state to the thread, so the model is made there too."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def start(self, compute: Compute) -> None:
        self._compute = compute
        self._pump = asyncio.create_task(self._serve())

    async def run(self, tokens: Awaitable[Sequence[Tokens]]) -> list[Vector]:
        """The vectors of texts whose tokens are being made. Raises EngineError."""
        if not self._active:
            self._progressed_at = self._clock()
        self._active += 1
        try:
            vectors = self._queue(await self._arrival(tokens))
            try:
                return await asyncio.gather(*vectors)
            finally:
                for vector in vectors:
                    vector.cancel()
        finally:
            self._active -= 1

    def activity(self) -> Activity:
        return Activity(
            active=self._active,
            batch=self._in_step,
            progressed_at=self._progressed_at,
            alive=self._ended is None,
        )

    async def close(self) -> None:
        """End after the batch at hand; requests get EngineStopped."""
        self._end(EngineStopped("the server is shutting down"))
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        self._compute = None  # it holds the model

    async def _arrival(self, tokens: Awaitable[Sequence[Tokens]]) -> Sequence[Tokens]:
        self._coming += 1
        try:
            return await tokens
        finally:
            self._coming -= 1
            self._changed.set()

    def _queue(self, texts: Sequence[Tokens]) -> list[asyncio.Future[Vector]]:
        if self._ended is not None:
            raise self._ended
        loop = asyncio.get_running_loop()
        vectors: list[asyncio.Future[Vector]] = [loop.create_future() for _ in texts]
        for turn, (tokens, vector) in enumerate(zip(texts, vectors, strict=True), self._turn):
            self._unanswered.add(vector)
            vector.add_done_callback(self._unanswered.discard)
            queue = self._queues.setdefault(_padded(len(tokens)), [])
            heappush(queue, (turn, next(self._numbers), _Text(tokens, vector)))
        return vectors

    async def _serve(self) -> None:
        failures = 0
        while failures < MAX_FAILURES:
            await self._filled()
            if batch := self._next():
                failures = 0 if await self._embed(batch) else failures + 1
        log.error("engine.died", failures=failures)
        self._end(EngineFailed("the engine has stopped working"))

    async def _filled(self) -> None:
        """Back when there is something to do, and nothing to wait for."""
        while not self._queues:
            self._changed.clear()
            await self._changed.wait()
        try:
            async with asyncio.timeout(self._window):
                while self._coming and sum(map(len, self._queues.values())) < self._size:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    def _next(self) -> list[_Text]:
        """The text whose turn it is, and others of its length. None that nobody waits for."""
        length = min(self._queues, key=lambda length: self._queues[length][0])
        queue = self._queues[length]
        self._turn = queue[0][0]
        most = max(1, min(self._size, _BATCH_TOKENS // length))
        batch: list[_Text] = []
        while queue and len(batch) < most:
            _, _, text = heappop(queue)
            if not text.vector.done():
                batch.append(text)
        if not queue:
            del self._queues[length]
        return batch

    async def _embed(self, batch: Sequence[_Text]) -> bool:
        """False when it failed, which is told to those who wait."""
        assert self._compute is not None
        compute, texts = self._compute, [text.tokens for text in batch]
        self._in_step = len(batch)
        self._tell(len(batch))
        try:
            vectors = await self.on_thread(lambda: compute(texts))
        except Exception as error:
            log.exception("engine.step_failed", texts=len(batch))
            _fail((text.vector for text in batch), as_failure(error))
            return False
        finally:
            self._in_step = 0
        self._progressed_at = self._clock()
        for text, vector in zip(batch, vectors, strict=True):
            if not text.vector.done():
                text.vector.set_result(vector)
        return True

    def _end(self, error: Exception) -> None:
        self._ended = self._ended or error
        self._queues.clear()
        _fail(list(self._unanswered), error)


def _fail(vectors: Iterable[asyncio.Future[Vector]], error: Exception) -> None:
    for vector in vectors:
        if not vector.done():
            vector.set_exception(error)


def _padded(length: int) -> int:
    """The next power of two: less than half of a batch is padding."""
    return max(_SHORTEST, 1 << (length - 1).bit_length())


def fitting(texts: Sequence[Tokens], limit: int) -> Sequence[Tokens]:
    """The same, when each has a token and fits into the context. Raises EngineError."""
    for index, tokens in enumerate(texts):
        if not tokens:
            raise PromptRefused("'input': one of the texts has no token", "input")
        if len(tokens) > limit:
            raise InputTooLong(index=index, tokens=len(tokens), limit=limit)
    total = sum(map(len, texts))
    if total > MAX_TOKENS:
        raise PromptRefused(
            f"'input': {total} tokens in all, and one request may have {MAX_TOKENS}: "
            "send several requests",
            "input",
        )
    return texts


def normal(numbers: Sequence[float]) -> Vector:
    """Of length 1; nothing stays nothing."""
    length = math.hypot(*numbers) or 1.0
    return array("f", [number / length for number in numbers])
