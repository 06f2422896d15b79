"""The breaker of a replica: closed, open, tried by a few, closed again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin_contract.endpoint import Endpoint
from pippin_gateway.catalog.model import BreakerPolicy, Replica
from pippin_gateway.routing.balance import Balance
from pippin_gateway.routing.breaker import Breakers, trips
from pippin_gateway.routing.retry import Failure

POLICY = BreakerPolicy(failures=3, cooldown=60, probes=1)
ONE, TWO = (Replica(id=f"r{n}", pod=f"p{n}", endpoint=Endpoint("127.0.0.1", n)) for n in (1, 2))


def opened(at: float = 0) -> Breakers:
    breakers = Breakers()
    for _ in range(POLICY.failures):
        attempt(breakers, False, at)
    return breakers


def attempt(breakers: Breakers, well: bool, now: float) -> None:
    breakers.began(ONE)
    if well:
        breakers.succeeded(ONE)
    else:
        breakers.failed(ONE, POLICY, now)
    breakers.ended(ONE)


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breakers = Breakers()
    assert not breakers.failed(ONE, POLICY, 0) and not breakers.failed(ONE, POLICY, 0)
    assert breakers.allows(ONE, POLICY, 0)
    assert breakers.failed(ONE, POLICY, 0)
    assert not breakers.allows(ONE, POLICY, 59.9)
    assert breakers.open_now() == 1


def test_an_answer_in_between_begins_the_count_anew() -> None:
    breakers = Breakers()
    for well in (False, False, True, False, False):
        attempt(breakers, well, 0)
    assert breakers.allows(ONE, POLICY, 0)


def test_after_the_cooldown_one_request_tries_it_and_closes_it() -> None:
    breakers = opened()
    assert breakers.allows(ONE, POLICY, 60)
    breakers.began(ONE)
    assert not breakers.allows(ONE, POLICY, 60)
    breakers.succeeded(ONE)
    breakers.ended(ONE)
    assert breakers.allows(ONE, POLICY, 60) and breakers.open_now() == 0


def test_a_try_that_fails_opens_it_for_another_cooldown() -> None:
    breakers = opened()
    attempt(breakers, False, 60)
    assert not breakers.allows(ONE, POLICY, 119)
    assert breakers.allows(ONE, POLICY, 120)


def test_a_try_whose_client_left_lets_the_next_one_try() -> None:
    breakers = opened()
    breakers.began(ONE)
    breakers.ended(ONE)
    assert breakers.allows(ONE, POLICY, 60)


def test_what_began_before_it_opened_neither_closes_it_nor_prolongs_it() -> None:
    breakers = opened()
    breakers.succeeded(ONE)
    assert not breakers.failed(ONE, POLICY, 30)
    assert not breakers.allows(ONE, POLICY, 59)
    assert breakers.allows(ONE, POLICY, 60)


def test_a_replica_that_left_and_came_back_begins_anew() -> None:
    breakers = opened()
    breakers.retain(frozenset({TWO.id}))
    assert breakers.allows(ONE, POLICY, 1)


def test_the_wait_is_until_the_first_may_be_tried() -> None:
    breakers = opened(at=10)
    assert breakers.wait([ONE, TWO], POLICY, 12.5) == 58
    assert breakers.wait([ONE], POLICY, 70) == 1


def test_an_open_one_is_not_picked() -> None:
    balance = Balance(opened())
    assert balance.pick([ONE, TWO], (), 1, POLICY) == TWO
    assert balance.pick([ONE], (), 1, POLICY) is None
    assert balance.pick([ONE], (), 60, POLICY) == ONE


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 90)), max_size=60))
def test_whatever_happens_a_cooldown_is_the_longest_that_it_is_left_alone(
    story: list[tuple[bool, int]],
) -> None:
    breakers, now = Breakers(), 0.0
    for well, pause in story:
        now += pause
        if breakers.allows(ONE, POLICY, now):
            attempt(breakers, well, now)
    assert breakers.allows(ONE, POLICY, now + POLICY.cooldown)


@pytest.mark.parametrize("kind", Failure)
def test_draining_distrust_long_answers_and_a_providers_limit_do_not_count(kind: Failure) -> None:
    late = {Failure.REQUEST_TIMEOUT, Failure.TOTAL_TIMEOUT}
    innocent = {Failure.UNAVAILABLE, Failure.REFUSED_TOKEN, Failure.PROVIDER_LIMIT, *late}
    assert trips(kind) == (kind not in innocent)
