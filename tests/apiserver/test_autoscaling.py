"""Replicas by load: a real operator asks a real gateway, and a real API server holds the number."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pippin_operator.scaling import LOOKS
from support import pods
from support.eventually import eventually
from support.gateway_process import Process
from support.kubectl_pippin import Typed
from support.manifests import key, model
from support.operator_process import SYSTEM, Cluster, Operator, running_operator
from support.pods_by_hand import account, gateway_pod, known_gateway, pod
from support.upstreams import Turn, Upstream, answer, upstream

#: Looks after which every delay of these tests is over.
MANY = 12
SCALING = {
    "minReplicas": 0,
    "maxReplicas": 4,
    "targetRequestsPerReplica": 2,
    "scaleDownDelay": "300ms",
}


@pytest.fixture(scope="module")
def operator(
    cluster: Cluster, operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """It asks gateways twenty times a second."""
    often = {"PIPPIN_OPERATOR_AUTOSCALE_SECONDS": "0.05"}
    with running_operator(operator_kubeconfig, tmp_path_factory.mktemp("log"), **often) as running:
        yield running


@dataclass
class Scaled:
    """A model that is scaled by load, and what answers for all its replicas."""

    cluster: Cluster
    namespace: str
    gateway: Process
    replica: Upstream
    given: str
    go: asyncio.Event

    async def ask(self) -> int:
        headers = {"authorization": f"Bearer {self.given}"}
        body = {"model": "qwen", "messages": []}
        path, http = "/v1/chat/completions", self.gateway.http
        return (await http.post(path, json=body, headers=headers, timeout=60)).status_code

    async def is_known(self) -> bool:
        """The gateway takes the key and knows the model."""
        headers = {"authorization": f"Bearer {self.given}"}
        return "qwen" in (await self.gateway.http.get("/v1/models", headers=headers)).text

    def serves(self) -> None:
        pod(self.cluster, "qwen-0", self.replica.port, self.namespace, {})

    def crashes(self) -> None:
        account(self.cluster, self.namespace)
        self.cluster.create("pods", pods.pod("qwen-0", self.namespace, "qwen"))
        died = pods.terminated(1, message="ModelCorrupted: model.safetensors is cut off")
        says = pods.waiting("CrashLoopBackOff", died=died)
        self.cluster.set_status("pods", self.namespace, "qwen-0", says)

    async def reaches(self, wanted: int) -> None:
        def found() -> int:
            return replicas(self.cluster, self.namespace)

        await eventually(found, until=lambda seen: seen == wanted, within=20)

    def events(self) -> list[tuple[str, str]]:
        found = self.cluster.list("events", self.namespace)
        return [(one["reason"], one["note"]) for one in found if one["reason"].startswith("Scaled")]


def replicas(cluster: Cluster, namespace: str) -> int:
    found: int = cluster.get("deployments", namespace, "qwen")["spec"]["replicas"]
    return found


async def looks(operator: Operator, count: int = MANY) -> None:
    """Until it has looked so many times more."""
    begin = _lists(operator)
    await eventually(lambda: _lists(operator) >= begin + count, within=20)


def _lists(operator: Operator) -> float:
    name = "pippin_operator_api_requests_total"
    label = 'resource="pods",status="2xx",verb="GET"'
    found = [line for line in operator.read("/metrics").splitlines() if line.startswith(name)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found if label in line)


@pytest.fixture
async def scaled(
    cluster: Cluster, operator: Operator, namespace: str, tmp_path: Path
) -> AsyncIterator[Scaled]:
    cluster.create("modeldeployments", model("qwen", namespace, autoscaling=SCALING))
    cluster.create("apikeys", key("app", namespace))
    status = ("apikeys", namespace, "app")
    await eventually(lambda: cluster.status(*status).get("phase") == "Active")
    go = asyncio.Event()

    async def serve(turn: Turn) -> None:
        await go.wait()
        await turn.send(answer())

    async with known_gateway(cluster, tmp_path) as gateway, upstream(serve) as replica:
        given = Typed(cluster, namespace).held()
        one = Scaled(cluster, namespace, gateway, replica, given, go)
        await eventually(one.is_known)
        yield one
    cluster.delete("pods", namespace, "qwen-0")


async def test_a_model_wakes_grows_with_its_load_and_rests(
    cluster: Cluster, operator: Operator, scaled: Scaled
) -> None:
    status = ("modeldeployments", scaled.namespace, "qwen")
    await eventually(lambda: cluster.status(*status).get("phase") == "ScaledToZero")
    assert replicas(cluster, scaled.namespace) == 0
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(scaled.ask())]
        await scaled.reaches(1)
        scaled.serves()
        await eventually(lambda: len(scaled.replica.requests) == 1)
        asked += [group.create_task(scaled.ask()) for _ in range(7)]
        await scaled.reaches(4)
        await eventually(lambda: cluster.status(*status).get("ready") == "1/4")
        before = cluster.versions(scaled.namespace)
        operator.stop()
        await operator.start()
        await looks(operator)
        assert cluster.versions(scaled.namespace) == before
        gateway_pod(cluster, "gateway-1", 1)
        await eventually(lambda: "pippin_operator_gateways_silent 1.0" in operator.read("/metrics"))
        scaled.go.set()
    assert [one.result() for one in asked] == [200] * 8
    await looks(operator)
    assert replicas(cluster, scaled.namespace) == 4
    cluster.delete("pods", SYSTEM, "gateway-1")
    await scaled.reaches(0)
    await eventually(lambda: cluster.status(*status).get("phase") == "ScaledToZero")
    assert "wakes with the first request" in cluster.condition(*status, "Ready")["message"]
    down = {"ScaledDown", "ScaledToZero"}
    told = await eventually(scaled.events, until=lambda found: down <= dict(found).keys())
    assert any(note.startswith("from 0 to 1 replicas: ") for _, note in told)
    assert "from 4 to 0 replicas: nobody asked for it" in dict(told)["ScaledDown"]
    settled = operator.writes()
    await looks(operator)
    assert operator.writes() == settled


async def test_who_cannot_serve_is_neither_multiplied_nor_woken_while_suspended(
    cluster: Cluster, operator: Operator, scaled: Scaled
) -> None:
    first = asyncio.create_task(scaled.ask())
    await scaled.reaches(1)
    scaled.crashes()
    assert await first == 503
    assert await asyncio.gather(*(scaled.ask() for _ in range(9))) == [503] * 9
    await looks(operator, LOOKS)
    ups = {note.partition(":")[0] for reason, note in scaled.events() if reason == "ScaledUp"}
    assert ups == {"from 0 to 1 replicas"}
    cluster.plane.kubectl(
        *("-n", scaled.namespace, "patch", "mdep/qwen", "--type=merge"),
        *("-p", '{"spec": {"suspend": true}}'),
    )
    await scaled.reaches(0)
    assert await eventually(scaled.ask, until=lambda code: code == 503) == 503
    await looks(operator, LOOKS)
    assert replicas(cluster, scaled.namespace) == 0


async def test_without_a_gateway_what_runs_stays_within_its_bounds(
    cluster: Cluster, operator: Operator, namespace: str
) -> None:
    made = cluster.create("modeldeployments", bounded(namespace, 2, 4))
    await eventually(lambda: replicas(cluster, namespace) == 2, retry=(Exception,))

    def bounds(least: int, most: int) -> None:
        path = cluster.path("modeldeployments", namespace, made["metadata"]["name"])
        cluster.plane.api.update(path, {"spec": bounded(namespace, least, most)["spec"]})

    bounds(0, 4)
    await looks(operator)
    assert replicas(cluster, namespace) == 2
    with pytest.raises(subprocess.CalledProcessError) as refused:
        cluster.plane.kubectl("-n", namespace, "scale", "mdep/qwen", "--replicas=4")
    assert "replicas and autoscaling exclude each other" in str(refused.value.stderr)
    bounds(3, 4)
    await eventually(lambda: replicas(cluster, namespace) == 3)
    bounds(0, 1)
    await eventually(lambda: replicas(cluster, namespace) == 1)
    honored = cluster.condition("modeldeployments", namespace, "qwen", "SpecHonored")
    assert honored["status"] == "True"


def bounded(namespace: str, least: int, most: int) -> dict[str, Any]:
    scaling = {**SCALING, "minReplicas": least, "maxReplicas": most}
    return model("qwen", namespace, autoscaling=scaling)
