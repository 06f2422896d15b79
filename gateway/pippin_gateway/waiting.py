"""Requests whose model has nobody to answer yet, and what their clients hear meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import orjson

from pippin_edge import errors, sse
from pippin_edge.asgi import Headers, Message, Send, Sender

from .catalog.model import Catalog, Replica
from .relay import EVENT_STREAM
from .routing.resolve import may_come

#: Requests that wait at once, of all models; one more is told at once that nobody is ready.
MOST = 1000
#: Seconds between two comments on a stream that waits: less than what proxies allow for silence.
BEAT = 10.0

_JSON_LINES = bytes.maketrans(b"\r\n", b"  ")


class _Line:
    """For one model: keys take turns, and each key's requests their order."""

    def __init__(self) -> None:
        self.waiting: dict[str, dict[asyncio.Future[None], None]] = {}
        #: They may go, and have not gone yet.
        self.called: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values())) + len(self.called)

    def join(self, key: str) -> asyncio.Future[None]:
        place = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(key, {})[place] = None
        return place

    def leave(self, key: str, place: asyncio.Future[None]) -> None:
        if place in self.called:
            self.called.discard(place)
            return
        mine = self.waiting[key]
        del mine[place]
        if not mine:
            del self.waiting[key]

    def call(self) -> None:
        """The next one; its key comes after all others then."""
        key = next(iter(self.waiting))
        mine = self.waiting.pop(key)
        place = next(iter(mine))
        del mine[place]
        if mine:
            self.waiting[key] = mine
        self.called.add(place)
        place.set_result(None)


class Waiting:
    """Who waits for which model (namespace/name). When a replica comes, so many go as it works on
    at once, and then one for each that is done. Belongs to one event loop.

    `load`: requests in flight at a replica.
    """

    def __init__(self, load: Callable[[Replica], int], most: int = MOST) -> None:
        self._load = load
        self._most = most
        self._catalog = Catalog()
        self._lines: dict[str, _Line] = {}

    @property
    def full(self) -> bool:
        return sum(map(len, self._lines.values())) >= self._most

    def of(self, ref: str) -> int:
        """How many wait for a model."""
        line = self._lines.get(ref)
        return len(line) if line is not None else 0

    def holds(self, ref: str, key: str) -> bool:
        """Whether requests of this key wait for the model."""
        line = self._lines.get(ref)
        return line is not None and key in line.waiting

    @contextmanager
    def place(self, ref: str, key: str) -> Iterator[asyncio.Future[None]]:
        """One more that waits, until it goes: when the place is done, a replica has room for it,
        or none will come."""
        line = self._lines.setdefault(ref, _Line())
        place = line.join(key)
        self._call(ref)
        try:
            yield place
        finally:
            line.leave(key, place)
            if not len(line):
                del self._lines[ref]

    def look(self, catalog: Catalog) -> None:
        """The cluster is like this now."""
        self._catalog = catalog
        for ref in self._lines:
            self._call(ref)

    def ended(self, ref: str) -> None:
        """A request of the model, whatever became of it."""
        if ref in self._lines:
            self._call(ref)

    def _call(self, ref: str) -> None:
        """Those for whom there is room; all of them, when no replica will come."""
        line, model = self._lines[ref], self._catalog.by_ref.get(ref)
        room = len(line)
        if model is not None and (model.replicas or may_come(model.spec)):
            at_once = model.spec.at_once
            room = sum(max(0, at_once - self._load(replica)) for replica in model.replicas)
        while line.waiting and len(line.called) < room:
            line.call()


class Early:
    """A stream that begins before there is an answer: comments first, and then whatever comes is
    told in events, because the status has been told already."""

    def __init__(self, send: Send, headers: Headers) -> None:
        self._send = cast(Sender, send)
        self._headers = headers
        self._whole: list[bytes] | None = None
        #: Whether the client has been told a status.
        self.begun = False

    async def comment(self, text: str) -> None:
        """A sign of life."""
        if not self.begun:
            self.begun = True
            head = [(b"content-type", sse.CONTENT_TYPE), *EVENT_STREAM, *self._headers]
            await self._send({"type": "http.response.start", "status": 200, "headers": head})
        await self._part(sse.comment(text), more=True)

    async def fail(self, error: errors.ApiError, request_id: str) -> None:
        """The last event: there will be no answer."""
        await self._part(sse.event(orjson.dumps(errors.payload(error, request_id))))

    async def __call__(self, message: Message) -> None:
        """An answer on its way to the client."""
        if not self.begun:
            await self._send(message)
        elif message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            self._whole = None if kind.startswith(b"text/event-stream") else []
        elif self._whole is None:
            await self._send(message)
        else:
            self._whole.append(message.get("body", b""))
            if not message.get("more_body"):
                await self._part(sse.event(b"".join(self._whole).translate(_JSON_LINES)))

    def part(self, body: bytes) -> None:
        """As asgi.Sender has it: of an answer in events."""
        self._send.part(body)

    async def _part(self, body: bytes, *, more: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
