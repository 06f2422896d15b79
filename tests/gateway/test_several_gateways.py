"""Four gateways as processes, one Redis, many clients: limits hold for all of them together."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from pippin_contract.apikeys import MintedKey
from support.eventually import eventually
from support.gateway import ADMIN_TOKEN, new_key
from support.gateway_process import Process, ask, gateway_processes
from support.gateway_world import World
from support.redis import PASSWORD, Redis
from support.upstreams import upstream

GATEWAYS, CLIENTS = 4, 64
HELD = "pippin_gateway_response_cache_bytes "


@pytest.fixture
async def gateways(world: World, redis: Redis, tmp_path: Path) -> AsyncIterator[list[Process]]:
    kubeconfig = world.plane.kubeconfig
    async with gateway_processes(tmp_path, kubeconfig, redis, GATEWAYS) as made:
        for process in made:
            await eventually(lambda process=process: counts(process, "in Redis"), within=10)
        yield made


async def counts(gateway: Process, words: str) -> bool:
    return words in (await gateway.status())["limits"]


async def burst(gateways: list[Process], key: MintedKey, each: int) -> Counter[int]:
    """Every client asks so often, one gateway after the other; how many answers of each status."""
    seen: Counter[int] = Counter()

    async def client(number: int) -> None:
        for turn in range(each):
            gateway = gateways[(number + turn) % len(gateways)]
            seen[(await ask(gateway, key)).status_code] += 1

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return seen


async def test_never_one_request_too_many_and_answers_for_all(
    world: World, gateways: list[Process], redis: Redis
) -> None:
    key, another = new_key(), new_key()
    async with upstream() as replica:
        world.key(key, limits={"rpm": 100})
        world.key(another, "another")
        world.model(responseCache={"enabled": True})
        world.pod("qwen-0", replica.port)
        await eventually(lambda: knows(gateways, key, another), within=10)
        seen = await burst(gateways, key, 5)
        assert seen == {200: 100, 429: CLIENTS * 5 - 100}
        assert len(replica.requests) == 100
        await ask(gateways[0], another, temperature=0)
        await eventually(lambda: redis.ask("KEYS", "pippin:answer:*"))
        for gateway in gateways:
            answered = await ask(gateway, another, temperature=0)
            assert answered.headers["x-pippin-cache"] == "hit"
        assert len(replica.requests) == 101
        admin = {"authorization": f"Bearer {ADMIN_TOKEN}"}
        path = f"/admin/cache/{world.namespace}/qwen"
        assert (await gateways[1].http.delete(path, headers=admin)).status_code == 200
        await eventually(lambda: held(gateways), until=lambda size: size == 0, within=5)
        assert "x-pippin-cache" not in (await ask(gateways[2], another, temperature=0)).headers


async def test_without_redis_each_lets_its_share_in_and_then_they_share_again(
    world: World, gateways: list[Process], redis: Redis
) -> None:
    key, later = new_key(), new_key()
    async with upstream() as replica:
        world.key(key, limits={"rpm": 40})
        world.key(later, "later", limits={"rpm": 40})
        world.model()
        world.pod("qwen-0", replica.port)
        await eventually(lambda: knows(gateways, key, later), within=10)
        # Each hears of the others with its own next sign of life.
        await told_again(redis, gateways)
        redis.kill()
        seen = await burst(gateways, key, 5)
        assert seen == {200: 40, 429: CLIENTS * 5 - 40}
        for gateway in gateways:
            await eventually(lambda gateway=gateway: counts(gateway, "away"), within=5)
        await redis.start()
        for gateway in gateways:
            await eventually(lambda gateway=gateway: counts(gateway, "in Redis"), within=5)
        assert await burst(gateways, key, 1) == {429: CLIENTS}, "it was told what was let in"
        assert (await burst(gateways, later, 2))[200] == 40
    for gateway in gateways:
        assert PASSWORD not in gateway.log.read_text()


async def held(gateways: list[Process]) -> float:
    """Bytes of answers in the gateways' memories."""
    pages = [(await gateway.get("/metrics")).text for gateway in gateways]
    lines = [line for page in pages for line in page.splitlines()]
    return sum(float(line.split()[1]) for line in lines if line.startswith(HELD))


async def test_a_key_that_ends_is_refused_by_all_within_a_second(
    world: World, gateways: list[Process]
) -> None:
    """Deleted, disabled or over: from the API server's word to the last gateway's refusal."""
    keys = [new_key() for _ in range(30)]
    world.model()
    for number, key in enumerate(keys):
        world.key(key, f"app-{number}")
    await eventually(lambda: takes(gateways, keys), within=20)
    took = []
    for number, key in enumerate(keys):
        end(world, key, number)
        since = time.monotonic()
        await asyncio.gather(*(refused(gateway, key) for gateway in gateways))
        took.append(time.monotonic() - since)
    assert max(took) < 1, sorted(took)


def end(world: World, key: MintedKey, number: int) -> None:
    """In one of three ways; it is done when this returns."""
    name = f"app-{number}"
    if number % 3 == 0:
        world.delete(world.keys, name)
    else:
        spec = {"models": ["*"]}
        over = {"enabled": False} if number % 3 == 1 else {"expiresAt": "2026-01-01T00:00:00Z"}
        world.plane.api.update(f"{world.keys}/{name}", {"spec": {**spec, **over}})


async def refused(gateway: Process, key: MintedKey) -> None:
    """Wait until this gateway does not take the key any more."""

    async def status() -> int:
        return (await listing(gateway, key)).status_code

    await eventually(status, until=lambda code: code == 401, within=5)


async def takes(gateways: list[Process], keys: list[MintedKey]) -> bool:
    """Whether every gateway takes every key."""
    asked = [listing(gateway, key) for gateway in gateways for key in keys]
    return all([answer.status_code == 200 for answer in await asyncio.gather(*asked)])


async def listing(gateway: Process, key: MintedKey) -> httpx.Response:
    headers = {"authorization": f"Bearer {key.key}"}
    return await gateway.http.get("/v1/models", headers=headers)


async def told_again(redis: Redis, gateways: list[Process]) -> None:
    """Every gateway has given a sign of life since now."""
    before = redis.ask("TIME")
    since = str(int(before[0]) * 1_000_000 + int(before[1]))
    await eventually(
        lambda: redis.ask("ZCOUNT", "pippin:gateways", since, "+inf"),
        until=lambda fresh: fresh == len(gateways),
        within=10,
    )


async def knows(gateways: list[Process], *keys: MintedKey) -> bool:
    """Whether every gateway takes the keys, by a question that costs nothing."""
    for gateway in gateways:
        status = await gateway.status()
        if status["replicas"] != 1 or status["keys"] < len(keys):
            return False
        for key in keys:
            listed = await listing(gateway, key)
            if listed.status_code != 200 or not listed.json()["data"]:
                return False
    return True
