"""What breaks under a running Pippin, and what clients notice of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import openai
import pytest

from support.e2e import Cluster, Tenant
from support.eventually import eventually
from support.manifests import key, model
from support.traffic import steady, stream_once

pytestmark = [pytest.mark.containers, pytest.mark.same_machine, pytest.mark.timeout(300)]

GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
APART = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": {"matchLabels": {"app.kubernetes.io/instance": "echo"}},
            }
        ]
    }
}


async def serving(tenant: Tenant, **spec: Any) -> None:
    tenant.apply(model("echo", tenant.namespace, **spec), key("app", tenant.namespace))
    tenant.wait_ready("echo")


async def test_a_drained_node_costs_no_request(cluster: Cluster, tenant: Tenant):
    await serving(tenant, replicas=2, tolerations=[GPU_TAINT], affinity=APART)
    await tenant.status("echo", lambda s: s.get("readyReplicas") == 2)
    pods = {pod["spec"]["nodeName"]: pod for pod in tenant.server_pods("echo")}
    (gpu_node,) = [name for name in pods if _has_gpu(cluster, name)]
    async with steady(await tenant.client("app"), "echo") as tally:
        await eventually(lambda: tally.answered >= 5)
        try:
            flags = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s")
            cluster.kubectl("drain", gpu_node, *flags, timeout=100)
            seen = tally.answered
            await eventually(lambda: tally.answered >= seen + 10)
            waits = await tenant.condition("mdep", "echo", "Scheduled", "False")
            assert "unschedulable" in waits["message"]
        finally:
            cluster.kubectl("uncordon", gpu_node)
        await tenant.status("echo", lambda s: s.get("readyReplicas") == 2)
    assert tally.failures == []


async def test_a_killed_kubelet_costs_no_request(cluster: Cluster, tenant: Tenant):
    await serving(tenant)
    (pod,) = tenant.server_pods("echo")
    node = pod["spec"]["nodeName"]
    async with steady(await tenant.client("app"), "echo") as tally:
        await eventually(lambda: tally.answered >= 5)
        killed = kubelet_of(node)
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: kubelet_of(node) != killed, retry=(ValueError,))
        # The new one knows the old one's Pods when it has started another.
        tenant.apply(model("later", tenant.namespace))
        tenant.wait_ready("later")
    assert tally.failures == []
    (now,) = tenant.server_pods("echo")
    assert now["status"]["containerStatuses"][0]["restartCount"] == 0


async def test_a_killed_gateway_costs_its_own_streams_and_nothing_after(
    cluster: Cluster, tenant: Tenant
):
    await serving(tenant)
    system = cluster.kubectl.within(cluster.system_namespace)
    client = await tenant.client("app")
    pods = system.items("pods", "-l", "app.kubernetes.io/component=gateway")
    assert len(pods) == 2
    lanes = 4
    # What the stock client does by itself: it tries again when a connection breaks.
    async with steady(client.with_options(max_retries=4), "echo", lanes=lanes) as tally:
        await eventually(lambda: tally.answered >= 20)
        os.kill(cluster.pids_of(pods[0])[0], signal.SIGKILL)
        seen = tally.answered
        await eventually(lambda: tally.answered >= seen + 50)
        await eventually(lambda: _restarted(system, pods[0]))
    assert len(tally.failures) <= lanes, tally.failures
    broken = ("APIConnectionError", "ended without a finish reason", "RemoteProtocolError")
    assert all(any(word in failure for word in broken) for failure in tally.failures)


async def test_a_killed_operator_comes_back_and_goes_on(cluster: Cluster, tenant: Tenant):
    await serving(tenant)
    system = cluster.kubectl.within(cluster.system_namespace)
    (operator,) = system.items("pods", "-l", "app.kubernetes.io/component=operator")
    deployment = tenant.kubectl.json("get", "deployment", "echo")
    async with steady(await tenant.client("app"), "echo") as tally:
        await eventually(lambda: tally.answered >= 5)
        tenant.apply(model("half", tenant.namespace))
        os.kill(cluster.pids_of(operator)[0], signal.SIGKILL)
        tenant.wait_ready("half")
        assert await eventually(lambda: _restarted(system, operator))
    assert tally.failures == []
    now = tenant.kubectl.json("get", "deployment", "echo")
    assert now["metadata"]["generation"] == deployment["metadata"]["generation"]


async def test_a_model_that_loads_too_long_is_restarted_and_says_so(tenant: Tenant):
    slow = {"type": "echo", "echo": {"loadDelay": "10m"}}
    tenant.apply(
        model("slow", tenant.namespace, engine=slow, probes={"startupTimeout": "10s"}),
        key("app", tenant.namespace),
    )
    await eventually(lambda: _restarts(tenant, "slow"), within=90)
    ready = await tenant.condition("mdep", "slow", "Ready", "False")
    assert ready["reason"] in ("Loading", "CrashLooping"), ready
    assert ready["message"]


async def test_a_wedged_engine_is_restarted(tenant: Tenant):
    wedges = {"type": "echo", "echo": {"wedgeAfter": 3}}
    probes = {"livenessStall": "10s"}
    await serving(tenant, engine=wedges, probes=probes, timeouts={"firstToken": "2s"})
    client = await tenant.client("app")
    for word in ("one", "two"):
        assert await stream_once(client, "echo", word)
    with pytest.raises(openai.InternalServerError, match="no token in time"):
        await stream_once(client, "echo", "three")
    stands = await tenant.condition("mdep", "echo", "Ready", "False")
    assert stands["message"]
    await eventually(lambda: _restarts(tenant, "echo"), within=150)
    await tenant.condition("mdep", "echo", "Ready", "True")
    assert await stream_once(client, "echo", "alive")


def kubelet_of(node: str) -> int:
    """The process of that kind node's kubelet on this machine. Raises ValueError without one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() != "kubelet":
                continue
            if (process / "root/etc/hostname").read_text().strip() == node:
                found.append(int(process.name))
        except OSError:
            continue
    (only,) = found
    return only


def _has_gpu(cluster: Cluster, node: str) -> bool:
    return "nvidia.com/gpu" in cluster.kubectl.json("get", "node", node)["status"]["capacity"]


def _restarted(system: Any, pod: dict[str, Any]) -> bool:
    now = system.json("get", "pod", pod["metadata"]["name"])["status"]["containerStatuses"][0]
    return bool(now["restartCount"] and now["ready"])


def _restarts(tenant: Tenant, name: str) -> int:
    statuses = [
        status
        for pod in tenant.server_pods(name)
        for status in pod["status"].get("containerStatuses", [])
    ]
    return max((int(status["restartCount"]) for status in statuses), default=0)
