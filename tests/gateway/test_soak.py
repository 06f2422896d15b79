"""Everything at once, for a while: PIPPIN_SOAK_SECONDS says how long (`make soak`: ten minutes)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pippin_contract.apikeys import MintedKey
from support.eventually import eventually
from support.gateway import new_key
from support.gateway_process import Process, ask, gateway_processes
from support.gateway_world import World
from support.redis import Redis
from support.soak import LIMIT, Faults, Held, Replica, Traffic, held

SECONDS = float(os.environ.get("PIPPIN_SOAK_SECONDS") or 8)
LANES, REPLICAS, GATEWAYS = 6, 3, 2
BUSY = ("pippin_gateway_requests_in_flight{", "pippin_gateway_requests_waiting{")
#: Bytes that a gateway may grow by after the first fifth of the time.
GROWTH = 8 * 1024 * 1024


@pytest.fixture
async def gateways(world: World, redis: Redis, tmp_path: Path) -> AsyncIterator[list[Process]]:
    kubeconfig = world.plane.kubeconfig
    async with gateway_processes(tmp_path, kubeconfig, redis, GATEWAYS) as made:
        yield made


@pytest.fixture
async def replicas(world: World, tmp_path: Path) -> AsyncIterator[list[Replica]]:
    made = [Replica(world, number, tmp_path / f"server-{number}") for number in range(REPLICAS)]
    await asyncio.gather(*(replica.start() for replica in made))
    try:
        yield made
    finally:
        await asyncio.gather(*(replica.close() for replica in made))


async def test_faults_are_not_seen_beyond_the_streams_of_a_killed_replica(
    world: World, gateways: list[Process], replicas: list[Replica], redis: Redis
) -> None:
    key, limited = new_key(), new_key()
    world.key(key)
    world.key(limited, "limited", limits={"rpm": LIMIT})
    world.model()
    await eventually(lambda: _serve(gateways, key), within=20)
    traffic = Traffic(gateways, key, limited)
    tally, over = traffic.tally, asyncio.Event()
    faults = Faults(replicas, redis, tally)
    async with asyncio.TaskGroup() as group:
        warm = group.create_task(_after(SECONDS / 5, gateways))
        for number in range(LANES):
            group.create_task(traffic.lane(number, over))
        await faults.run(min(5.0, SECONDS / 8), SECONDS)
        over.set()
    await eventually(lambda: _at_rest(gateways), within=20)
    after = [held(process) for process in gateways]
    print("\n" + tally.told())
    for one, two in zip(warm.result(), after, strict=True):
        print(f"a gateway: {one}, at the end {two}")

    assert tally.unexplained() == []
    assert len(tally.cut) <= LANES * len(tally.kills)
    # While Redis is away each lets in its share, of what another may have let in just before.
    assert 0 < tally.most_in_a_minute() <= LIMIT + LIMIT // GATEWAYS
    for before, now in zip(warm.result(), after, strict=True):
        assert now.resident - before.resident <= GROWTH
        assert now.files <= before.files + 2 * LANES


async def _serve(gateways: list[Process], key: MintedKey) -> bool:
    words = [{"role": "user", "content": "hello"}]
    answers = [await ask(process, key, messages=words) for process in gateways]
    return all(answer.status_code == 200 for answer in answers)


async def _after(seconds: float, gateways: list[Process]) -> list[Held]:
    await asyncio.sleep(seconds)
    return [held(process) for process in gateways]


async def _at_rest(gateways: list[Process]) -> bool:
    """Nothing under way, nobody waiting."""
    for process in gateways:
        for line in (await process.get("/metrics")).text.splitlines():
            if line.startswith(BUSY) and not line.endswith(" 0.0"):
                return False
    return True
