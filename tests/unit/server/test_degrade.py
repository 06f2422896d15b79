"""Less at once after memory ran out, and all again by itself."""

from __future__ import annotations

import time
from dataclasses import replace

import httpx
import pytest

from pippin_edge.clock import SYSTEM
from pippin_server import settings as told
from pippin_server.app import Surroundings, create_app
from pippin_server.engines.base import Activity, Strain
from pippin_server.engines.echo import EchoEngine
from pippin_server.engines.mlx.degrade import QUIET, Degrade
from support.servers import echo_config


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_time_halves_and_each_quiet_while_doubles() -> None:
    clock = Clock()
    degrade = Degrade(16, clock)
    assert degrade.state() == Strain(False, 16, 16, 0, 0)
    for expected in (8, 4):
        degrade.ran_out(1000)
        assert (degrade.active, degrade.batch) == (True, expected)
    assert degrade.state() == Strain(True, 4, 16, 2, 2000)
    clock.now += QUIET - 1
    assert degrade.batch == 4
    clock.now += 1
    assert (degrade.active, degrade.batch) == (True, 8)
    clock.now += QUIET
    assert degrade.state() == Strain(False, 16, 16, 2, 2000)


def test_trouble_on_the_way_back_halves_again() -> None:
    clock = Clock()
    degrade = Degrade(16, clock)
    for _ in range(3):
        degrade.ran_out(0)
    clock.now += 2 * QUIET
    assert degrade.batch == 8
    degrade.ran_out(0)
    assert degrade.batch == 4
    clock.now += QUIET
    assert degrade.batch == 8


@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_one_at_a_time_is_the_least_and_comes_back_too(batch: int) -> None:
    clock = Clock()
    degrade = Degrade(batch, clock)
    for _ in range(50):
        degrade.ran_out(0)
    assert (degrade.active, degrade.batch) == (True, 1)
    clock.now += 5 * QUIET
    assert (degrade.active, degrade.batch) == (False, batch)


class Strained(EchoEngine):
    def activity(self) -> Activity:
        return replace(super().activity(), strain=Strain(True, 8, 16, 3, 4096))


async def test_whoever_looks_sees_it() -> None:
    config = echo_config()
    engine = Strained(config.echo, context_length=100, clock=time.monotonic)
    around = Surroundings(None, SYSTEM, write_access_line=len)
    server = create_app(told.load({"engine": "echo"}), config, engine, around)
    transport = httpx.ASGITransport(server.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        for path in ("/status", "/internal/diagnostics"):
            assert (await client.get(path)).json()["degraded"] == {
                "active": True,
                "out_of_memory": 3,
                "max_batch": 8,
                "full_batch": 16,
                "freed_bytes": 4096,
            }
        text = (await client.get("/metrics")).text
    assert 'pippin_server_degraded{engine="echo",model="echo"} 1.0' in text
    assert 'pippin_server_out_of_memory_total{engine="echo",model="echo"} 3.0' in text
