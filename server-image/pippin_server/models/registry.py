"""Which models are in memory, who uses them, and who goes when there is no room.

Knows neither engines nor HTTP: a `Shop` weighs, opens and closes. All on one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

import structlog

from ..engines.base import LoadFailed

log = structlog.get_logger("pippin.models")

M = TypeVar("M")
State = Literal["unloaded", "loading", "loaded", "unloading", "failed"]

#: Seconds for which a model that failed is not tried again; twice as long each time.
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0


class Shop(Protocol[M]):
    """Where models come from."""

    async def weigh(self, name: str) -> int:
        """Bytes of memory that it will take. Raises LoadFailed."""
        ...

    async def open(self, name: str) -> M:
        """Raises LoadFailed. When it raises, or is cancelled, it has let go of all memory."""
        ...

    async def close(self, name: str, model: M) -> None:
        """Give its memory back."""
        ...

    def sound(self, model: M) -> bool:
        """False: it will never answer again."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """`memory` in bytes, 0: nobody knows. `timeout`: seconds that a load may take."""

    models: int = 3
    memory: int = 0
    timeout: float = 300.0


class Unavailable(Exception):
    """No model now. `again`: seconds after which there may be one."""

    def __init__(self, words: str, again: float) -> None:
        super().__init__(words)
        self.again = again


class Full(Unavailable):
    """No room, and everything that is loaded is in use."""


class Failed(Unavailable):
    """It could not be loaded; `failure` says why."""

    def __init__(self, failure: LoadFailed, again: float) -> None:
        super().__init__(failure.message, again)
        self.failure = failure


class Closed(Unavailable):
    """The server is about to end."""


class InUse(Exception):
    """A model that answers requests, or is being loaded for them, is not taken away."""


@dataclass(eq=False, slots=True)
class Entry(Generic[M]):
    """One model that could be here. `users`: requests that have it, or wait for it; `held`: bytes
    that are counted for it; `here`: it takes one of the places."""

    name: str
    model: M | None = None
    users: int = 0
    used_at: float = 0.0
    held: int = 0
    here: bool = False
    evictions: int = 0
    failures: int = 0
    failure: LoadFailed | None = None
    retry_at: float = 0.0
    #: Done when the load at hand is over, well or not.
    arriving: asyncio.Future[None] | None = None
    closing: asyncio.Task[None] | None = None
    #: Of the load at hand, and of what it leaves behind.
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def state(self) -> State:
        if self.closing is not None:
            return "unloading"
        if self.model is not None:
            return "loaded"
        if self.arriving is not None:
            return "loading"
        return "unloaded" if self.failure is None else "failed"


class Registry(Generic[M]):
    """`entries` is for everyone to read."""

    def __init__(
        self,
        names: Iterable[str],
        shop: Shop[M],
        bounds: Bounds,
        clock: Callable[[], float],
    ) -> None:
        self.entries: dict[str, Entry[M]] = {name: Entry(name) for name in names}
        self.bounds = bounds
        self._shop = shop
        self._clock = clock
        self._closed = False
        #: One at a time makes room, so that two do not send away more than they need.
        self._making_room = asyncio.Lock()

    @property
    def held(self) -> int:
        """Bytes that are counted for all models."""
        return sum(entry.held for entry in self.entries.values())

    def loaded(self) -> list[Entry[M]]:
        return [entry for entry in self.entries.values() if entry.model is not None]

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[M]:
        """The model, loaded when it is not; nobody takes it away inside. Raises Unavailable, and
        KeyError for a name that is not known."""
        entry = self.entries[name]
        entry.users += 1
        try:
            yield await self._ready(entry, insist=False)
        finally:
            self._left(entry)

    async def load(self, name: str) -> M:
        """As `use`, also of a model that failed a moment ago."""
        entry = self.entries[name]
        entry.users += 1
        try:
            return await self._ready(entry, insist=True)
        finally:
            self._left(entry)

    async def unload(self, name: str) -> None:
        """Back when its memory is. Raises InUse."""
        entry = self.entries[name]
        if entry.users or entry.arriving is not None:
            raise InUse
        entry.failure = None
        await self._close(entry)

    def refuse(self) -> None:
        """From now on nothing is loaded; who waits for it hears so."""
        self._closed = True
        for entry in self.entries.values():
            self._settle(entry, _closed())

    async def close(self) -> None:
        """Everything, also what is in use."""
        self.refuse()
        tasks = [entry.task for entry in self.entries.values() if entry.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(self._close(entry) for entry in self.entries.values()))

    def _left(self, entry: Entry[M]) -> None:
        entry.users -= 1
        entry.used_at = self._clock()

    async def _ready(self, entry: Entry[M], *, insist: bool) -> M:
        if entry.model is not None and entry.users == 1 and not self._shop.sound(entry.model):
            log.warning("model.broken", model=entry.name)
            await self._close(entry)
        while True:
            if entry.closing is not None:
                await asyncio.shield(entry.closing)
            elif entry.model is None:
                await self._arrival(entry, insist=insist)
            else:
                return entry.model

    async def _arrival(self, entry: Entry[M], *, insist: bool) -> None:
        """The load at hand, or a new one. Raises Unavailable."""
        if entry.arriving is None:
            self._begin(entry, insist=insist)
        assert entry.arriving is not None
        await asyncio.shield(entry.arriving)

    def _begin(self, entry: Entry[M], *, insist: bool) -> None:
        if self._closed:
            raise _closed()
        lingers = entry.task is not None and not entry.task.done()
        pause = entry.retry_at - self._clock()
        if entry.failure is not None and (lingers or (pause > 0 and not insist)):
            raise Failed(entry.failure, max(1.0, pause))
        entry.failure = None
        entry.arriving = asyncio.get_running_loop().create_future()
        entry.arriving.add_done_callback(_looked_at)
        entry.task = asyncio.create_task(self._load(entry))

    async def _load(self, entry: Entry[M]) -> None:
        """Within the time; what comes too late is closed again before there is another try."""
        work = asyncio.create_task(self._work(entry))
        try:
            await asyncio.wait({work}, timeout=self.bounds.timeout)
            if not work.done():
                limit = f"{self.bounds.timeout:g} seconds"
                late = LoadFailed("LoadTimeout", f"it was not loaded within {limit}")
                self._fail(entry, late)
        finally:
            if work.cancel():
                await asyncio.wait({work})
            self._arrived(entry, work)
            if entry.failure is not None and entry.model is not None:
                await self._close(entry)

    async def _work(self, entry: Entry[M]) -> M:
        claim = await self._shop.weigh(entry.name)
        if self.bounds.memory and claim > self.bounds.memory:
            raise LoadFailed("InsufficientMemory", "it takes more memory than there is for models")
        async with self._making_room:
            await self._make_room(claim)
            entry.held, entry.here = claim, True
        return await self._shop.open(entry.name)

    def _arrived(self, entry: Entry[M], work: asyncio.Task[M]) -> None:
        error = _closed() if work.cancelled() else work.exception()
        if error is None:
            entry.model = work.result()
            entry.used_at = self._clock()
            if entry.failure is None:
                entry.failures = 0
                self._settle(entry, None)
            return
        entry.held, entry.here = 0, False
        if isinstance(error, Unavailable):
            self._settle(entry, error)
        else:
            self._fail(entry, _as_failure(entry.name, error))

    def _fail(self, entry: Entry[M], failure: LoadFailed) -> None:
        if entry.failure is not None:
            return  # it was late, and has been told so
        log.error("model.failed", model=entry.name, reason=failure.reason)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**entry.failures)
        entry.failure, entry.retry_at = failure, self._clock() + pause
        entry.failures += 1
        self._settle(entry, Failed(failure, pause))

    def _settle(self, entry: Entry[M], error: Exception | None) -> None:
        """Who waits for the load hears of it."""
        arriving, entry.arriving = entry.arriving, None
        if arriving is None or arriving.done():
            return
        if error is None:
            arriving.set_result(None)
        else:
            arriving.set_exception(error)

    async def _make_room(self, claim: int) -> None:
        """For one more. Raises Full."""
        while not self._fits(claim):
            leaving = [e.closing for e in self.entries.values() if e.closing is not None]
            if leaving:
                await asyncio.wait(leaving, return_when=asyncio.FIRST_COMPLETED)
                continue
            idle = [entry for entry in self.loaded() if not entry.users]
            if not idle:
                raise Full("every model that is loaded is in use: try again later", 2.0)
            oldest = min(idle, key=lambda entry: entry.used_at)
            oldest.evictions += 1
            log.info("model.evicted", model=oldest.name, bytes=oldest.held)
            await self._close(oldest)

    def _fits(self, claim: int) -> bool:
        places = sum(entry.here for entry in self.entries.values())
        memory = self.bounds.memory
        return places < self.bounds.models and (not memory or self.held + claim <= memory)

    def _close(self, entry: Entry[M]) -> Awaitable[None]:
        """Its end, begun here or before; goes on when nobody waits for it any more."""
        if entry.closing is None:
            entry.closing = asyncio.create_task(self._end(entry))
        return asyncio.shield(entry.closing)

    async def _end(self, entry: Entry[M]) -> None:
        try:
            if (model := entry.model) is not None:
                entry.model = None
                await self._shop.close(entry.name, model)
                entry.held, entry.here = 0, False
                log.info("model.unloaded", model=entry.name)
        finally:
            entry.closing = None


def _closed() -> Closed:
    return Closed("this server is about to end: try again", 2.0)


def _as_failure(name: str, error: BaseException) -> LoadFailed:
    if isinstance(error, LoadFailed):
        return error
    # A bug, or a library's: its text may hold anything, so it is only in the log.
    log.error("model.crashed", model=name, exc_info=error)
    return LoadFailed("EngineFailed", f"{type(error).__name__} while loading", permanent=False)


def _looked_at(future: asyncio.Future[None]) -> None:
    """Whoever waited may have left."""
    if not future.cancelled():
        future.exception()
