"""Whether a replica is asked at all: one that failed again and again is left alone for a while.

Closed until so many failures in a row; then open, so that nobody waits for what will fail; after
the cooldown a few requests try it, and the first that succeeds closes it. A replica that leaves the
catalog and comes back (its Pod was not ready, was restarted) begins anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

from ..catalog.model import BreakerPolicy, Replica
from .retry import Failure

#: What says nothing of the replica's health: it drains or is full, our token is not trusted, the
#: answer was long, a provider has had enough of us.
_INNOCENT = frozenset(
    {
        Failure.UNAVAILABLE,
        Failure.REFUSED_TOKEN,
        Failure.REQUEST_TIMEOUT,
        Failure.TOTAL_TIMEOUT,
        Failure.PROVIDER_LIMIT,
    }
)


class _Record:
    __slots__ = ("failures", "opened_at", "probing")

    def __init__(self) -> None:
        self.failures = 0
        self.opened_at: float | None = None
        self.probing = 0


class Standing(NamedTuple):
    """Of a replica: its breaker, failures in a row, and seconds until it is tried again."""

    breaker: Literal["closed", "open", "half-open"]
    failures: int
    wait: float = 0.0


class Breakers:
    """One for each replica that failed since it last answered. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    @property
    def quiet(self) -> bool:
        """Whether none failed lately."""
        return not self._records

    def allows(self, replica: Replica, policy: BreakerPolicy, now: float) -> bool:
        """Whether a request may go there now."""
        record = self._records.get(replica.id)
        if record is None or record.opened_at is None:
            return True
        return now >= record.opened_at + policy.cooldown and record.probing < policy.probes

    def began(self, replica: Replica) -> None:
        """A request goes there; call `ended` when it is over, whatever became of it."""
        record = self._records.get(replica.id)
        if record is not None and record.opened_at is not None:
            record.probing += 1

    def ended(self, replica: Replica) -> None:
        record = self._records.get(replica.id)
        if record is not None and record.probing:
            record.probing -= 1

    def succeeded(self, replica: Replica) -> None:
        """It answered. What began before it opened closes nothing."""
        record = self._records.get(replica.id)
        if record is not None and (record.opened_at is None or record.probing):
            del self._records[replica.id]

    def failed(self, replica: Replica, policy: BreakerPolicy, now: float) -> bool:
        """It did not; True when it is open from now on."""
        record = self._records.setdefault(replica.id, _Record())
        if record.opened_at is not None and not record.probing:
            return False  # began before it opened
        record.failures += 1
        if record.failures < policy.failures:
            return False
        record.opened_at = now
        record.probing = 0
        return True

    def wait(self, replicas: Iterable[Replica], policy: BreakerPolicy, now: float) -> int:
        """Whole seconds until the first of them may be tried, at least one."""
        records = (self._records.get(replica.id) for replica in replicas)
        opened = [one.opened_at for one in records if one is not None and one.opened_at is not None]
        return max(1, math.ceil(min(opened, default=now) + policy.cooldown - now))

    def standing(self, replica: Replica, policy: BreakerPolicy, now: float) -> Standing:
        """For people: how it stands with a replica."""
        record = self._records.get(replica.id)
        if record is None or record.opened_at is None:
            return Standing("closed", record.failures if record else 0)
        wait = record.opened_at + policy.cooldown - now
        if wait > 0:
            return Standing("open", record.failures, wait)
        return Standing("half-open", record.failures)

    def retain(self, replica_ids: frozenset[str]) -> None:
        """Forget replicas that left."""
        self._records = {
            known: record for known, record in self._records.items() if known in replica_ids
        }

    def open_now(self) -> int:
        """Replicas that are left alone or being tried."""
        return sum(record.opened_at is not None for record in self._records.values())


def trips(failure: Failure) -> bool:
    """Whether it counts against the replica."""
    return failure not in _INNOCENT
