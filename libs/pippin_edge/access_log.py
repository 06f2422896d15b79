"""One line of JSON a request, and a writer that never makes a request wait for the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from .asgi import App, Receive, Scope, Send
from .clock import SYSTEM, Clock

#: What is logged of a path: a client's text, so it is bounded. Never its query.
MAX_PATH = 256
#: The status in the log (never sent) when the client left before the answer began.
CLIENT_CLOSED = 499

QUIET_PATHS = frozenset({"/health", "/ready", "/livez", "/metrics"})


class AccessLog:
    """Below RequestId: one line when a request is over. Bind fields in `scope["state"]["log"]`.

    Fields: ts, event, request_id, method, path, status, duration_ms, bytes, and the bound ones.
    `observe(scope, status, seconds)` is told the same, for metrics. Quiet paths do neither.
    """

    def __init__(
        self,
        app: App,
        write: Callable[[bytes], object],
        *,
        quiet_paths: frozenset[str] = QUIET_PATHS,
        observe: Callable[[Scope, int, float], object] = lambda scope, status, seconds: None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.app = app
        self.write = write
        self.observe = observe
        self.quiet_paths = quiet_paths
        self.clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.quiet_paths:
            return await self.app(scope, receive, send)
        began = self.clock.monotonic()
        try:
            await self.app(scope, receive, send)
        finally:
            bound = scope["state"]
            answer = bound["answer"]
            status = answer.status or CLIENT_CLOSED
            seconds = self.clock.monotonic() - began
            self.observe(scope, status, seconds)
            line = {
                "ts": datetime.fromtimestamp(self.clock.wall(), UTC),
                "level": "info",
                "event": "request",
                "request_id": bound["request_id"],
                "method": scope["method"],
                "path": scope["path"][:MAX_PATH],
                "status": status,
                "duration_ms": round(seconds * 1000, 2),
                "bytes": answer.sent,
                **bound["log"],
            }
            self.write(orjson.dumps(line, option=_OPTIONS))


_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


class LineWriter:
    """Collects lines and hands them to `sink` in a thread, by a timer; drops them when it is slow.

    `sink` may block (a full pipe): the event loop never does. Bounded by `max_bytes`; what had to
    be dropped is counted in `dropped`. Call `close()` at the end.

    Each write has the thread and the event loop take turns at the interpreter, which costs both
    more than the write: so lines wait for `every` seconds between two, as long as there is room.
    """

    def __init__(
        self, sink: Callable[[bytes], object], *, every: float = 0.25, max_bytes: int = 1 << 20
    ) -> None:
        self.sink = sink
        self.every = every
        self.max_bytes = max_bytes
        self.dropped = 0
        # One buffer: a line as orjson makes it holds twenty times the memory of its text.
        self._lines = bytearray()
        self._writing = 0
        self._task: asyncio.Task[None] | None = None

    def __call__(self, line: bytes) -> None:
        if len(self._lines) + self._writing + len(line) > self.max_bytes:
            self.dropped += 1
            return
        self._lines += line
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._flush_later())

    async def _flush_later(self) -> None:
        try:
            while self._lines:
                if len(self._lines) < self.max_bytes // 2:
                    await asyncio.sleep(self.every)
                await self._flush()
        finally:
            self._task = None

    async def _flush(self) -> None:
        chunk, self._lines = bytes(self._lines), bytearray()
        self._writing = len(chunk)
        await asyncio.to_thread(self.sink, chunk)
        self._writing = 0

    async def close(self) -> None:
        """Write what is left."""
        if self._task is not None:
            await self._task
