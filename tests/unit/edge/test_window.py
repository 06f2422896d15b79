"""The sliding window against an oracle that counts by brute force."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pippin_edge.limits.memory import MemoryStore
from pippin_edge.limits.window import EXACT_UP_TO, SECONDS, TICK, Window

steps = st.lists(st.floats(0, 40, allow_nan=False), max_size=60)


class Oracle:
    """Remembers every event."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def take(self, limit: int, now: float) -> bool:
        inside = sum(now - time < SECONDS for time in self.times)
        if inside < limit:
            self.times.append(now)
        return inside < limit


@given(steps, st.integers(0, 8))
@settings(max_examples=300)
def test_it_lets_in_exactly_what_the_oracle_does(gaps: list[float], limit: int) -> None:
    window, oracle, now = Window(), Oracle(), 1000.0
    for gap in gaps:
        now += gap
        verdict = window.take(limit, now)
        assert verdict.allowed == oracle.take(limit, now)
        inside = sum(now - time < SECONDS for time in oracle.times)
        assert verdict.remaining == limit - inside
        assert (verdict.retry_after == 0) == (inside < limit)


@given(steps, st.integers(1, 8))
@settings(max_examples=300)
def test_retry_after_is_the_first_moment_with_room(gaps: list[float], limit: int) -> None:
    window, now = Window(), 1000.0
    for gap in gaps:
        now += gap
        verdict = window.take(limit, now)
        if verdict.retry_after:
            early = now + verdict.retry_after * 0.999
            assert not _copy(window).take(limit, early).allowed
            assert _copy(window).take(limit, now + verdict.retry_after + 1e-6).allowed


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 6)), max_size=40))
def test_a_changed_limit_holds_at_once(steps: list[tuple[float, int]]) -> None:
    window, oracle, now = Window(), Oracle(), 0.0
    for gap, limit in steps:
        now += gap
        verdict = window.take(limit, now)
        assert verdict.allowed == oracle.take(limit, now)
        if verdict.retry_after:
            later = now + verdict.retry_after + 1e-6
            assert _copy(window).take(limit, later).allowed


def test_a_large_limit_keeps_few_entries_and_never_lets_more_in() -> None:
    limit, window, admitted = EXACT_UP_TO * 2, Window(), 0
    for step in range(40_000):
        admitted += window.take(limit, step * 0.0005).allowed
    assert admitted == limit
    assert len(window._events) <= 20 / TICK + 1


async def test_a_store_keeps_keys_apart_and_forgets_idle_ones() -> None:
    store = MemoryStore()
    assert (await store.take("a", 1, 0)).allowed
    assert (await store.take("b", 1, 0)).allowed
    assert not (await store.take("a", 1, 1)).allowed
    await store.take("b", 1, 200)
    assert len(store) == 1


def _copy(window: Window) -> Window:
    twin = Window()
    twin.used = window.used
    twin._events.extend(list(entry) for entry in window._events)
    return twin
