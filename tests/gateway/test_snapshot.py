"""A gateway that starts while the API server is away, and one that was without it for too long."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pippin_contract import wire
from pippin_contract.apikeys import MintedKey
from pippin_edge.clock import Clock
from pippin_gateway.catalog.keeper import FILE
from support.eventually import eventually
from support.gateway import new_key, running_gateway
from support.gateway_process import Process, ask, gateway_process
from support.gateway_world import World
from support.upstreams import good, upstream


async def answers(gateway: Process, key: MintedKey, status: int, within: float = 10) -> None:
    async def seen() -> int:
        return (await ask(gateway, key)).status_code

    await eventually(seen, until=lambda code: code == status, within=within)


async def metric(gateway: Process, name: str) -> float:
    text = (await gateway.get("/metrics")).text
    found = {
        sample.name: sample for f in text_string_to_metric_families(text) for sample in f.samples
    }
    value: float = found[f"pippin_gateway_{name}"].value
    return value


async def on_disk(directory: Path, *parts: str) -> None:
    """A snapshot says all this."""
    file = directory / wire.SNAPSHOT_DIR.lstrip("/") / FILE

    def says() -> bool:
        assert file.exists()
        return all(part in file.read_text() for part in parts)

    await eventually(says, within=15)


async def caught_up(gateway: Process) -> bool:
    return (await gateway.get("/ready")).json() == {"status": "ok"}


@pytest.fixture
async def gateway(world: World, tmp_path: Path) -> AsyncIterator[Process]:
    async with gateway_process(tmp_path, world.plane.kubeconfig) as process:
        await process.ready()
        yield process


async def test_a_gateway_that_was_killed_serves_on_without_the_api_server(
    gateway: Process, world: World, tmp_path: Path
) -> None:
    key, revoked, late = new_key(), new_key(), new_key()
    world.model()
    world.key(key)
    world.key(revoked, "revoked")
    async with upstream(good) as replica:
        world.pod("qwen-0", replica.port)
        await answers(gateway, key, 200)
        await answers(gateway, revoked, 200)
        world.key(revoked, "revoked", enabled=False)
        await answers(gateway, revoked, 401)
        await on_disk(tmp_path, '"enabled":false', "qwen-0", key.digest)
        gateway.process.kill()
        await gateway.process.wait()
        world.plane.stop_apiserver(kill=True)
        try:
            async with gateway_process(tmp_path, world.plane.kubeconfig) as again:
                await again.ready()
                told = (await again.get("/ready")).json()
                assert told["reason"].startswith("serving from a snapshot of 20"), told
                assert (await ask(again, key)).status_code == 200
                assert (await ask(again, revoked)).status_code == 401
                assert (await ask(again, new_key())).status_code == 401
                assert await metric(again, "catalog_from_snapshot") == 1
                assert await metric(again, "catalog_age_seconds") > 0
                world.plane.start_apiserver()
                world.key(late, "late")
                world.key(key, enabled=False)
                await answers(again, late, 200)
                await answers(again, key, 401)
                await eventually(lambda: caught_up(again), within=10)
                assert await metric(again, "catalog_from_snapshot") == 0
        finally:
            if not world.plane.api.ok("/readyz"):
                world.plane.start_apiserver()


async def test_a_full_disk_hurts_nobody_and_is_told(
    gateway: Process, world: World, tmp_path: Path
) -> None:
    key = new_key()
    world.model()
    world.key(key)
    pid, log = gateway.process.pid, gateway.log
    async with upstream(good) as replica:
        world.pod("qwen-0", replica.port)
        await answers(gateway, key, 200)
        await on_disk(tmp_path, key.digest)
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (20_000, limits[1]))
        globs = ["*", *(f"{number:060}" for number in range(60))]
        for number in range(4):
            world.key(new_key(), f"long-{number}", models=globs)
        await eventually(lambda: metric(gateway, "snapshot_failing"), within=10)
        assert (await ask(gateway, key)).status_code == 200
        assert (await gateway.get("/ready")).status_code == 200
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        await eventually(
            lambda: metric(gateway, "snapshot_failing"), until=lambda on: not on, within=10
        )
    assert log.read_text().count("snapshot.not_written") == 1


async def test_a_gateway_without_the_api_server_for_too_long_lets_nobody_in(
    tmp_path: Path,
) -> None:
    now = [1_800_000_000.0]
    clock = Clock(wall=lambda: now[0], monotonic=lambda: now[0])
    async with (
        upstream(good) as replica,
        running_gateway(tmp_path, clock=clock, max_staleness_seconds=3600) as gateway,
        gateway.client() as http,
    ):
        gateway.route(replica.port)
        chat = {"model": "qwen", "messages": []}
        gateway.store.disconnected("apikeys", "test")
        now[0] += 3600
        assert (await http.post("/v1/chat/completions", json=chat)).status_code == 200
        told = (await http.get("/ready")).json()
        assert told["reason"].startswith("serving from what was known at 2027-01-15T08:00:00Z")
        now[0] += 1
        refused = await http.post("/v1/chat/completions", json=chat)
        assert refused.status_code == 503 and refused.headers["retry-after"] == "30"
        assert refused.json()["error"]["code"] == "catalog_expired"
        assert "API server" in refused.json()["error"]["message"]
        unready = await http.get("/ready")
        assert unready.status_code == 503 and "maxStalenessSeconds" in unready.json()["reason"]
        assert (await http.get("/livez")).status_code == 200, "a restart would not mend it"
        gateway.store.connected("apikeys")
        assert (await http.post("/v1/chat/completions", json=chat)).status_code == 200
        assert (await http.get("/ready")).json() == {"status": "ok"}
