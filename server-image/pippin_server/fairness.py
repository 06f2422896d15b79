"""Who of those that wait comes in next. Pure.

Interactive keys before batch ones; among these, the key that was given least so far. What a key was
given is counted in tokens: a guess when it comes in, corrected when it leaves. A key that comes
after a while begins where the least served of those present stands, so nobody saves up for a burst.
(Virtual token counters: Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024.)
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

#: Tokens of a request of a key of which nothing is known, and how fast that is learned.
GUESS, LEARNING = 256.0, 0.2
#: Keys that are remembered while they have nothing here.
REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Standing:
    """Whose a request is."""

    key: str = ""
    batch: bool = False


@dataclass(slots=True)
class _Account:
    served: float = 0.0
    usual: float = GUESS


class Ledger:
    """What keys were given."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        #: Requests under way, of keys that have any.
        self._active: dict[str, int] = {}

    def arrives(self, key: str, waiting: set[str]) -> None:
        """It has something to do from now on, as have those that are `waiting` or active."""
        if key in waiting or key in self._active:
            return
        account = self._of(key)
        busy = [self.served(name) for name in waiting | self._active.keys()]
        if busy:
            account.served = max(account.served, min(busy))

    def served(self, key: str) -> float:
        return self._of(key).served

    def enters(self, key: str) -> float:
        """One of its requests begins; what that is guessed to take."""
        self._active[key] = self._active.get(key, 0) + 1
        account = self._of(key)
        account.served += account.usual
        return account.usual

    def leaves(self, key: str, guessed: float, tokens: int | None) -> None:
        """It has ended and took so many tokens; None: nobody counted."""
        self._active[key] -= 1
        if not self._active[key]:
            del self._active[key]
        if tokens is not None:
            account = self._of(key)
            account.served += tokens - guessed
            account.usual += LEARNING * (tokens - account.usual)

    def _of(self, key: str) -> _Account:
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account()
            self._forget_one()
        self._accounts.move_to_end(key)
        return account

    def _forget_one(self) -> None:
        """The one that was here longest ago, when there are too many. Who waits was here lately."""
        if len(self._accounts) > REMEMBERED:
            for name in self._accounts:
                if name not in self._active:
                    del self._accounts[name]
                    return


@dataclass(slots=True)
class Row(Generic[T]):
    """Those who wait, in the order in which they come in."""

    ledger: Ledger
    _tiers: tuple[dict[str, deque[T]], dict[str, deque[T]]] = field(
        default_factory=lambda: ({}, {})
    )

    def __len__(self) -> int:
        return sum(len(row) for tier in self._tiers for row in tier.values())

    def before(self, standing: Standing) -> int:
        """How many of them come in before one that comes now, or share its tier."""
        tiers = self._tiers[: 1 + standing.batch]
        return sum(len(row) for tier in tiers for row in tier.values())

    def __iter__(self) -> Iterator[T]:
        for tier in self._tiers:
            for row in tier.values():
                yield from row

    def add(self, standing: Standing, one: T) -> None:
        """At the end of its key's."""
        self.arrives(standing)
        self._tiers[standing.batch].setdefault(standing.key, deque()).append(one)

    def arrives(self, standing: Standing) -> None:
        """Its key has something to do."""
        self.ledger.arrives(standing.key, {key for tier in self._tiers for key in tier})

    def pop(self, *, batch_too: bool) -> tuple[Standing, T] | None:
        """The next; batches only where they may."""
        for batch in (False, True)[: 1 + batch_too]:
            tier = self._tiers[batch]
            if tier:
                key = min(tier, key=self.ledger.served)
                return Standing(key, batch), self._take(tier, key, first=True)
        return None

    def evict(self) -> T | None:
        """The last of the batch that has most waiting, who goes so that an interactive one may
        wait; None: there is none."""
        tier = self._tiers[True]
        if not tier:
            return None
        return self._take(tier, max(tier, key=lambda key: len(tier[key])), first=False)

    def discard(self, standing: Standing, one: T) -> bool:
        """It waits no more; whether it was here."""
        tier = self._tiers[standing.batch]
        row = tier.get(standing.key)
        if row is None or one not in row:
            return False
        row.remove(one)
        if not row:
            del tier[standing.key]
        return True

    @staticmethod
    def _take(tier: dict[str, deque[T]], key: str, *, first: bool) -> T:
        row = tier[key]
        one = row.popleft() if first else row.pop()
        if not row:
            del tier[key]
        return one
