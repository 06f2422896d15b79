"""How many replicas a model needs, by how much it is asked for. Pure: the time is told, in seconds.

Up at once, by the load of the last looks; down to the most that was needed within the delay, as
Kubernetes' own autoscaler does it. What is not known is never a reason to go down.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pippin_contract.units import seconds

from .api.pods import Autoscaling

#: Looks over which requests under way are averaged.
LOOKS = 5


@dataclass(frozen=True)
class Policy:
    """What the object asks for. Seconds: `delay` before it goes down, `startup` until a replica
    must be ready, `remembered` for which a request counts after it was seen."""

    least: int
    most: int
    target: int
    delay: float
    startup: float
    remembered: float

    @classmethod
    def of(cls, spec: Autoscaling, startup: float, looks_every: float) -> Policy:
        delay = seconds(spec.scale_down_delay)
        return cls(
            least=spec.min_replicas,
            most=spec.max_replicas,
            target=spec.target_requests_per_replica,
            delay=delay,
            startup=startup,
            remembered=max(delay, 2 * looks_every),
        )

    def bounded(self, replicas: int) -> int:
        return min(max(replicas, self.least), self.most)


@dataclass(frozen=True)
class Demand:
    """What all gateways told together; `whole` if every one of them did."""

    in_flight: int = 0
    waiting: int = 0
    asked_ago: float | None = None
    whole: bool = True


@dataclass(frozen=True)
class Running:
    """The workload: Pods that it is to have, those that serve, and whether one has failed."""

    replicas: int
    ready: int = 0
    failed: bool = False

    @property
    def broken(self) -> bool:
        """Nobody serves, and it is not for want of time."""
        return self.failed and not self.ready


@dataclass(frozen=True)
class Decision:
    """Another number of replicas, and why."""

    replicas: int
    why: str


class Record:
    """What one model needed lately."""

    def __init__(self) -> None:
        self._loads: deque[int] = deque(maxlen=LOOKS)
        #: Since when so many were needed; each more than all that came after it.
        self._needs: deque[tuple[float, int]] = deque()
        self._starting: float | None = None
        #: When it was last asked for: a gateway that starts knows nothing of before.
        self._asked: float | None = None

    def judge(
        self, policy: Policy, demand: Demand, running: Running, now: float
    ) -> Decision | None:
        """None: as it is."""
        has = policy.bounded(running.replicas)
        self._loads.append(demand.in_flight)
        needs = max(self._by_load(policy, demand), self._to_start(policy, running, now))
        known = demand.whole and bool(self._needs)
        self._keep(needs if known else max(needs, has), now, policy.delay)
        asked = self._was_asked(policy, demand, now)
        up = policy.bounded(max(needs, asked))
        if running.broken:
            up = min(up, max(has, 1))
        down = policy.bounded(max(self._needs[0][1], asked))
        if up > has:
            return Decision(up, self._asked_for(policy, demand))
        return Decision(down, _rested(policy, down)) if down < has else None

    def _by_load(self, policy: Policy, demand: Demand) -> int:
        looks = len(self._loads)
        return -(-(sum(self._loads) + demand.waiting * looks) // (policy.target * looks))

    def _was_asked(self, policy: Policy, demand: Demand, now: float) -> int:
        """One replica, while the last request is not forgotten."""
        if demand.asked_ago is not None:
            self._asked = max(self._asked or 0.0, now - demand.asked_ago)
        return int(self._asked is not None and now - self._asked < policy.remembered)

    def _to_start(self, policy: Policy, running: Running, now: float) -> int:
        """The first replica is not taken away before it could serve: it would never come to it."""
        if running.ready or running.failed or not running.replicas:
            self._starting = None
            return 0
        self._starting = now if self._starting is None else self._starting
        return int(now - self._starting < policy.startup)

    def _keep(self, needs: int, now: float, delay: float) -> None:
        kept = self._needs
        while kept and kept[-1][1] <= needs:
            kept.pop()
        kept.append((now, needs))
        while len(kept) > 1 and now - kept[0][0] >= delay:
            kept.popleft()

    def _asked_for(self, policy: Policy, demand: Demand) -> str:
        under_way = sum(self._loads) / len(self._loads)
        if not under_way and not demand.waiting:
            return "it was asked for"
        return (
            f"{under_way:.3g} requests under way and {demand.waiting} waiting,"
            f" {policy.target} to a replica"
        )


def _rested(policy: Policy, down: int) -> str:
    if down == 0:
        return f"nobody asked for it for {policy.delay:g} s: it wakes with the first request"
    return f"no more than {down} needed for {policy.delay:g} s"


class Scales:
    """Records and decisions of all models, by the uid of their objects."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._wanted: dict[str, int] = {}

    def wanted(self, uid: str) -> int | None:
        """None: nothing was decided since the operator began, so what runs is right."""
        return self._wanted.get(uid)

    def decide(self, uid: str, replicas: int) -> None:
        self._wanted[uid] = replicas

    def record(self, uid: str) -> Record:
        return self._records.setdefault(uid, Record())

    def retain(self, uids: set[str]) -> None:
        """Forget all others: gone, suspended, or not scaled by us any more."""
        for uid in self._records.keys() - uids:
            del self._records[uid]
        for uid in self._wanted.keys() - uids:
            del self._wanted[uid]
