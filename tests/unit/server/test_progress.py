"""How far a download is, in bytes, percent and seconds."""

from __future__ import annotations

from pippin_server.engines.base import Transfer
from pippin_server.models.sources.progress import Meter


def test_the_time_that_is_left_follows_from_what_was_fetched():
    told: list[tuple[int, str, Transfer | None]] = []
    now = [100.0]
    meter = Meter(lambda *words: told.append(words), lambda: now[0])
    meter.expect(1000)
    meter.skip(500)  # here already, which says nothing of how fast it goes
    now[0] += 10
    meter.add(100)
    assert told[1:] == [(60, "fetching", Transfer(bytes=600, total=1000, eta_seconds=40))]


def test_without_a_total_only_bytes_are_told():
    told: list[tuple[int, str, Transfer | None]] = []
    now = [0.0]
    meter = Meter(lambda *words: told.append(words), lambda: now[0])
    now[0] += 10
    meter.add(100)
    assert told == [(0, "fetching", Transfer(bytes=100, total=None, eta_seconds=None))]


def test_bytes_that_come_twice_count_once():
    told: list[tuple[int, str, Transfer | None]] = []
    meter = Meter(lambda *words: told.append(words), lambda: 0.0)
    meter.expect(100)
    meter.add(60)
    meter.skip(-60)
    meter.add(100)
    assert told[-1][2] == Transfer(bytes=100, total=100, eta_seconds=None)
