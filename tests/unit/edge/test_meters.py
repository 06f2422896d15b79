"""The meters against oracles that count by brute force, and the store that keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from pippin_edge.clock import Clock
from pippin_edge.limits.claims import Claim, Kind
from pippin_edge.limits.memory import MemoryStore
from pippin_edge.limits.meters import DAY, EXACT_UP_TO, SECONDS, TICK, Mark, Window

#: Seconds before a request, and what it asks for.
steps = st.lists(st.tuples(st.floats(0, 40, allow_nan=False), st.integers(1, 4)), max_size=60)


def take(window: Window, limit: int, cost: int, now: float) -> Mark | None:
    return None if window.wait(limit, cost, now) else window.add(limit, cost, now)


@dataclass
class Oracle:
    """Remembers every event as [time, cost]."""

    events: list[list[float]] = field(default_factory=list)

    def used(self, now: float) -> float:
        return sum(cost for time, cost in self.events if now - time < SECONDS)

    def take(self, limit: int, cost: int, now: float) -> bool:
        fits = self.used(now) + cost <= limit
        if fits:
            self.events.append([now, cost])
        return fits


@given(steps, st.integers(0, 8))
@settings(max_examples=300)
def test_it_lets_in_exactly_what_the_oracle_does(
    steps: list[tuple[float, int]], limit: int
) -> None:
    window, oracle, now = Window(), Oracle(), 1000.0
    for gap, cost in steps:
        now += gap
        assert (take(window, limit, cost, now) is not None) == oracle.take(limit, cost, now)
        assert window.used == oracle.used(now)


@given(steps, st.integers(4, 8))
@settings(max_examples=300)
def test_the_wait_is_the_first_moment_with_room(steps: list[tuple[float, int]], limit: int) -> None:
    window, now = Window(), 1000.0
    for gap, cost in steps:
        now += gap
        wait = window.wait(limit, cost, now)
        if not wait:
            window.add(limit, cost, now)
            continue
        assert _copy(window).wait(limit, cost, now + wait * 0.999) > 0
        assert _copy(window).wait(limit, cost, now + wait + 1e-6) == 0


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 6)), max_size=40))
def test_a_changed_limit_holds_at_once(steps: list[tuple[float, int]]) -> None:
    window, oracle, now = Window(), Oracle(), 0.0
    for gap, limit in steps:
        now += gap
        assert (take(window, limit, 1, now) is not None) == oracle.take(limit, 1, now)


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.integers(1, 50), st.integers(0, 90), st.booleans()),
        max_size=40,
    )
)
def test_a_corrected_cost_counts_as_if_it_had_been_known(
    steps: list[tuple[float, int, int, bool]],
) -> None:
    """Each request is settled before the next one, or after it."""
    window, oracle, now, limit = Window(), Oracle(), 0.0, 100
    owed: list[tuple[Mark, list[float], int]] = []
    for gap, guess, true_cost, at_once in steps:
        now += gap
        mark = take(window, limit, guess, now)
        assert (mark is not None) == oracle.take(limit, guess, now)
        if mark is not None:
            owed.append((mark, oracle.events[-1], true_cost))
        while owed and at_once:
            mark, event, cost = owed.pop()
            window.correct(mark, cost - int(event[1]))
            event[1] = cost
        window.expire(now)
        assert window.used == oracle.used(now)


def test_a_large_limit_keeps_few_entries_and_never_lets_more_in() -> None:
    limit, window, admitted = EXACT_UP_TO * 2, Window(), list[float]()
    for step in range(140_000):
        now = step * 0.0005
        if take(window, limit, 1, now):
            admitted.append(now)
    assert len(window._entries) <= SECONDS / TICK + 1
    for last, first in zip(admitted[limit:], admitted, strict=False):
        assert last - first >= SECONDS


@dataclass
class Time:
    now: float = 1000.0
    wall: float = 10 * DAY + 3600.0

    def clock(self) -> Clock:
        return Clock(wall=lambda: self.wall, monotonic=lambda: self.now)


def claim(kind: Kind, limit: int, cost: int = 1, owner: str = "key/a/b") -> Claim:
    return Claim(kind, owner, limit, cost)


def test_all_claims_are_taken_or_none() -> None:
    store = MemoryStore(Time().clock())
    rpm, tpm = claim(Kind.RPM, 5), claim(Kind.TPM, 10, 6)
    verdicts, receipt = store.take([rpm, tpm])
    assert receipt and [verdict.remaining for verdict in verdicts] == [4, 4]
    verdicts, receipt = store.take([rpm, tpm])
    assert receipt is None and [verdict.wait for verdict in verdicts] == [0, SECONDS]
    assert store.take([rpm])[0][0].remaining == 3, "the refused request took nothing"


def test_what_is_settled_makes_room_and_what_was_more_takes_it() -> None:
    store = MemoryStore(Time().clock())
    tpm, flight = claim(Kind.TPM, 10, 6), claim(Kind.CONCURRENCY, 1)
    _, receipt = store.take([tpm, flight])
    assert receipt
    assert store.take([flight])[1] is None
    store.settle(receipt, {"key/a/b": 9})
    verdicts, receipt = store.take([flight, claim(Kind.TPM, 10, 1)])
    assert receipt and verdicts[1].remaining == 0


def test_a_day_ends_at_midnight_utc() -> None:
    time = Time()
    store, day = MemoryStore(time.clock()), claim(Kind.TOKENS_PER_DAY, 10, 10)
    assert store.take([day])[1]
    (refused,), receipt = store.take([day])
    assert receipt is None and refused.wait == DAY - 3600
    time.wall += refused.wait
    assert store.take([day])[1]


def test_owners_are_kept_apart_and_idle_ones_forgotten() -> None:
    time = Time()
    store = MemoryStore(time.clock())
    a, b = claim(Kind.RPM, 1, owner="key/n/a"), claim(Kind.RPM, 1, owner="key/n/b")
    assert store.take([a])[1] and store.take([b])[1]
    assert store.take([a])[1] is None
    time.now += 200
    assert store.take([b])[1]
    assert len(store) == 1


def _copy(window: Window) -> Window:
    twin = Window()
    twin.used = window.used
    twin._entries.extend(list(entry) for entry in window._entries)
    return twin
