"""The thread that owns an engine's model, and the bounded way in and out of it.

The owner looks at its inbox before every step and blocks only when there is nothing to do. What a
step made for all requests goes to the event loop in one call. A request's listener takes all that
has come for it at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

import structlog

from .base import Activity, Delta, EngineError, EngineFailed, EngineStopped, OutOfMemory

log = structlog.get_logger("pippin.engine")


class Part(Protocol):
    """Of an answer; the last one has a `finish`."""

    @property
    def finish(self) -> str | None: ...


J = TypeVar("J")
A = TypeVar("A")
P = TypeVar("P", bound=Part)
T = TypeVar("T")
JContra = TypeVar("JContra", contravariant=True)
PCo = TypeVar("PCo", bound=Part, covariant=True)
#: What arrives for a request for text: its deltas, or the error that ended it.
Event = Delta | Exception
#: Steps that may fail one after another before the owner gives up and the process is unhealthy.
MAX_FAILURES = 3
#: The same of steps without memory: after each there is less to do.
MAX_OUT_OF_MEMORY = 8


class Batcher(Protocol[JContra, PCo]):
    """The model's side; every method runs on the owning thread."""

    def add(self, ticket: int, job: JContra) -> None:
        """Take a request in. An exception is that request's alone."""
        ...

    def remove(self, tickets: Iterable[int]) -> None: ...

    def step(self) -> Sequence[tuple[int, PCo | Exception]]:
        """Go one step on with everything taken in. An exception ends all requests."""
        ...

    def reset(self) -> Sequence[int]:
        """Forget the requests of a failed step, which are told; those that had not begun go on."""
        ...

    @property
    def size(self) -> int:
        """Requests taken in and not yet ended."""
        ...


class _Listener(Generic[P]):
    """The event loop's end of one request."""

    __slots__ = ("arrived", "events")

    def __init__(self) -> None:
        self.events: list[P | Exception] = []
        self.arrived: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self.arrived is not None and not self.arrived.done():
            self.arrived.set_result(None)


