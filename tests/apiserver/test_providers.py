"""Models of providers outside: what their status says, and the way of their keys to the gateway."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pippin_contract import providers, wire
from pippin_contract.providers import Handed
from support.eventually import eventually
from support.gateway_process import Process, ask, gateway_process
from support.manifests import key, model
from support.operator_process import PATHS, SYSTEM, Cluster, Operator
from support.upstreams import Upstream, upstream

pytestmark = pytest.mark.usefixtures("operator")
FIRST, SECOND = "sk-first-0123456789abcdef", "sk-second-0123456789abcdef"
NAMED = {"name": "provider", "key": "api-key"}


def cloud(namespace: str, url: str = "https://api.example.com/v1", **spec: Any) -> dict[str, Any]:
    external = {"url": url, "provider": "vllm", "apiKeySecretRef": NAMED}
    engine = {"type": "external", "external": external}
    return model("cloud", namespace, engine=engine, **{"resources": None, **spec})


def put_secret(cluster: Cluster, namespace: str, **entries: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "provider"}}
    text = yaml.safe_dump({**secret, "stringData": entries})
    cluster.plane.kubectl("-n", namespace, "apply", "--server-side", "-f-", stdin=text)


async def ready(cluster: Cluster, namespace: str, reason: str) -> dict[str, Any]:
    return await eventually(
        lambda: cluster.condition("modeldeployments", namespace, "cloud", "Ready"),
        until=lambda c: c.get("reason") == reason,
    )


def handed(cluster: Cluster, namespace: str) -> Handed | None:
    """What the operator has handed over for the namespace's model."""
    data = cluster.get("secrets", SYSTEM, wire.PROVIDERS_SECRET).get("data") or {}
    text = data.get(providers.row(namespace, "cloud"))
    return Handed.model_validate_json(base64.b64decode(text)) if text else None


async def taken_back(cluster: Cluster, namespace: str) -> None:
    await eventually(lambda: handed(cluster, namespace) is None)


async def test_it_is_ready_when_its_secret_is_there_and_says_what_is_missing(
    cluster: Cluster, namespace: str
):
    cluster.create("modeldeployments", cloud(namespace))
    missing = await ready(cluster, namespace, "SecretNotFound")
    assert missing["status"] == "False"
    assert "kubectl create secret generic provider --from-literal=api-key=" in missing["message"]
    put_secret(cluster, namespace, token=FIRST)
    assert "key api-key" in (await ready(cluster, namespace, "SecretKeyMissing"))["message"]
    put_secret(cluster, namespace, **{"token": FIRST, "api-key": "no header\nholds this"})
    await ready(cluster, namespace, "KeyMalformed")
    assert handed(cluster, namespace) is None
    put_secret(cluster, namespace, **{"api-key": FIRST + "\n"})
    told = await ready(cluster, namespace, "External")
    assert told["status"] == "True"
    assert "api.example.com (vllm)" in told["message"]
    assert "50 requests a minute, 100000 tokens a minute" in told["message"]
    found = handed(cluster, namespace)
    assert found is not None and found.key == FIRST
    status = cluster.status("modeldeployments", namespace, "cloud")
    shown = {name: status[name] for name in ("phase", "engine", "ready", "url", "replicas")}
    assert shown == {
        **{"phase": "Ready", "engine": "external", "ready": "-", "replicas": 0},
        "url": "http://gateway.example/v1",
    }
    honored = cluster.condition("modeldeployments", namespace, "cloud", "SpecHonored")
    assert honored["status"] == "True"
    for kind in ("deployments", "services", "configmaps"):
        own = [one for one in cluster.list(kind, namespace) if one["metadata"]["name"] == "cloud"]
        assert own == []
    cluster.delete("secrets", namespace, "provider")
    await ready(cluster, namespace, "SecretNotFound")
    await taken_back(cluster, namespace)


async def test_what_it_has_no_use_for_is_named(cluster: Cluster, namespace: str):
    cluster.create("modeldeployments", cloud(namespace, replicas=3, resources={"limits": {}}))
    honored = await eventually(
        lambda: cluster.condition("modeldeployments", namespace, "cloud", "SpecHonored"),
        until=lambda c: c.get("status") == "False",
    )
    assert honored["message"].endswith("replicas, resources")


