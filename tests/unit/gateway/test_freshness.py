"""How old what is known is, when clocks jump."""

from __future__ import annotations

import pytest

from pippin_edge.clock import Clock
from pippin_gateway.catalog.freshness import Freshness
from pippin_gateway.catalog.kinds import KINDS

DAY = 86400.0


class Time:
    """Two clocks, moved by hand."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1_800_000_000.0, 5000.0
        self.clock = Clock(wall=lambda: self.wall, monotonic=lambda: self.monotonic)

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


@pytest.fixture
def time() -> Time:
    return Time()


def test_what_is_followed_has_no_age(time: Time) -> None:
    fresh = Freshness(time.clock, DAY)
    time.passes(10 * DAY)
    assert fresh.age() == 0 and not fresh.expired
    assert fresh.current_at() == dict.fromkeys(KINDS, time.wall)


def test_what_is_not_followed_expires_and_is_good_again_when_it_is(time: Time) -> None:
    fresh = Freshness(time.clock, DAY)
    assert fresh.lost("pods")
    time.passes(DAY)
    assert not fresh.lost("pods") and fresh.age() == DAY and not fresh.expired
    time.passes(1)
    assert fresh.expired
    assert fresh.followed("pods") and not fresh.expired


def test_the_oldest_kind_counts(time: Time) -> None:
    fresh = Freshness(time.clock, DAY)
    fresh.lost("pods")
    time.passes(100)
    fresh.lost("apikeys")
    assert fresh.age() == 100
    assert fresh.current_at()["pods"] == time.wall - 100


def test_a_clock_that_is_set_back_makes_nothing_younger(time: Time) -> None:
    fresh = Freshness(time.clock, DAY)
    fresh.lost("pods")
    time.passes(DAY + 1)
    time.wall -= 10 * DAY
    assert fresh.age() == DAY + 1 and fresh.expired


def test_a_machine_that_slept_counts_the_time(time: Time) -> None:
    fresh = Freshness(time.clock, DAY)
    fresh.lost("pods")
    time.wall += DAY + 1  # the monotonic clock stands still meanwhile
    assert fresh.expired


def test_a_clock_that_is_put_right_hurts_nobody_who_follows(time: Time) -> None:
    fresh = Freshness(time.clock, DAY)
    time.wall += 100 * DAY
    assert not fresh.expired
    fresh.lost("pods")
    assert fresh.age() == 0


def test_what_a_snapshot_said_is_as_old_as_the_snapshot(time: Time) -> None:
    fresh = Freshness(time.clock, DAY)
    fresh.lost("pods")
    fresh.since("pods", time.wall - 1000)
    time.passes(5)
    time.wall -= 10 * DAY
    assert fresh.age() == 1005


def test_a_list_is_current_even_before_it_is_followed(time: Time) -> None:
    fresh = Freshness(time.clock, DAY)
    fresh.since("pods", time.wall - 1000)
    fresh.listed("pods")
    assert fresh.age() == 0 and "pods" in fresh.stale_since
    time.passes(3)
    assert fresh.age() == 3
