"""The gateway's own process against a real API server: what changes there acts here."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pippin_contract import wire
from pippin_contract.apikeys import MintedKey
from pippin_gateway.catalog.credentials import ProviderKeys
from pippin_gateway.catalog.objects import parse_key, parse_model, parse_pod
from pippin_gateway.catalog.store import CatalogStore
from pippin_gateway.catalog.watch import Cluster, watch_all
from support.eventually import eventually
from support.gateway import new_key
from support.gateway_process import Process, ask, gateway_process
from support.gateway_world import World
from support.upstreams import STREAM_HEAD, Turn, event, good, upstream

#: The promise: a change acts within this time.
SOON = 2.0


@pytest.fixture
async def gateway(world: World, tmp_path: Path) -> AsyncIterator[Process]:
    patience = {"queueTimeoutSeconds": 0}  # so that tests see who is ready
    async with gateway_process(tmp_path, world.plane.kubeconfig, **patience) as process:
        await process.ready()
        yield process


async def answers(gateway: Process, key: MintedKey, status: int, within: float = SOON) -> None:
    async def seen() -> int:
        return (await ask(gateway, key)).status_code

    await eventually(seen, until=lambda code: code == status, within=within)


async def test_a_key_works_when_it_is_minted_and_never_after_it_is_revoked(
    gateway: Process, world: World
) -> None:
    key, other = new_key(), new_key()
    async with upstream(good) as replica:
        world.model()
        world.pod("qwen-0", replica.port)
        world.key(key)
        await answers(gateway, key, 200)
        world.key(key, enabled=False)
        await answers(gateway, key, 401)
        world.key(key, enabled=True)
        await answers(gateway, key, 200)
        world.key(other)  # rotated: only the new one stands in the status
        await answers(gateway, key, 401)
        await answers(gateway, other, 200)
        world.delete(world.keys, "app")
        await answers(gateway, other, 401)


async def test_pods_come_and_go_with_their_readiness(gateway: Process, world: World) -> None:
    key = new_key()
    world.key(key)
    world.model()
    await answers(gateway, key, 503)
    async with upstream(good) as one, upstream(good) as two:
        world.pod("qwen-0", one.port, ready=False)
        world.pod("qwen-1", two.port)
        await answers(gateway, key, 200)
        assert not one.requests
        world.pod("qwen-0", one.port)
        world.pod("qwen-1", two.port, ready=False)

        async def moved() -> bool:
            before = len(one.requests)
            return (await ask(gateway, key)).status_code == 200 and len(one.requests) > before

        await eventually(moved, within=SOON)
        world.delete(world.pods, "qwen-0")
        await answers(gateway, key, 503)


async def test_a_running_stream_goes_on_when_its_pod_stops_being_ready(
    gateway: Process, world: World
) -> None:
    key, go_on = new_key(), asyncio.Event()

    async def halting(turn: Turn) -> None:
        await turn.send(STREAM_HEAD, event("one "))
        await go_on.wait()
        await turn.send(event("two"), b"0\r\n\r\n")

    world.key(key)
    world.model()
    async with upstream(halting) as replica:
        world.pod("qwen-0", replica.port)
        await eventually(lambda: _replicas(gateway), until=bool, within=SOON)
        streaming = asyncio.create_task(ask(gateway, key, stream=True))
        await eventually(lambda: len(replica.requests) == 1, within=SOON)
        world.pod("qwen-0", replica.port, ready=False)
        await eventually(lambda: _replicas(gateway), until=lambda count: count == 0, within=SOON)
        assert (await ask(gateway, key)).status_code == 503
        go_on.set()
        got = await streaming
    assert "one " in got.text and "two" in got.text and "error" not in got.text


async def _replicas(gateway: Process) -> int:
    count: int = (await gateway.status())["replicas"]
    return count


async def test_traffic_goes_on_while_the_api_server_is_away_and_changes_act_after(
    gateway: Process, world: World
) -> None:
    key = new_key()
    world.key(key)
    world.model()
    async with upstream(good) as replica:
        world.pod("qwen-0", replica.port)
        await answers(gateway, key, 200)
        world.plane.stop_apiserver(kill=True)  # politely it waits for those who watch
        try:
            await eventually(lambda: _stale(gateway), within=10)
            end = asyncio.get_running_loop().time() + 5
            while asyncio.get_running_loop().time() < end:
                assert (await ask(gateway, key)).status_code == 200
                assert (await gateway.get("/ready")).status_code == 200
            assert 'watch_connected{kind="pods"} 0.0' in (await gateway.get("/metrics")).text
        finally:
            world.plane.start_apiserver()
        world.key(key, enabled=False)
        await answers(gateway, key, 401, within=10)

        async def synced() -> bool:
            return all(kind["synced"] for kind in (await gateway.status())["synced"].values())

        await eventually(synced, within=10)
        assert 'watch_connected{kind="pods"} 1.0' in (await gateway.get("/metrics")).text


async def _stale(gateway: Process) -> bool:
    synced = (await gateway.status())["synced"]
    return all(kind["false_since"] and not kind["synced"] for kind in synced.values())


async def test_it_is_not_ready_before_it_may_look_and_reads_its_token_again(
    world: World, tmp_path: Path
) -> None:
    """A kubeconfig as the node agent writes it: the token lies in a file that changes."""
    api, name = world.plane.api, f"gateway-{world.namespace}"
    accounts = f"/api/v1/namespaces/{world.namespace}/serviceaccounts"
    api.create(accounts, {"metadata": {"name": name}})
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    read = {"verbs": ["get", "list", "watch"]}
    rules = [
        {**read, "apiGroups": [wire.GROUP], "resources": [wire.APIKEYS, wire.MODELDEPLOYMENTS]},
        {**read, "apiGroups": [""], "resources": ["pods"]},
    ]
    api.create(f"{rbac}/clusterroles", {"metadata": {"name": name}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": name, "namespace": world.namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    binding = {"metadata": {"name": name}, "subjects": [subject], "roleRef": role}
    api.create(f"{rbac}/clusterrolebindings", binding)
    token = tmp_path / "token"
    token.write_text("not-a-token")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [
                    {
                        "name": "c",
                        "cluster": {
                            "server": world.plane.url,
                            "certificate-authority": str(world.plane.authority),
                        },
                    }
                ],
                "users": [{"name": "u", "user": {"tokenFile": str(token)}}],
            }
        )
    )
    async with gateway_process(tmp_path, kubeconfig) as gateway:
        await eventually(lambda: _stale(gateway), within=20)
        got = await gateway.get("/ready")
        assert got.status_code == 503 and "first list" in got.json()["reason"]
        assert (await ask(gateway, new_key())).status_code == 503
        asked = api.create(f"{accounts}/{name}/token", {"spec": {"expirationSeconds": 3600}})
        token.write_text(asked["status"]["token"])
        await gateway.ready()


async def test_sigterm_finishes_what_runs_and_leaves_with_zero(
    world: World, tmp_path: Path
) -> None:
    key, go_on = new_key(), asyncio.Event()

    async def halting(turn: Turn) -> None:
        await turn.send(STREAM_HEAD, event("one "))
        await go_on.wait()
        await turn.send(event("two"), b"0\r\n\r\n")

    world.key(key)
    world.model()
    async with (
        upstream(halting) as replica,
        gateway_process(tmp_path, world.plane.kubeconfig, drainTimeoutSeconds=10) as gateway,
    ):
        world.pod("qwen-0", replica.port)
        await gateway.ready()
        await eventually(lambda: _replicas(gateway), until=bool, within=SOON)
        streaming = asyncio.create_task(ask(gateway, key, stream=True))
        await eventually(lambda: len(replica.requests) == 1, within=SOON)
        gateway.process.send_signal(signal.SIGTERM)

        async def unready() -> bool:
            got = await gateway.get("/ready")
            return got.status_code == 503 and got.json()["reason"] == "draining"

        await eventually(unready, within=1)
        go_on.set()
        assert "two" in (await streaming).text
        assert await asyncio.wait_for(gateway.process.wait(), 8) == 0
        line = json.loads(
            next(line for line in gateway.log.read_text().splitlines() if '"request"' in line)
        )
        assert line["key"] == f"{world.namespace}/app" and line["status"] == 200


async def test_what_the_watch_feeds_is_what_the_objects_say(world: World) -> None:
    """The seam that other tests feed by hand holds the same as what arrives by watch."""
    store = CatalogStore()
    cluster = Cluster.load(world.plane.kubeconfig)
    watching = asyncio.create_task(watch_all(cluster, store, ProviderKeys(), "pippin-system"))
    try:
        await eventually(lambda: store.ready, within=10)
        key = world.key(new_key(), models=["a*"], limits={"rpm": 3})
        model = world.model(timeouts={"total": "9s"}, model={"aliases": ["b"]})
        pod = world.pod("qwen-0", 12345)
        wanted = CatalogStore()
        wanted.replace("apikeys", [key])
        wanted.replace("modeldeployments", [model])
        wanted.replace("pods", [pod])
        wanted.refresh()

        def mine(catalog: CatalogStore) -> object:
            names = catalog.catalog.by_name
            return {name: found for name, found in names.items() if name[0] == world.namespace}

        assert mine(wanted)
        await eventually(lambda: mine(store) == mine(wanted), within=SOON)
        assert parse_key(key) and parse_model(model) and parse_pod(pod).replica
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
