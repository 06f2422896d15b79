"""Which replica takes the next request: the one with the fewest in flight.

One that just failed is passed over for a moment, as long as there is another.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from ..catalog.model import BreakerPolicy, Replica
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

    def pick(
        self,
        replicas: Sequence[Replica],
        tried: Container[str],
        now: float,
        policy: BreakerPolicy,
    ) -> Replica | None:
        """The least busy replica that was not tried and whose breaker lets it; ties go round."""
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
