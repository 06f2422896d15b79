"""Two ledgers: one gateway's own, and that of all gateways at one Redis.

A request only touches memory; Redis is told every second. What it was told and did not confirm it
is told again under the same number, so nothing counts twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from typing import Any, Protocol

from pippin_edge.clock import SYSTEM, Clock
from pippin_edge.errors import NotReady

from ..catalog.model import ApiKey
from ..limiting.redis import PREFIX, Redis, RedisGone
from .book import SUMS, Book, Count, Entry, Took, told

#: Seconds between two tellings, and entries (about) that Redis is told of at once.
EVERY, AT_ONCE = 1.0, 500
#: Days that Redis remembers a key that is not used.
DAYS = 35

_INDEX, _SOURCE = f"{PREFIX}usage", f"{PREFIX}usage-source"
_AWAY = "Redis, where usage is counted, is away: try again"


class Ledger(Protocol):
    """Where usage is noted."""

    def note(self, key: ApiKey, model: str, took: Took) -> None: ...

    def retain(self, uids: frozenset[str]) -> None: ...

    async def report(self) -> dict[str, Any]:
        """As `pippin_contract.usage.UsageReport`. Raises errors.NotReady."""
        ...

    async def run(self) -> None: ...

    async def close(self) -> None: ...


class LocalLedger:
    """For one gateway; it forgets with the process."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._book = Book()
        self._clock = clock
        self._source = secrets.token_hex(8)

    def note(self, key: ApiKey, model: str, took: Took) -> None:
        self._book.note(key, model, took, self._clock.wall())

    def retain(self, uids: frozenset[str]) -> None:
        self._book.retain(uids)

    async def report(self) -> dict[str, Any]:
        return {"version": 1, "source": self._source, "keys": told(self._book.entries())}

    async def run(self) -> None:
        """There is nothing to do."""

    async def close(self) -> None:
        """Nor at the end."""


class SharedLedger:
    """For all gateways at one Redis, which others connect."""

    def __init__(self, redis: Redis, *, gateway: str, clock: Clock = SYSTEM) -> None:
        self._redis = redis
        self._gateway = gateway
        self._clock = clock
        self._book = Book()
        self._numbers = itertools.count(1)
        #: Told, and not confirmed.
        self._sent: tuple[int, list[Entry]] | None = None
        self._telling = asyncio.Lock()

    def note(self, key: ApiKey, model: str, took: Took) -> None:
        self._book.note(key, model, took, self._clock.wall())

    def retain(self, uids: frozenset[str]) -> None:
        """What a key used stays to be told when the key is gone."""

    async def run(self) -> None:
        """Tell Redis, until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            await self.close()

    async def close(self) -> None:
        """Tell what is left, if Redis is there."""
        async with self._telling:
            await self._tell_all()

    async def _tell_all(self) -> None:
        with contextlib.suppress(RedisGone):
            while self._redis.up and await self._tell():
                pass

    async def _tell(self) -> bool:
        """Some of it; False when there is nothing."""
        if self._sent is None:
            entries = self._book.take(AT_ONCE)
            if not entries:
                return False
            self._sent = next(self._numbers), entries
        number, entries = self._sent
        keys = [_INDEX, f"{_INDEX}-told:{self._gateway}"]
        arguments: list[object] = [str(number), str(DAYS * 86400)]
        for uid, ref, model, key_id, count in entries:
            keys.append(_account(uid))
            arguments += (uid, ref, model, key_id, f"{count.last:.3f}", *map(str, count.each))
        await self._redis.run_script("tally", keys, arguments)
        self._sent = None
        return True

    async def report(self) -> dict[str, Any]:
        try:
            return await self._report()
        except RedisGone as error:
            raise NotReady(_AWAY, retry_after=2, code="usage_unavailable") from error

    async def _report(self) -> dict[str, Any]:
        if not self._redis.up:
            raise RedisGone("not connected")
        call, oldest = self._redis.call, self._clock.wall() - DAYS * 86400
        await call("SET", _SOURCE, secrets.token_hex(8), "NX")
        source = await call("GET", _SOURCE)
        await call("ZREMRANGEBYSCORE", _INDEX, "-inf", f"{oldest:.0f}")
        uids = [uid.decode() for uid in await call("ZRANGE", _INDEX, "0", "-1")]
        keys: list[dict[str, Any]] = []
        for start in range(0, len(uids), AT_ONCE):
            some = uids[start : start + AT_ONCE]
            found = [call("HGETALL", _account(uid)) for uid in some]
            for uid, fields in zip(some, await asyncio.gather(*found), strict=True):
                keys += told(_entries(uid, [field.decode() for field in fields]))
        return {"version": 1, "source": source.decode(), "keys": keys}


def _account(uid: str) -> str:
    return f"{_INDEX}:{uid}"


def _entries(uid: str, flat: list[str]) -> list[Entry]:
    """Of what tally.lua wrote: `ref`, `id KEY`, `last MODEL`, and each sum as `SUM MODEL`."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    ref = fields.pop("ref", "")
    models: dict[str, dict[str, str]] = {}
    entries = []
    for field, value in fields.items():
        what, _, name = field.partition(" ")
        if what == "id":
            entries.append(Entry(uid, ref, "", name, Count(last=float(value))))
        else:
            models.setdefault(name, {})[what] = value
    for model, known in models.items():
        sums = [int(known.get(name, 0)) for name in SUMS]
        count = Count(*sums)
        count.last = float(known.get("last", 0))
        entries.append(Entry(uid, ref, model, "", count))
    return entries
