"""Equal requests, answered from memory: where a model asks for it, and where there is one answer.

Bounded by entries of a model, by bytes of all, and by age. What a changed ModelDeployment had
answered before is not given any more. What is not in this gateway's memory may be in Redis.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, cast

import orjson

from pippin_edge.asgi import Headers, Message, Send, Sender

from .answers import SharedAnswers, Stored
from .catalog.model import ApiKey, CachePolicy, Model

#: Bytes of one answer, and of all together.
ENTRY_BYTES, ALL_BYTES = 256 * 1024, 32 * 1024 * 1024
#: Headers of an answer that are its own and not the request's.
_KEPT = frozenset({b"content-type", b"cache-control", b"x-accel-buffering", b"x-pippin-served-by"})
_MEDIA = frozenset({"/v1/images/generations", "/v1/images/edits", "/v1/audio/transcriptions"})
#: Fields that say nothing of the answer.
_IDLE = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key"})


def digest(path: str, asked: dict[str, Any], key: ApiKey, model: Model) -> bytes | None:
    """What equal requests have in common; None: asked twice, it may have two answers."""
    if path in _MEDIA:  # an answer's URLs end before it does
        return None
    if not (path.endswith("/embeddings") or has_one_answer(asked)):
        return None
    said = {name: value for name, value in asked.items() if name not in _IDLE}
    whole = [key.namespace, model.ref, model.spec.version, path, said]
    return sha256(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)).digest()


def has_one_answer(asked: dict[str, Any]) -> bool:
    """Greedy, or with chance that is given."""
    temperature, seed = asked.get("temperature"), asked.get("seed")
    return (temperature == 0 and temperature is not False) or isinstance(seed, int)


@dataclass(slots=True)
class _Shelf:
    """Of one model as it is now; the least lately used first."""

    version: str
    answers: OrderedDict[bytes, Stored] = field(default_factory=OrderedDict)
    size: int = 0

    def drop(self, name: bytes) -> None:
        gone = self.answers.pop(name, None)
        self.size -= len(gone.body) if gone else 0


class ResponseCache:
    """Of one gateway."""

    def __init__(
        self,
        now: Callable[[], float],
        most_bytes: int = ALL_BYTES,
        shared: SharedAnswers | None = None,
    ) -> None:
        self._now = now
        self._most_bytes = most_bytes
        self._shared = shared
        self._shelves: dict[str, _Shelf] = {}
        self._flights: dict[bytes, asyncio.Future[None]] = {}
        if shared is not None:
            shared.on_forgotten = self._drop

    @property
    def held(self) -> int:
        """Bytes of all answers."""
        return sum(shelf.size for shelf in self._shelves.values())

    def get(self, name: bytes, model: Model) -> Stored | None:
        """The answer, while it is good."""
        shelf = self._shelf(model)
        stored = shelf.answers.get(name)
        if stored is None:
            return None
        if stored.until <= self._now():
            shelf.drop(name)
            return None
        shelf.answers.move_to_end(name)
        return stored

    async def find(self, name: bytes, model: Model, policy: CachePolicy) -> Stored | None:
        """The same, also from other gateways' answers."""
        stored = self.get(name, model)
        if stored is None and self._shared is not None:
            shelf = self._shelf(model)
            stored = await self._shared.recall(name, model.ref)
            if stored is not None and self._shelves.get(model.ref) is shelf:
                self._hold(name, shelf, policy, stored)
        return stored

    def recorder(self, send: Send, request_id: str, model: Model) -> Recorder:
        """Of an answer that is asked for now."""
        return Recorder(send, request_id, self._shelf(model))

    def put(self, name: bytes, model: Model, policy: CachePolicy, answer: Recorder) -> None:
        """Keep an answer that came whole, if none were forgotten since it was asked for."""
        shelf = self._shelves.get(model.ref)
        if answer.body is None or shelf is not answer.shelf:
            return
        until = self._now() + policy.ttl
        stored = Stored(answer.headers, answer.body, answer.request_id, until)
        self._hold(name, answer.shelf, policy, stored)
        if self._shared is not None:
            self._shared.keep(name, model.ref, policy, stored)

    def _hold(self, name: bytes, shelf: _Shelf, policy: CachePolicy, stored: Stored) -> None:
        """In memory; others go when there are too many."""
        if len(stored.body) > self._most_bytes:
            return
        shelf.drop(name)
        shelf.answers[name] = stored
        shelf.size += len(stored.body)
        while len(shelf.answers) > policy.entries:
            shelf.drop(next(iter(shelf.answers)))
        while self.held > self._most_bytes:
            largest = max(self._shelves.values(), key=lambda one: one.size)
            largest.drop(next(iter(largest.answers)))

    async def forget(self, ref: str) -> int:
        """All answers of a model; how many there were. Raises errors.NotReady when only this
        gateway could."""
        gone = self._drop(ref)
        return gone if self._shared is None else max(gone, await self._shared.forget(ref))

    def _drop(self, ref: str) -> int:
        shelf = self._shelves.pop(ref, None)
        return len(shelf.answers) if shelf else 0

    def retain(self, refs: frozenset[str]) -> None:
        """Forget models that are gone."""
        for ref in self._shelves.keys() - refs:
            del self._shelves[ref]

    @asynccontextmanager
    async def flight(self, name: bytes) -> AsyncIterator[None]:
        """One at a time gets an answer that others wait for; they look once more, then go too."""
        under_way = self._flights.get(name)
        if under_way is not None:
            await asyncio.wait({under_way})
            yield
            return
        mine = self._flights[name] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._flights[name]
            mine.set_result(None)

    def _shelf(self, model: Model) -> _Shelf:
        shelf = self._shelves.get(model.ref)
        if shelf is None or shelf.version != model.spec.version:
            shelf = self._shelves[model.ref] = _Shelf(model.spec.version)
        return shelf


class Recorder:
    """Passes an answer on and remembers it; `body` is None until a good one has come whole."""

    def __init__(self, send: Send, request_id: str, shelf: _Shelf) -> None:
        self._send = cast(Sender, send)
        self.shelf = shelf
        self._parts: list[bytes] = []
        self._size = 0
        self._good = False
        self.request_id = request_id
        self.headers: Headers = []
        self.body: bytes | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._good = message["status"] == 200
            self.headers = [pair for pair in message["headers"] if pair[0] in _KEPT]
        elif self._good:
            self._take(message.get("body", b""), more=message.get("more_body", False))
        await self._send(message)

    def part(self, body: bytes) -> None:
        """As asgi.Sender has it."""
        if self._good:
            self._take(body, more=True)
        self._send.part(body)

    def _take(self, part: bytes, *, more: bool) -> None:
        self._size += len(part)
        if self._size > ENTRY_BYTES:
            self._good = False
            self._parts.clear()
            return
        self._parts.append(part)
        if not more:
            self.body = b"".join(self._parts)


async def replay(stored: Stored, send: Send, request_id: str, headers: Headers) -> None:
    """The same answer to another request."""
    body = stored.body
    for space in (b"", b" "):
        named = b'"request_id":' + space + b'"%s"'
        body = body.replace(named % stored.request_id.encode(), named % request_id.encode())
    length = [(b"content-length", b"%d" % len(body))]
    head = [*stored.headers, (b"x-pippin-cache", b"hit"), *length, *headers]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})
