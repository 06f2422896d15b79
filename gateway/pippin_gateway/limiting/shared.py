"""Limits that hold for all gateways together, counted in Redis; and what holds while it is away.

Everything that a gateway lets in it also notes in meters of its own. So when Redis goes, the
gateway knows what it has let in already, and when Redis is back, it tells what it let in meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from pippin_edge.errors import NotReady
from pippin_edge.limits import memory
from pippin_edge.limits.claims import Claim, Kind, Verdict
from pippin_edge.limits.memory import MemoryStore
from pippin_edge.limits.meters import SECONDS

from .redis import PREFIX, Address, Redis, RedisGone

#: Entries that Redis is told of in one command, for which others wait.
AT_ONCE = 2000

#: Meter, cost, age in µs.
Entry = tuple[str, int, int]
_WINDOWS = frozenset({Kind.RPM, Kind.TPM})

#: What holds while Redis is away: this gateway's share, nothing at all, or no request passes.
Away = Literal["localShare", "failOpen", "failClosed"]


class Receipt(NamedTuple):
    """What a request has taken: here, and in Redis under this name at this time (µs)."""

    local: memory.Receipt
    request: str = ""
    at: int = 0


class Store(Protocol):
    """Where limits are counted."""

    async def take(self, claims: Sequence[Claim]) -> tuple[list[Verdict], Receipt | None]: ...

    def settle(self, receipt: Receipt, tokens: Mapping[str, int]) -> None: ...

    async def run(self) -> None: ...

    @property
    def connected(self) -> bool | None: ...


class LocalStore:
    """For one gateway; several count each for itself."""

    def __init__(self, local: MemoryStore) -> None:
        self._local = local

    async def take(self, claims: Sequence[Claim]) -> tuple[list[Verdict], Receipt | None]:
        verdicts, receipt = self._local.take(claims)
        return verdicts, None if receipt is None else Receipt(receipt)

    def settle(self, receipt: Receipt, tokens: Mapping[str, int]) -> None:
        self._local.settle(receipt.local, tokens)

    async def run(self) -> None:
        """There is nothing to do."""

    @property
    def connected(self) -> bool | None:
        """There is nothing to connect to."""
        return None


class SharedStore:
    """For all gateways at one Redis. `run` keeps the connection, until it is cancelled."""

    def __init__(
        self,
        where: Address,
        local: MemoryStore,
        *,
        gateway: str,
        away: Away = "localShare",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._local = local
        self._gateway = gateway
        self._away = away
        self._monotonic = monotonic
        self._requests = itertools.count()
        #: When the first request since then was let in without Redis.
        self._gone_since: float | None = None
        #: Tokens of today, by meter, that Redis does not know of.
        self._owed: Counter[str] = Counter()
        self.redis = Redis(where, self._restore, gateway)

    async def run(self) -> None:
        await self.redis.run()

    @property
    def connected(self) -> bool | None:
        """Whether Redis counts now."""
        return self.redis.up

    async def take(self, claims: Sequence[Claim]) -> tuple[list[Verdict], Receipt | None]:
        """Raises errors.NotReady when nothing may pass without Redis."""
        if self.redis.up:
            try:
                return await self._ask(claims)
            except RedisGone:
                pass
        if self._gone_since is None:
            self._gone_since = self._monotonic()
        return self._alone(claims)

    async def _ask(self, claims: Sequence[Claim]) -> tuple[list[Verdict], Receipt | None]:
        request = f"{self._gateway}-{next(self._requests)}"
        arguments: list[object] = [self._gateway, request]
        for claim in claims:
            arguments += (str(claim.kind), str(claim.limit), str(claim.cost))
        at, *told = await self.redis.run_script("take", _keys(claims), arguments)
        fits = not any(told[1::3])
        verdicts = [
            Verdict(
                limit=claim.limit,
                remaining=max(0, claim.limit - used - (claim.cost if fits else 0)),
                reset_after=SECONDS if fits and claim.kind in _WINDOWS else reset / 1e6,
                wait=wait / 1e6,
            )
            for claim, used, wait, reset in zip(
                claims, told[::3], told[1::3], told[2::3], strict=True
            )
        ]
        receipt = Receipt(self._local.note(claims), request, at) if fits else None
        return verdicts, receipt

    def settle(self, receipt: Receipt, tokens: Mapping[str, int]) -> None:
        self._local.settle(receipt.local, tokens)
        wrong = []
        for claim, _, _ in receipt.local.taken:
            cost = claim.settled(tokens)
            if claim.kind is Kind.TOKENS_PER_DAY and not (receipt.request and self.redis.up):
                self._owed[claim.meter] += cost - (claim.cost if receipt.request else 0)
            elif cost != claim.cost and (receipt.request or claim.kind is Kind.CONCURRENCY):
                wrong.append((claim, cost))
        if not self.redis.up:
            return
        if wrong:
            arguments: list[object] = [self._gateway, receipt.request, str(receipt.at)]
            for claim, cost in wrong:
                arguments += (str(claim.kind), str(claim.cost), str(cost))
            self.redis.send_script("settle", _keys([claim for claim, _ in wrong]), arguments)
        if self._owed:
            self._tell([(name, owed, 0) for name, owed in self._owed.items()])
            self._owed.clear()

    def _alone(self, claims: Sequence[Claim]) -> tuple[list[Verdict], Receipt | None]:
        if self._away == "failClosed":
            raise NotReady(
                "requests cannot be counted now, and none passes uncounted: try again",
                retry_after=1,
                code="limits_unavailable",
            )
        if self._away == "failOpen":
            receipt = Receipt(self._local.note(claims))
            return [Verdict(claim.limit, claim.limit, 0.0, 0.0) for claim in claims], receipt
        share = [self._share(claim) for claim in claims]
        verdicts, taken = self._local.take(share)
        return verdicts, None if taken is None else Receipt(taken)

    def _share(self, claim: Claim) -> Claim:
        limit = max(1, claim.limit // self.redis.gateways)
        return claim._replace(limit=limit, cost=min(claim.cost, limit))

    async def _restore(self) -> None:
        """Tell Redis what was let in while it did not count, and what is under way.

        What it was not told because the connection failed it is told the next time.
        """
        now, owed = self._monotonic(), Counter(self._owed)
        entries: list[Entry] = [(name, n, 0) for name, n in self._local.under_way().items()]
        if self._gone_since is not None:
            entries += by_second(self._local.since(self._gone_since))
        for start in range(0, len(entries), AT_ONCE):
            await self._tell(entries[start : start + AT_ONCE])
        if owed:  # last: told twice, it would be wrong for the rest of the day, not for a minute
            await self._tell([(name, tokens, 0) for name, tokens in owed.items()])
        self._gone_since = None if self.redis.up else now
        self._owed.subtract(owed)
        # A debt may be negative: more was reserved than it took.
        self._owed = Counter({name: left for name, left in self._owed.items() if left})

    def _tell(self, entries: list[Entry]) -> asyncio.Future[object]:
        arguments: list[object] = [self._gateway, f"{self._gateway}-{next(self._requests)}"]
        for name, cost, age in entries:
            arguments += (name.partition("/")[0], str(cost), str(age))
        keys = [PREFIX + name for name, _, _ in entries]
        return self.redis.send_script("restore", keys, arguments)


def by_second(noted: list[tuple[str, float, int]]) -> list[Entry]:
    """What was noted (meter, age in seconds, cost), one entry for each meter and second: as if all
    of it had been at the second's end."""
    sums: Counter[tuple[str, int]] = Counter()
    for name, age, cost in noted:
        sums[name, int(age)] += cost
    return [(name, cost, age * 1_000_000) for (name, age), cost in sums.items() if cost]


def _keys(claims: Sequence[Claim]) -> list[str]:
    return [PREFIX + claim.meter for claim in claims]
