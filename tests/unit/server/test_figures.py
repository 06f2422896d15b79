"""What is told of the last minutes, with a clock of the test's own."""

from __future__ import annotations

import pytest

from pippin_server.figures import MIB, SAMPLES, WINDOW, Figures, Memory, memory


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_percentiles_are_of_answers_that_were_given() -> None:
    figures = Figures(Time())
    assert figures.latency().samples == 0 and figures.latency().p99 == 0
    for number in range(1, 101):
        figures.answered(number / 1000)
    latency = figures.latency()
    assert (latency.p50, latency.p95, latency.p99, latency.samples) == (50, 95, 99, 100)


def test_only_the_last_answers_are_remembered() -> None:
    figures = Figures(Time())
    for _ in range(SAMPLES):
        figures.answered(9)
    for _ in range(SAMPLES):
        figures.answered(1)
    assert figures.latency().p99 == 1000
    assert figures.requests == 2 * SAMPLES


def test_throughput_is_of_the_window_or_since_the_start() -> None:
    time = Time()
    figures = Figures(time)
    for _ in range(20):
        figures.answered(0.1)
    time.now += 10
    assert figures.per_second() == 2
    time.now += WINDOW
    assert figures.per_second() == 0
    figures.answered(0.1)
    assert figures.per_second() == pytest.approx(1 / WINDOW)
    assert figures.last_at == time.now and figures.uptime == WINDOW + 10


def test_memory_has_grown_since_the_start() -> None:
    sizes = iter([Memory(10 * MIB, 12 * MIB), Memory(14 * MIB, 20 * MIB)])
    figures = Figures(Time(), lambda: next(sizes))
    assert figures.memory_mb() == {
        "current_mb": 14,
        "peak_mb": 20,
        "initial_mb": 10,
        "growth_mb": 4,
    }


def test_this_process_takes_memory() -> None:
    assert MIB < memory().current <= memory().peak * 1.1
