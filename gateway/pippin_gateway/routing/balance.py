"""Which replica takes the next request: the one with the fewest in flight; a long prompt goes where
one that began like it went, as long as that replica has not much more than its share.

One that just failed is passed over for a moment, as long as there is another.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from ..catalog.model import BreakerPolicy, Replica
from . import affinity
from .breaker import Breakers

#: Seconds for which a replica that failed to answer is passed over.
SHUN_SECONDS = 2.0


class Balance:
    """Requests in flight by replica; `now` is monotonic seconds."""

    def __init__(self, breakers: Breakers) -> None:
        self.breakers = breakers
        self._in_flight: dict[str, int] = {}
        self._shunned: dict[str, float] = {}
        self._turn = 0

    @property
    def in_flight(self) -> int:
        return sum(self._in_flight.values())

    def load(self, replica: Replica) -> int:
        """Requests in flight there."""
        return self._in_flight.get(replica.id, 0)

    def pick(
        self,
        replicas: Sequence[Replica],
        tried: Container[str],
        now: float,
        policy: BreakerPolicy,
        beginning: int | None = None,
    ) -> Replica | None:
        """Of those that were not tried and whose breakers let it: the one that may know the
        beginning of the prompt, or the least busy; ties go round."""
        if beginning is not None and len(replicas) > 1:
            able = [
                replica
                for replica in replicas
                if replica.id not in tried and self.breakers.allows(replica, policy, now)
            ]
            known = self._knows(beginning, able, now)
            if known is not None:
                return known
        return self._least_busy(replicas, tried, now, policy)

    def _knows(self, beginning: int, able: list[Replica], now: float) -> Replica | None:
        loads = {replica.id: self._in_flight.get(replica.id, 0) for replica in able}
        bound = affinity.most(sum(loads.values()), len(able)) if able else 0
        for replica in affinity.ranked(beginning, able):
            if loads[replica.id] < bound and not self._is_shunned(replica.id, now):
                return replica
        return None

    def _least_busy(
        self,
        replicas: Sequence[Replica],
        tried: Container[str],
        now: float,
        policy: BreakerPolicy,
    ) -> Replica | None:
        self._turn += 1
        count = len(replicas)
        best: Replica | None = None
        best_load = (True, 0)
        for offset in range(count):
            replica = replicas[(self._turn + offset) % count]
            if replica.id in tried or not self.breakers.allows(replica, policy, now):
                continue
            load = (self._is_shunned(replica.id, now), self._in_flight.get(replica.id, 0))
            if best is None or load < best_load:
                best, best_load = replica, load
        return best

    def began(self, replica: Replica) -> None:
        self.breakers.began(replica)
        self._in_flight[replica.id] = self._in_flight.get(replica.id, 0) + 1

    def ended(self, replica: Replica) -> None:
        self.breakers.ended(replica)
        left = self._in_flight[replica.id] - 1
        if left:
            self._in_flight[replica.id] = left
        else:
            del self._in_flight[replica.id]

    def failed(self, replica: Replica, now: float) -> None:
        self._shunned[replica.id] = now + SHUN_SECONDS

    def _is_shunned(self, replica_id: str, now: float) -> bool:
        if not self._shunned:
            return False
        until = self._shunned.get(replica_id)
        if until is None:
            return False
        if now < until:
            return True
        del self._shunned[replica_id]
        return False
