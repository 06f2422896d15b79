"""The pauses of a crash loop are the kubelet's."""

from __future__ import annotations

from pippin_node.backoff import Schedule


def delays(*ran: float) -> list[float]:
    schedule, crashes, found = Schedule(), 0, []
    for seconds in ran:
        crashes = schedule.crashes(crashes, seconds)
        found.append(schedule.delay(crashes))
    return found


def test_the_first_restart_is_at_once_then_pauses_double_up_to_five_minutes() -> None:
    assert delays(*[1] * 9) == [0, 10, 20, 40, 80, 160, 300, 300, 300]


def test_ten_minutes_of_running_are_forgiven() -> None:
    assert delays(1, 1, 1, 600, 1) == [0, 10, 20, 0, 10]


def test_a_loop_of_years_still_has_a_pause() -> None:
    assert Schedule().delay(100_000) == 300
