"""Who takes the next request: by tokens, of two that are drawn, and with care for who is new."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from pippin_contract.endpoint import Endpoint
from pippin_gateway.catalog.model import BreakerPolicy, Catalog, Model, ModelSpec, Replica
from pippin_gateway.routing.affinity import BOUND
from pippin_gateway.routing.balance import ANY, DRAWS, FEW, HOMES, SLOW_START, Balance, Prompt
from pippin_gateway.routing.breaker import Breakers

POLICY = BreakerPolicy(failures=1, cooldown=60)
REQUESTS = 6000


def replicas(count: int) -> tuple[Replica, ...]:
    return tuple(Replica(f"r{n}", f"p{n}", Endpoint("h", n)) for n in range(count))


def catalog(*models: Sequence[Replica]) -> Catalog:
    """Of models with these replicas."""
    by_ref = {
        f"n/{number}": Model(ModelSpec("n", str(number), str(number)), tuple(found), f"n/{number}")
        for number, found in enumerate(models)
    }
    ids = frozenset(one.id for found in models for one in found)
    return Catalog(by_ref=by_ref, replica_ids=ids)


def take(
    balance: Balance, among: Sequence[Replica], now: float = 0, prompt: Prompt = ANY
) -> Replica:
    """Pick one, which gets the request."""
    one = balance.pick(among, (), now, POLICY, prompt)
    assert one is not None
    balance.began(one, prompt.tokens)
    return one


def simulated(balance: Balance, count: int, *, by_tokens: bool = True) -> float:
    """Requests of very different sizes, at 85 % of what the replicas can do, each of which works on
    one after the other. The mean time that a request waits for those before it."""
    chance, among = random.Random(7), replicas(count)
    free_at = dict.fromkeys(among, 0.0)
    ends: list[tuple[float, int, Replica, int]] = []
    now = waited = 0.0
    for number in range(REQUESTS):
        now += chance.expovariate(0.85 * count / 500)
        while ends and ends[0][0] <= now:
            _, _, one, tokens = heapq.heappop(ends)
            balance.ended(one, tokens)
        size = min(20_000, int(chance.paretovariate(1.25) * 100))
        counted = size if by_tokens else 1
        one = take(balance, among, now, Prompt(None, counted))
        begins = max(now, free_at[one])
        waited += begins - now
        free_at[one] = begins + size
        heapq.heappush(ends, (begins + size, number, one, counted))
    return waited / REQUESTS


class Drawn(Balance):
    """To compare with: one by chance."""

    def _least_busy(self, able: Sequence[Replica], now: float, tokens: int) -> Replica:
        return able[0]


@pytest.mark.parametrize("count", [4, 16, 17, 100])
def test_requests_wait_less_where_tokens_are_counted(count: int) -> None:
    by_tokens = simulated(Balance(Breakers()), count)
    assert by_tokens < 0.8 * simulated(Balance(Breakers()), count, by_tokens=False)


def test_the_better_of_two_is_nearly_as_good_as_the_best() -> None:
    better = simulated(Balance(Breakers()), FEW + 1)
    assert better < 0.2 * simulated(Drawn(Breakers()), FEW + 1)


@pytest.mark.parametrize("prompt", [ANY, Prompt(beginning=7)])
def test_of_many_replicas_only_some_are_looked_at(prompt: Prompt) -> None:
    class Counting(Breakers):
        asked = 0

        def allows(self, replica: Replica, policy: BreakerPolicy, now: float) -> bool:
            self.asked += 1
            return super().allows(replica, policy, now)

    breakers, among = Counting(), replicas(256)
    breakers.failed(among[0], POLICY, 0)
    balance = Balance(breakers)
    for _ in range(100):
        take(balance, among, 0, prompt)
    assert breakers.asked <= 100 * (2 + HOMES + 1)


def test_of_many_the_only_one_that_may_be_asked_is_found() -> None:
    breakers, among = Breakers(), replicas(100)
    for one in among[:-1]:
        breakers.failed(one, POLICY, 0)
    balance = Balance(breakers)
    assert all(balance.pick(among, (), 1, POLICY) == among[-1] for _ in range(DRAWS))
    assert balance.pick(among, {among[-1].id}, 1, POLICY) is None


def test_a_request_of_many_tokens_counts_as_many() -> None:
    balance, (one, other) = Balance(Breakers()), replicas(2)
    balance.began(one, 5000)
    assert [take(balance, (one, other), 0, Prompt(None, 100)) for _ in range(40)] == [other] * 40
    assert (balance.load(one), balance.load(other), balance.in_flight) == (1, 40, 41)
    balance.ended(one, 5000)
    assert take(balance, (one, other)) == one


@pytest.mark.parametrize("count", [3, 40])
def test_many_prompts_that_begin_alike_do_not_crowd(count: int) -> None:
    balance, among = Balance(Breakers()), replicas(count)
    taken = Counter(take(balance, among, 0, Prompt(7, 100)).id for _ in range(count * 50))
    assert max(taken.values()) <= 50 * BOUND * BOUND
    assert taken.most_common(1)[0][1] > 50, "who knows it gets more than others"


@pytest.mark.parametrize("count", [4, 40])
def test_who_came_to_others_grows_to_a_full_share(count: int) -> None:
    among = replicas(count)
    balance, new = Balance(Breakers()), among[-1]
    balance.retain(catalog(among[:-1]), 0)
    balance.retain(catalog(among), 100)
    taken = {
        age: Counter(take(balance, among, 100 + age).id for _ in range(count * 100))[new.id]
        for age in (0, SLOW_START / 2, SLOW_START)
    }
    assert 5 <= taken[0] <= 15 and taken[SLOW_START] > 95
    assert taken[0] < taken[SLOW_START / 2] < taken[SLOW_START]


def test_where_all_are_new_they_are_equal() -> None:
    """A gateway that starts, a model that starts, and one whose replicas start one by one."""
    balance, old, among = Balance(Breakers()), replicas(9)[6:], replicas(3)
    for now, known in enumerate((old, (*old, *among[:1]), (*old, *among))):
        balance.retain(catalog(old, known[3:]), now * SLOW_START / 2)
    taken = Counter(take(balance, among, SLOW_START).id for _ in range(300))
    assert set(taken.values()) == {100}


def test_who_left_and_came_back_is_new_again() -> None:
    balance, among = Balance(Breakers()), replicas(2)
    for now, known in ((0, among), (100, among[:1]), (200, among)):
        balance.retain(catalog(known), now)
    taken = Counter(take(balance, among, 200).id for _ in range(110))
    assert taken[among[1].id] == 10


def test_a_new_one_that_is_alone_takes_all() -> None:
    balance, among = Balance(Breakers()), replicas(2)
    balance.retain(catalog(among[:1]), 0)
    balance.retain(catalog(among), 100)
    assert balance.pick(among, {among[0].id}, 100, POLICY) == among[1]
