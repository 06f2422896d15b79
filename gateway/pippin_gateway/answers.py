"""Answers that all gateways at one Redis share: none can be read or made up there.

Redis gets them sealed, under names that say nothing, with a key that only the gateways have. While
it is away, slow or half full, each gateway has its own memory: nobody waits, nothing fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pippin_edge.asgi import Headers
from pippin_edge.errors import NotReady

from .catalog.model import CachePolicy
from .limiting.redis import PREFIX, Address, Redis, RedisGone

#: For whoever derives the key: nothing else is sealed with it.
PURPOSE = b"pippin.dev/gateway-answers/1"
#: Seconds that a request waits for Redis, and for which none does after that was too short.
PATIENCE, REST = 0.1, 1.0
#: Seconds between two looks at what other gateways forgot.
LOOK = 0.5
#: Of Redis' memory, the part from which on it gets no more: limits are counted in the rest.
SHARE = 0.5

_NONCE = 12
_MARKS = f"{PREFIX}answers-forgotten"
_AWAY = (
    "this gateway has forgotten its answers, but Redis, which all gateways share, is away: try"
    " again"
)


class Stored(NamedTuple):
    """An answer as a client got it; `request_id` is that client's; `until` is monotonic."""

    headers: Headers
    body: bytes
    request_id: str
    until: float


class SharedAnswers:
    """As one gateway has them. `key` is what all gateways derive; `run` keeps the connection, which
    is not that of the limits: what is large, or fails, delays no other's."""

    def __init__(
        self,
        where: Address,
        key: Callable[[], bytes | None],
        now: Callable[[], float],
        *,
        gateway: str,
    ) -> None:
        self.redis = Redis(where, self._look, gateway, use="answers")
        #: Called with a model (namespace/name) whose answers were forgotten by any gateway.
        self.on_forgotten: Callable[[str], object] = lambda model: None
        #: Another one each time that a model's answers were forgotten.
        self._marks: dict[str, str] = {}
        self._key = key
        self._now = now
        self._rests_until = 0.0
        self._has_room = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.redis.run())
            group.create_task(self._follow())

    async def recall(self, name: bytes, model: str) -> Stored | None:
        """An answer, if Redis has it and says so at once."""
        key, now = self._key(), self._now()
        if key is None or not self.redis.up or now < self._rests_until:
            return None
        place = _place(key, name)
        asked = self.redis.send_script("recall", [place, _shelf(model)], [])
        await asyncio.wait({asked}, timeout=PATIENCE)
        if not asked.done():
            self._rests_until = now + PATIENCE + REST
            return None
        if asked.exception() is not None or asked.result() is None:
            return None
        sealed, left = asked.result()
        return _opened(sealed, key, place, until=self._now() + left / 1000)

    def keep(self, name: bytes, model: str, policy: CachePolicy, stored: Stored) -> None:
        """Tell Redis, if it can take it; nobody waits for that."""
        key = self._key()
        if key is None or not self._has_room or not self.redis.up:
            return
        place, kept = _place(key, name), int((stored.until - self._now()) * 1000)
        if kept <= 0:
            return
        keys = [place, _shelf(model), _MARKS]
        limits: list[Any] = [b"%d" % kept, b"%d" % policy.entries]
        sealed = _sealed(stored, key, place)
        self.redis.send_script("keep", keys, [sealed, *limits, model, self._marks.get(model, "")])

    async def forget(self, model: str) -> int:
        """Of all gateways; how many there were. Raises errors.NotReady."""
        mark = secrets.token_hex(8)
        try:
            if not self.redis.up:
                raise RedisGone("not connected")
            keys = [_shelf(model), _MARKS]
            there = int(await self.redis.run_script("forget", keys, [model, mark]))
        except RedisGone as error:
            raise NotReady(_AWAY, retry_after=2, code="cache_unavailable") from error
        self._marks[model] = mark
        self.on_forgotten(model)
        return there

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            if self.redis.up:
                with contextlib.suppress(RedisGone):
                    await self._look()

    async def _look(self) -> None:
        """At what others forgot, and at how full it is."""
        asked = self.redis.call("HGETALL", _MARKS), self.redis.call("INFO", "memory")
        flat, memory = [await one for one in asked]
        texts = [text.decode() for text in flat]
        known, self._marks = self._marks, dict(zip(texts[::2], texts[1::2], strict=True))
        for model in known.keys() | self._marks.keys():
            if known.get(model) != self._marks.get(model):
                self.on_forgotten(model)
        self._has_room = _has_room(memory)


def _has_room(memory: bytes) -> bool:
    told = dict(line.partition(b":")[::2] for line in memory.split())
    most = int(told.get(b"maxmemory", 0))
    return not most or int(told.get(b"used_memory", 0)) < most * SHARE


def _shelf(model: str) -> str:
    return f"{PREFIX}answers:{model}"


def _place(key: bytes, name: bytes) -> str:
    """Who sees it cannot try what was asked."""
    return f"{PREFIX}answer:{hmac.digest(key, name, 'sha256').hex()}"


def _sealed(stored: Stored, key: bytes, place: str) -> bytes:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in stored.headers]
    whole = orjson.dumps([stored.request_id, headers]) + b"\n" + stored.body
    nonce = secrets.token_bytes(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, whole, place.encode())


def _opened(sealed: bytes, key: bytes, place: str, until: float) -> Stored | None:
    """None: nobody with this key put it there."""
    try:
        whole = AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], place.encode())
    except (InvalidTag, ValueError):
        return None
    head, _, body = whole.partition(b"\n")
    request_id, texts = orjson.loads(head)
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in texts]
    return Stored(headers, body, request_id, until)
