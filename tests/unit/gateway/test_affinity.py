"""Long prompts that begin alike meet at one replica, without making it the busiest by far."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin_contract.endpoint import Endpoint
from pippin_gateway.catalog.model import BreakerPolicy, Replica
from pippin_gateway.routing import affinity
from pippin_gateway.routing.balance import FEW, SHUN_SECONDS, Balance, Prompt
from pippin_gateway.routing.breaker import Breakers

POLICY = BreakerPolicy()


def replicas(count: int) -> list[Replica]:
    return [Replica(f"uid-{n}/10.0.0.{n}:8000", f"p{n}", Endpoint("h", n)) for n in range(count)]


def pick(balance: Balance, among: list[Replica], beginning: int | None, now: float = 0) -> Replica:
    found = balance.pick(among, (), now, POLICY, Prompt(beginning))
    assert found is not None
    return found


def test_only_the_beginning_and_the_key_count_and_short_prompts_do_not() -> None:
    long = b"x" * affinity.BEGINNING
    assert affinity.prefix("a/k", long + b"one") == affinity.prefix("a/k", long + b"two")
    assert affinity.prefix("a/k", long) != affinity.prefix("a/other", long)
    assert affinity.prefix("a/k", long) != affinity.prefix("a/k", b"y" + long)
    assert affinity.prefix("a/k", long[1:]) is None


def test_prompts_that_different_adapters_read_have_nothing_in_common() -> None:
    long = b"x" * affinity.BEGINNING
    readers = ("", "sql", "poet")
    assert len({affinity.prefix("a/k", long, adapter) for adapter in readers}) == 3
    assert affinity.prefix("a/k", long + b"1", "sql") == affinity.prefix("a/k", long, "sql")


@given(st.integers(0, 2**64 - 1), st.integers(2, 40))
def test_every_gateway_comes_to_the_same_replica_whatever_the_order(
    beginning: int, count: int
) -> None:
    among = replicas(count)
    one = pick(Balance(Breakers()), among, beginning)
    assert pick(Balance(Breakers()), among[::-1], beginning) == one
    fewer = [replica for replica in among if replica != among[0]]
    if one != among[0] and count != FEW + 1:
        assert pick(Balance(Breakers()), fewer, beginning) == one, "others leave it where it is"


@pytest.mark.parametrize(("count", "off"), [(5, 100), (20, 150)])
def test_prompts_are_spread_evenly(count: int, off: int) -> None:
    balance, among = Balance(Breakers()), replicas(count)
    taken = Counter(
        pick(balance, among, affinity.prefix("a/k", b"%d" % n + b"x" * 2000)).id
        for n in range(400 * count)
    )
    assert all(abs(times - 400) < off for times in taken.values()) and len(taken) == count


@given(st.integers(2, 8), st.integers(1, 60))
def test_no_replica_has_more_than_its_share_and_a_quarter(count: int, requests: int) -> None:
    balance, among = Balance(Breakers()), replicas(count)
    taken: Counter[str] = Counter()
    for under_way in range(requests):
        one = pick(balance, among, 7)
        balance.began(one)
        taken[one.id] += 1
        assert taken[one.id] <= math.ceil(affinity.BOUND * (under_way + 1) / count)
    assert max(taken.values()) <= affinity.BOUND * requests / count + 1


def test_one_that_failed_is_passed_over_for_a_moment() -> None:
    balance, among = Balance(Breakers()), replicas(3)
    first = pick(balance, among, 7)
    balance.failed(first, 10)
    assert pick(balance, among, 7, 11) != first
    assert pick(balance, among, 7, 10 + SHUN_SECONDS) == first
    assert balance.pick(among, {first.id}, 20, POLICY, Prompt(7)) not in (first, None)
    assert balance.pick(among, {one.id for one in among}, 20, POLICY, Prompt(7)) is None