class Worker(Generic[J, P]):
    """Runs a Batcher on a thread of its own. Made and used on the event loop.

    `make` builds the batcher on the thread (libraries may tie state to it).
    """

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._wake = threading.Condition()
        self._added: deque[tuple[int, J]] = deque()
        self._cancelled: list[int] = []
        self._calls: list[tuple[Callable[[], object], Future[Any]]] = []
        self._closing = self._over = False
        self._listeners: dict[int, _Listener[P]] = {}
        self._tickets = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._make: Callable[[], Batcher[J, P]] | None = None
        self._started: Future[None] = Future()
        self.progressed_at = clock()
        self.batch_size = 0

    async def start(self, make: Callable[[], Batcher[J, P]]) -> None:
        """Raises what `make` raises."""
        self._make = make
        self._thread.start()
        # Shielded: the thread tells of its start also when nobody waits for it any more.
        await asyncio.shield(asyncio.wrap_future(self._started))

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def active(self) -> int:
        return len(self._listeners)

    def activity(self) -> Activity:
        """As every engine tells it."""
        return Activity(
            active=self.active,
            batch=self.batch_size,
            progressed_at=self.progressed_at,
            alive=self.alive,
        )

    async def run(self, job: J) -> AsyncGenerator[list[P], None]:
        """All that comes for the job; leaving early removes it before the next step."""
        if self._closing or not self.alive:
            raise EngineStopped("the engine has stopped")
        if not self._listeners:
            self.progressed_at = self._clock()
        listener = _Listener[P]()
        self._tickets += 1
        ticket = self._tickets
        self._listeners[ticket] = listener
        with self._wake:
            self._added.append((ticket, job))
            self._wake.notify()
        try:
            while True:
                if not listener.events:
                    listener.arrived = self._loop.create_future()
                    await listener.arrived
                deltas, finished = _split(listener.events)
                if deltas:
                    yield deltas
                if finished:
                    return
        finally:
            if self._listeners.pop(ticket, None) is not None:
                with self._wake:
                    self._cancelled.append(ticket)
                    self._wake.notify()

    async def between_steps(self, call: Callable[[], T]) -> T:
        """On the thread, after everything that was asked before. Raises what `call` raises."""
        done: Future[T] = Future()
        if self._closing or self._over or not self.alive:
            raise EngineStopped("the engine has stopped")
        with self._wake:
            self._calls.append((call, done))
            self._wake.notify()
        return await asyncio.wrap_future(done)

    async def close(self) -> None:
        """End the thread after its step; listeners get EngineStopped."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    # From here on: the owning thread.

    def _run(self) -> None:
        make, self._make = self._make, None  # it may hold what it makes
        try:
            assert make is not None
            batcher = make()
        except BaseException as error:
            self._started.set_exception(error)
            return
        del make
        self._started.set_result(None)
        stopped: Exception = EngineStopped("the server is shutting down")
        try:
            self._serve(batcher)
        except Exception as error:
            log.exception("engine.died")
            stopped = EngineFailed("the engine has stopped working")
            stopped.__cause__ = error
        finally:
            self._post(self._end_all, stopped)

    def _serve(self, batcher: Batcher[J, P]) -> None:
        failures = 0
        while self._take_in(batcher):
            self.batch_size = batcher.size
            if not batcher.size:
                continue
            try:
                events = batcher.step()
                failures = 0
            except Exception as error:
                failures += 1
                if failures >= _bearable(error):
                    raise
                log.exception("engine.step_failed", requests=batcher.size)
                self._end(batcher.reset(), error)
                continue
            self.progressed_at = self._clock()
            if events:
                self._post(self._deliver, events)

    def _end(self, tickets: Iterable[int], error: Exception) -> None:
        failure = as_failure(error)
        self._post(self._deliver, [(ticket, failure) for ticket in tickets])

    def _take_in(self, batcher: Batcher[J, P]) -> bool:
        """Look at the inbox; wait there when there is nothing to do. False: the end."""
        with self._wake:
            while not (
                self._closing or self._added or self._cancelled or self._calls or batcher.size
            ):
                self.batch_size = 0
                self._wake.wait()
            if self._closing:
                return False
            added, self._added = self._added, deque()
            cancelled, self._cancelled = self._cancelled, []
            calls, self._calls = self._calls, []
        gone = set(cancelled)
        for ticket, job in added:
            if ticket not in gone:
                self._add(batcher, ticket, job)
        if cancelled:
            batcher.remove(cancelled)
        for call, done in calls:
            try:
                done.set_result(call())
            except Exception as error:
                done.set_exception(error)
        return True

    def _add(self, batcher: Batcher[J, P], ticket: int, job: J) -> None:
        try:
            batcher.add(ticket, job)
        except Exception as error:
            log.exception("engine.add_failed")
            self._post(self._deliver, [(ticket, as_failure(error))])

    def _post(self, call: Callable[[A], None], argument: A) -> None:
        try:
            self._loop.call_soon_threadsafe(call, argument)
        except RuntimeError:
            log.info("engine.loop_closed")

    # On the event loop again, called by the thread.

    def _deliver(self, events: Sequence[tuple[int, P | Exception]]) -> None:
        for ticket, event in events:
            listener = self._listeners.get(ticket)
            if listener is None:
                continue
            listener.events.append(event)
            if isinstance(event, Exception) or event.finish is not None:
                del self._listeners[ticket]
            listener.wake()

    def _end_all(self, error: Exception) -> None:
        self._over = True
        with self._wake:
            calls, self._calls = self._calls, []
        for _, done in calls:
            done.set_exception(error)
        self._deliver([(ticket, error) for ticket in list(self._listeners)])


def _bearable(error: Exception) -> int:
    """How often in a row."""
    return MAX_OUT_OF_MEMORY if isinstance(error, OutOfMemory) else MAX_FAILURES


def as_failure(error: Exception) -> EngineError:
    """Foreign errors end here: their text may hold anything, so it is only in the log."""
    if isinstance(error, EngineError):
        return error
    failure = EngineFailed("the engine failed on this request")
    failure.__cause__ = error
    return failure


def _split(events: list[P | Exception]) -> tuple[list[P], bool]:
    """Take what is there; an error is raised once the deltas before it were taken."""
    if isinstance(events[0], Exception):
        raise events[0]
    deltas: list[P] = []
    for event in events:
        if isinstance(event, Exception):
            break
        deltas.append(event)
    del events[: len(deltas)]
    return deltas, deltas[-1].finish is not None
