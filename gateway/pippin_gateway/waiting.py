"""Requests whose model has nobody to answer yet, and what their clients hear meanwhile."""

from __future__ import annotations

import asyncio

import orjson

from pippin_edge import errors, sse
from pippin_edge.asgi import Headers, Message, Send

from .catalog.model import Catalog
from .relay import EVENT_STREAM
from .routing.resolve import may_come

#: Requests that wait at once, of all models; one more is told at once that nobody is ready.
MOST = 1000
#: Seconds between two comments on a stream that waits: less than what proxies allow for silence.
BEAT = 10.0

_JSON_LINES = bytes.maketrans(b"\r\n", b"  ")


class Waiting:
    """Who waits for which model (namespace/name). Belongs to one event loop."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._rooms: dict[str, set[asyncio.Future[None]]] = {}

    @property
    def full(self) -> bool:
        return sum(map(len, self._rooms.values())) >= self._most

    def of(self, ref: str) -> int:
        """How many wait for a model."""
        return len(self._rooms.get(ref, ()))

    async def change(self, ref: str, seconds: float) -> None:
        """Until a replica of the model has come, or none will; at most so long."""
        changed = asyncio.get_running_loop().create_future()
        room = self._rooms.setdefault(ref, set())
        room.add(changed)
        try:
            await asyncio.wait({changed}, timeout=max(0.0, seconds))
        finally:
            room.discard(changed)
            if not room and self._rooms.get(ref) is room:
                del self._rooms[ref]

    def look(self, catalog: Catalog) -> None:
        """The cluster is like this now: let those go on whose wait is over."""
        for ref, room in self._rooms.items():
            model = catalog.by_ref.get(ref)
            if model is None or model.replicas or not may_come(model.spec):
                for changed in room:
                    if not changed.done():
                        changed.set_result(None)


class Early:
    """A stream that begins before there is an answer: comments first, and then whatever comes is
    told in events, because the status has been told already."""

    def __init__(self, send: Send, headers: Headers) -> None:
        self._send = send
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

    async def _part(self, body: bytes, *, more: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
