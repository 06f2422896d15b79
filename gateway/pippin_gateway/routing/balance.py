"""Which replica takes the next request: the one with the fewest tokens to work on; a long prompt
goes where one that began like it went, as long as that replica has not much more than its share.

Of many replicas two are drawn, and the better one taken: nearly as even, and no work for each of
them. One that came to others begins with little, since it is cold. One that just failed is passed
over for a moment, and one whose breaker is open for longer, as long as there is another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from ..catalog.model import BreakerPolicy, Catalog, Replica
from . import affinity
from .breaker import Breakers

#: Seconds for which a replica that failed to answer is passed over.
SHUN_SECONDS = 2.0
#: More replicas than these are not all looked at; so often two that may be asked are drawn.
FEW, DRAWS = 16, 8
#: Replicas, of many, that long prompts which begin alike may meet at.
HOMES = 3
#: Seconds in which a replica that came to others grows to a full share, and what it begins with.
SLOW_START, FIRST_SHARE = 30.0, 0.1


class Prompt(NamedTuple):
    """What matters of a request: what it has in common with those that begin alike, and how many
    tokens it will probably take."""

    beginning: int | None = None
    tokens: int = 1


#: One as good as any.
ANY = Prompt()


class _Load:
    """Of one replica, under way."""

    __slots__ = ("requests", "tokens")

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0


class Balance:
    """Requests in flight by replica. `now` is monotonic seconds; `seed` decides what is drawn."""

    def __init__(self, breakers: Breakers, seed: int = 1) -> None:
        self.breakers = breakers
        self._loads: dict[str, _Load] = {}
        self._shunned: dict[str, float] = {}
        self._turn = 0
        self._drawn = seed
        #: When each was first seen, and of those that came to others lately once more.
        self._since: dict[str, float] = {}
        self._young: dict[str, float] = {}
        #: By the sequence itself, which is kept so that no other one has its id.
        self._rings: dict[int, tuple[Sequence[Replica], tuple[int, ...]]] = {}

    @property
    def in_flight(self) -> int:
        return sum(load.requests for load in self._loads.values())

    def load(self, replica: Replica) -> int:
        """Requests in flight there."""
        load = self._loads.get(replica.id)
        return load.requests if load is not None else 0

    def retain(self, catalog: Catalog, now: float) -> None:
        """Forget replicas that left, and take note of those that came."""
        ids = catalog.replica_ids
        self.breakers.retain(ids)
        self._rings.clear()
        self._young = {one: at for one, at in self._young.items() if one in ids}
        came = ids - self._since.keys()
        self._since = {one: self._since.get(one, now) for one in ids}
        if came:
            for model in catalog.by_ref.values():
                self._welcome(model.replicas, came, now)

    def _welcome(self, replicas: Sequence[Replica], came: frozenset[str], now: float) -> None:
        """Where all are new nobody is spared."""
        if any(now - self._since[one.id] >= SLOW_START for one in replicas):
            self._young |= {one.id: now for one in replicas if one.id in came}

    def pick(
        self,
        replicas: Sequence[Replica],
        tried: Collection[str],
        now: float,
        policy: BreakerPolicy,
        prompt: Prompt = ANY,
    ) -> Replica | None:
        """Of those that were not tried and whose breakers let it: the one that may know the
        beginning of the prompt, or the least busy; ties go round."""
        allows = self.breakers.allows

        def may(one: Replica) -> bool:
            return one.id not in tried and allows(one, policy, now)

        if len(replicas) > FEW:
            two = self._draw(replicas, may)
            if len(two) == 2:
                return self._of_many(replicas, two, may, now, prompt)
        quiet = not tried and self.breakers.quiet
        able = replicas if quiet else [one for one in replicas if may(one)]
        return self._of_few(able, now, prompt) if len(able) > 1 else next(iter(able), None)

    def began(self, replica: Replica, tokens: int = 1) -> None:
        self.breakers.began(replica)
        load = self._loads.get(replica.id)
        if load is None:
            load = self._loads[replica.id] = _Load()
        load.requests += 1
        load.tokens += tokens

    def ended(self, replica: Replica, tokens: int = 1) -> None:
        self.breakers.ended(replica)
        load = self._loads[replica.id]
        load.requests -= 1
        load.tokens -= tokens
        if not load.requests:
            del self._loads[replica.id]

    def failed(self, replica: Replica, now: float) -> None:
        self._shunned[replica.id] = now + SHUN_SECONDS

    def _of_few(self, able: Sequence[Replica], now: float, prompt: Prompt) -> Replica:
        if prompt.beginning is not None:
            tokens = prompt.tokens + sum(map(self._tokens, able))
            most = affinity.BOUND * tokens / len(able)
            for home in affinity.ranked(prompt.beginning, able):
                if self._has_room(home, most, now):
                    return home
        return self._least_busy(able, now, prompt.tokens)

    def _of_many(
        self,
        replicas: Sequence[Replica],
        two: list[Replica],
        may: Callable[[Replica], bool],
        now: float,
        prompt: Prompt,
    ) -> Replica:
        least = self._least_busy(two, now, prompt.tokens)
        if prompt.beginning is not None:
            most = affinity.BOUND * (self._tokens(least) + prompt.tokens)
            places = self._places(replicas)
            for home in affinity.homes(prompt.beginning, replicas, places, HOMES):
                if may(home) and self._has_room(home, most, now):
                    return home
        return least

    def _draw(self, replicas: Sequence[Replica], may: Callable[[Replica], bool]) -> list[Replica]:
        """Two that may be asked; fewer when they are not soon found."""
        found: list[Replica] = []
        for _ in range(DRAWS):
            self._drawn = affinity.mixed(self._drawn)
            one = replicas[self._drawn % len(replicas)]
            if one not in found and may(one):
                found.append(one)
                if len(found) == 2:
                    break
        return found

    def _least_busy(self, able: Sequence[Replica], now: float, tokens: int) -> Replica:
        """Beginning with another one each time."""
        self._turn += 1
        first = self._turn % len(able)
        turned = (*able[first:], *able[:first])
        if not self._shunned and not self._young:
            return self._fewest_tokens(turned)

        def burden(one: Replica) -> tuple[bool, float]:
            busy = (self._tokens(one) + tokens) / self._share(one, now)
            return self._is_shunned(one.id, now), busy

        return min(turned, key=burden)

    def _fewest_tokens(self, able: Sequence[Replica]) -> Replica:
        best, fewest, loads = able[0], -1, self._loads
        for one in able:
            load = loads.get(one.id)
            if load is None:
                return one
            if load.tokens < fewest or fewest < 0:
                best, fewest = one, load.tokens
        return best

    def _has_room(self, replica: Replica, most: float, now: float) -> bool:
        """Whether it has less than that, and did not just fail."""
        busy = self._tokens(replica) >= most * self._share(replica, now)
        return not busy and not self._is_shunned(replica.id, now)

    def _tokens(self, replica: Replica) -> int:
        load = self._loads.get(replica.id)
        return load.tokens if load is not None else 0

    def _share(self, replica: Replica, now: float) -> float:
        """Of what it would take if it were as old as the others."""
        if not self._young:
            return 1.0
        since = self._young.get(replica.id)
        if since is None:
            return 1.0
        if now - since >= SLOW_START:
            del self._young[replica.id]
            return 1.0
        return max(FIRST_SHARE, (now - since) / SLOW_START)

    def _places(self, replicas: Sequence[Replica]) -> tuple[int, ...]:
        """Of their ring, looked up once for each state of the cluster."""
        held = self._rings.get(id(replicas))
        if held is None:
            places = affinity.ring(tuple(one.id for one in replicas))
            held = self._rings[id(replicas)] = replicas, places
        return held[1]

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
