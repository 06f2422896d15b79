"""How many replicas follows from what was asked for lately, and from nothing that is not known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin_operator.api.pods import Autoscaling
from pippin_operator.scaling import LOOKS, Decision, Demand, Policy, Record, Running, Scales

EVERY, DELAY, STARTUP = 2.0, 60.0, 1800.0
IDLE, UNKNOWN = Demand(), Demand(whole=False)


def a_policy(least: int = 0, most: int = 10, target: int = 8, delay: str = "60s") -> Policy:
    spec = Autoscaling(
        min_replicas=least,
        max_replicas=most,
        target_requests_per_replica=target,
        scale_down_delay=delay,
    )
    return Policy.of(spec, STARTUP, EVERY)


def load(in_flight: int = 0, waiting: int = 0) -> Demand:
    return Demand(in_flight=in_flight, waiting=waiting, asked_ago=0.5)


@dataclass
class Model:
    """One that does what is decided; its replicas are ready at once unless a test says how many."""

    policy: Policy = field(default_factory=a_policy)
    replicas: int = 0
    ready: int | None = None
    failed: bool = False
    record: Record = field(default_factory=Record)
    now: float = 1000.0

    def look(self, demand: Demand) -> Decision | None:
        self.now += EVERY
        ready = self.replicas if self.ready is None else self.ready
        running = Running(self.replicas, ready, self.failed)
        decision = self.record.judge(self.policy, demand, running, self.now)
        if decision is not None:
            self.replicas = decision.replicas
        return decision

    def looks(self, demand: Demand, during: float) -> list[int]:
        """The replicas after each look of so many seconds."""
        return [self._after(demand) for _ in range(int(during / EVERY))]

    def _after(self, demand: Demand) -> int:
        self.look(demand)
        return self.replicas


@pytest.mark.parametrize(
    ("demand", "replicas"),
    [
        (IDLE, 0),
        (load(waiting=1), 1),
        (load(waiting=8), 1),
        (load(waiting=9), 2),
        (load(waiting=1000), 10),
        (Demand(asked_ago=59), 1),
        (Demand(asked_ago=61), 0),
        (replace(load(waiting=1), whole=False), 1),
        (UNKNOWN, 0),
    ],
)
def test_from_zero_it_wakes_when_somebody_waits_or_asked(demand: Demand, replicas: int) -> None:
    model = Model()
    model.look(demand)
    assert model.replicas == replicas
    assert type(model.replicas) is int  # the API server takes no other


@pytest.mark.parametrize(
    ("in_flight", "replicas"), [(1, 1), (8, 1), (9, 2), (16, 2), (17, 3), (80, 10), (500, 10)]
)
def test_a_steady_load_gets_its_share_of_replicas(in_flight: int, replicas: int) -> None:
    model = Model(replicas=1)
    model.looks(load(in_flight), during=LOOKS * EVERY)
    assert model.replicas == replicas
    assert model.looks(load(in_flight), during=300) == [replicas] * 150


def test_it_goes_up_at_once_and_tells_why() -> None:
    model = Model(replicas=1)
    decision = model.look(load(in_flight=20, waiting=4))
    assert decision == Decision(3, "20 requests under way and 4 waiting, 8 to a replica")


def test_one_look_with_much_does_not_count_for_many() -> None:
    model = Model(replicas=1)
    model.looks(load(in_flight=4), during=LOOKS * EVERY)
    model.look(load(in_flight=40))
    assert model.replicas == 2


def test_it_goes_down_only_after_the_delay_and_to_what_was_needed_within_it() -> None:
    model = Model(replicas=1)
    model.looks(load(in_flight=32), during=20)
    assert model.replicas == 4
    averaged = LOOKS * EVERY
    assert set(model.looks(load(in_flight=16), during=DELAY)) == {4}
    assert model.looks(load(in_flight=16), during=averaged)[-1] == 2
    assert set(model.looks(load(in_flight=16), during=300)) == {2}


def test_the_last_one_goes_when_nobody_has_asked_for_the_delay_and_says_that_it_wakes() -> None:
    model = Model(replicas=1)
    model.looks(load(in_flight=1), during=20)
    assert set(model.looks(IDLE, during=DELAY)) == {1}
    told = [model.look(IDLE) for _ in range(LOOKS)]
    (decision,) = filter(None, told)
    assert decision.replicas == 0
    assert decision.why == "nobody asked for it for 60 s: it wakes with the first request"


def test_short_requests_between_looks_keep_the_last_one() -> None:
    model = Model(replicas=1)
    assert set(model.looks(Demand(asked_ago=30), during=600)) == {1}


def test_a_request_counts_although_the_gateway_that_had_it_is_gone() -> None:
    model = Model(replicas=1)
    model.looks(Demand(asked_ago=1), during=DELAY + EVERY)
    assert set(model.looks(IDLE, during=DELAY - 2 * EVERY)) == {1}
    assert model.looks(IDLE, during=EVERY * 2)[-1] == 0


def test_the_fewest_stay_however_idle() -> None:
    model = Model(a_policy(least=2), replicas=2)
    assert set(model.looks(IDLE, during=600)) == {2}


def test_an_operator_that_starts_waits_for_the_delay_before_it_takes_anything_away() -> None:
    model = Model(replicas=7)
    assert set(model.looks(IDLE, during=DELAY)) == {7}
    assert model.looks(IDLE, during=EVERY * 2)[-1] == 0


def test_what_is_not_known_is_no_reason_to_go_down_and_the_delay_begins_after_it() -> None:
    model = Model(replicas=3)
    assert set(model.looks(UNKNOWN, during=600)) == {3}
    assert set(model.looks(IDLE, during=DELAY - EVERY)) == {3}
    assert model.looks(IDLE, during=EVERY * 2)[-1] == 0


def test_what_some_gateways_tell_is_a_reason_to_go_up() -> None:
    model = Model(replicas=1)
    model.looks(replace(load(in_flight=40), whole=False), during=LOOKS * EVERY)
    assert model.replicas == 5


def test_a_replica_that_loads_longer_than_the_delay_is_not_taken_away() -> None:
    model = Model(ready=0)
    model.look(load(waiting=1))
    assert set(model.looks(IDLE, during=STARTUP - EVERY)) == {1}
    model.ready = 1
    assert set(model.looks(IDLE, during=DELAY - EVERY)) == {1}
    assert model.looks(IDLE, during=EVERY * 2)[-1] == 0


def test_one_that_never_becomes_ready_is_given_up_when_its_time_to_start_is_over() -> None:
    model = Model(ready=0)
    model.look(load(waiting=1))
    model.looks(IDLE, during=STARTUP)
    assert model.looks(IDLE, during=DELAY + EVERY)[-1] == 0


def test_a_model_that_fails_to_load_is_not_multiplied() -> None:
    model = Model(ready=0)
    model.look(load(waiting=1))
    model.failed = True
    assert set(model.looks(load(waiting=500), during=300)) == {1}
    model.ready = 1
    assert model.look(load(waiting=500)) is not None


def test_one_that_failed_beside_others_that_serve_hinders_nobody() -> None:
    model = Model(replicas=2, ready=1, failed=True)
    model.look(load(waiting=40))
    assert model.replicas == 5


def test_a_model_that_fails_to_load_goes_when_nobody_asks_any_more() -> None:
    model = Model(ready=0)
    model.look(load(waiting=1))
    model.failed = True
    assert model.looks(IDLE, during=DELAY + EVERY)[-1] == 0


def test_what_lies_outside_of_the_bounds_is_no_base_for_a_decision() -> None:
    """The run of the object brings it inside."""
    bounds = a_policy(least=2, most=4)
    assert Model(bounds, replicas=9).look(load(in_flight=100)) is None
    assert Model(bounds, replicas=0).look(UNKNOWN) is None


a_demand = st.builds(
    Demand,
    in_flight=st.integers(0, 100),
    waiting=st.integers(0, 100),
    asked_ago=st.none() | st.floats(0, 200),
    whole=st.booleans(),
)


@given(
    looks=st.lists(a_demand, max_size=60),
    least=st.integers(0, 3),
    extra=st.integers(1, 6),
    delay=st.sampled_from(["0s", "3s", "20s"]),
    replicas=st.integers(0, 9),
)
def test_whatever_is_told_it_keeps_to_the_rules(
    looks: list[Demand], least: int, extra: int, delay: str, replicas: int
) -> None:
    policy = a_policy(least, least + extra, delay=delay)
    model = Model(policy, policy.bounded(replicas))
    past: list[tuple[float, Demand]] = []
    for demand in looks:
        before = model.replicas
        model.look(demand)
        past.append((model.now, demand))
        assert least <= model.replicas <= least + extra
        if demand.waiting:
            enough = policy.bounded(math.ceil(demand.waiting / policy.target))
            assert model.replicas >= enough
        if model.replicas < before:
            lately = [one for at, one in past if model.now - at < policy.delay or one is demand]
            assert all(one.whole for one in lately)
            needed = max(math.ceil(one.waiting / policy.target) for one in lately)
            assert model.replicas >= min(needed, policy.most)
    model.looks(IDLE, during=policy.delay + (LOOKS + 1) * EVERY)
    assert model.replicas == least
    assert [model.look(IDLE) for _ in range(10)] == [None] * 10


def test_only_those_that_are_still_scaled_are_remembered() -> None:
    scales = Scales()
    first: Any = scales.record("a")
    scales.decide("a", 3)
    scales.decide("b", 2)
    assert scales.record("a") is first
    scales.retain({"b"})
    assert (scales.wanted("a"), scales.wanted("b")) == (None, 2)
    assert scales.record("a") is not first
