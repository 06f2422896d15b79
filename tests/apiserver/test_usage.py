"""What keys have used, from gateways into statuses: a real operator, API server and gateway."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.eventually import eventually
from support.gateway import model_object
from support.gateway_process import Process
from support.kubectl_pippin import Typed
from support.manifests import key
from support.operator_process import SYSTEM, Cluster, Operator, running_operator
from support.pods_by_hand import gateway_pod, known_gateway, pod
from support.upstreams import upstream


@pytest.fixture(scope="module")
def counting(
    cluster: Cluster, operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """It asks gateways every half second."""
    often = {"PIPPIN_OPERATOR_USAGE_SECONDS": "0.5"}
    with running_operator(operator_kubeconfig, tmp_path_factory.mktemp("log"), **often) as running:
        yield running


@pytest.fixture
async def gateway(cluster: Cluster, counting: Operator, tmp_path: Path) -> AsyncIterator[Process]:
    async with known_gateway(cluster, tmp_path) as running:
        yield running


@pytest.fixture
async def model(cluster: Cluster, namespace: str) -> AsyncIterator[str]:
    async with upstream() as replica:
        spec = {"engine": {"type": "echo"}, "accelerator": {"type": "cpu"}}
        raw = model_object(namespace=namespace, **spec)
        cluster.create("modeldeployments", raw)
        pod(cluster, "qwen-0", replica.port, namespace, {})
        yield "qwen"
    # Gateways of other tests see the whole cluster.
    cluster.delete("pods", namespace, "qwen-0")


async def chat(gateway: Process, given: str, request_id: str = "one") -> int:
    headers = {"authorization": f"Bearer {given}", "x-request-id": request_id}
    body = {"model": "qwen", "messages": []}
    try:
        answer = await gateway.http.post("/v1/chat/completions", json=body, headers=headers)
    except httpx.TransportError:
        return 0
    return answer.status_code


async def test_what_a_key_used_is_in_its_status_and_survives_everybody(
    cluster: Cluster,
    counting: Operator,
    gateway: Process,
    model: str,
    namespace: str,
) -> None:
    cluster.create("apikeys", key("app", namespace, models=["*"]))
    typed = Typed(cluster, namespace)
    await eventually(lambda: cluster.status("apikeys", namespace, "app").get("phase") == "Active")
    given = typed.held()

    async def answered() -> bool:
        return await chat(gateway, given) == 200

    await eventually(answered, within=20)
    assert await chat(gateway, given, "two") == 200

    def used() -> dict[str, Any]:
        found: dict[str, Any] = cluster.status("apikeys", namespace, "app").get("usage", {})
        return found

    await eventually(lambda: used().get("requests") == 2, within=20)
    status = cluster.status("apikeys", namespace, "app")
    usage = status["usage"]
    assert (usage["promptTokens"], usage["completionTokens"], usage["tokensToday"]) == (14, 4, 18)
    (by_model,) = usage["models"]
    assert (by_model["model"], by_model["requests"]) == (f"{namespace}/qwen", 2)
    assert usage["keys"] == [{"id": status["keyId"], "lastUsedAt": status["lastUsedAt"]}]

    counting.stop()
    await counting.start()
    assert await chat(gateway, given, "three") == 200
    await eventually(lambda: used().get("requests") == 3, within=20)
    assert status["conditions"] == cluster.status("apikeys", namespace, "app")["conditions"]

    shown = typed("usage", "app")
    assert f"{namespace}/qwen" in shown and "tokens today" in shown
    assert f"key {status['keyId']} was last used" in shown
    told = explained(typed, "three")
    assert "served by qwen-0" in told and "200" in told and f"key {namespace}/app" not in told
    assert given not in told


def explained(typed: Typed, request_id: str) -> str:
    done: subprocess.CompletedProcess[str] = typed.explain(request_id)
    assert done.returncode == 0, done.stderr
    unknown = typed.explain("never-heard-of")
    assert unknown.returncode != 0 and "no gateway remembers" in unknown.stderr
    return done.stdout


@pytest.fixture
def silent(cluster: Cluster) -> Iterator[str]:
    """A gateway that is Ready and does not answer."""
    gateway_pod(cluster, "gateway-1", 1)
    yield "gateway-1"
    cluster.delete("pods", SYSTEM, "gateway-1")


async def test_a_gateway_that_does_not_tell_is_named_in_the_log(
    counting: Operator, silent: str
) -> None:
    await eventually(lambda: silent in _last(counting.log), within=20)
    assert "cannot be reached" in _last(counting.log)
    assert counting.ready()


def _last(log: Path) -> str:
    lines = [line for line in log.read_text().splitlines() if "usage.not_read" in line]
    return lines[-1] if lines else ""