async def test_the_providers_key_is_nowhere_but_in_the_two_secrets(
    cluster: Cluster, operator: Operator, namespace: str
):
    put_secret(cluster, namespace, **{"api-key": FIRST})
    cluster.create("modeldeployments", cloud(namespace))
    await ready(cluster, namespace, "External")
    places = {kind: yaml.safe_dump(cluster.list(kind, namespace)) for kind in PATHS}
    del places["secrets"]
    places |= {"log": operator.log.read_text(), "metrics": operator.read("/metrics")}
    encoded = base64.b64encode(FIRST.encode()).decode()
    for place, content in places.items():
        assert FIRST not in content and encoded not in content, place


async def test_its_end_is_its_keys_also_when_nobody_looked(
    cluster: Cluster, operator: Operator, namespace: str
):
    put_secret(cluster, namespace, **{"api-key": FIRST})
    cluster.create("modeldeployments", cloud(namespace))
    await ready(cluster, namespace, "External")
    cluster.delete("modeldeployments", namespace, "cloud")
    await taken_back(cluster, namespace)
    cluster.create("modeldeployments", cloud(namespace))
    await ready(cluster, namespace, "External")
    assert handed(cluster, namespace)
    operator.stop()
    cluster.delete("modeldeployments", namespace, "cloud")
    await operator.start()
    await taken_back(cluster, namespace)


async def test_a_lost_secret_of_ours_is_written_again(cluster: Cluster, namespace: str):
    put_secret(cluster, namespace, **{"api-key": FIRST})
    cluster.create("modeldeployments", cloud(namespace))
    await ready(cluster, namespace, "External")
    cluster.delete("secrets", SYSTEM, wire.PROVIDERS_SECRET)
    put_secret(cluster, namespace, **{"api-key": SECOND})

    def written() -> str:
        found = handed(cluster, namespace)
        return found.key if found else ""

    await eventually(written, until=lambda key: key == SECOND, retry=(Exception,))


@pytest.fixture
async def gateway(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Process]:
    """On the same API server, allowed to ask this machine."""
    networks = ["127.0.0.0/8"]
    async with gateway_process(
        tmp_path, cluster.plane.kubeconfig, providerNetworks=networks
    ) as process:
        await process.ready()
        yield process


def shown(provider: Upstream) -> list[str]:
    return [request.headers["authorization"] for request in provider.requests]


async def test_a_changed_key_reaches_the_gateway_and_a_deleted_model_is_gone(
    cluster: Cluster, namespace: str, gateway: Process
):
    put_secret(cluster, namespace, **{"api-key": FIRST})
    cluster.create("apikeys", key("app", namespace))
    async with upstream() as provider:
        url = f"http://127.0.0.1:{provider.port}"
        cluster.create("modeldeployments", cloud(namespace, url))
        await ready(cluster, namespace, "External")
        minted = await eventually(
            lambda: cluster.get("secrets", namespace, "app-apikey")["data"][wire.SECRET_API_KEY],
            retry=(Exception,),
        )
        mine = base64.b64decode(minted).decode()

        async def answered() -> int:
            return (await ask(gateway, mine, model="cloud")).status_code

        await eventually(answered, until=lambda status: status == 200)
        assert set(shown(provider)) == {f"Bearer {FIRST}"}
        put_secret(cluster, namespace, **{"api-key": SECOND})

        async def changed() -> bool:
            assert await answered() == 200
            return shown(provider)[-1] == f"Bearer {SECOND}"

        await eventually(changed)
        cluster.delete("secrets", namespace, "provider")
        await eventually(answered, until=lambda status: status == 503)
        cluster.delete("modeldeployments", namespace, "cloud")
        await eventually(answered, until=lambda status: status == 404)
    log = gateway.log.read_text() + (await gateway.get("/metrics")).text
    assert FIRST not in log and SECOND not in log
    assert json.dumps(url) not in log
