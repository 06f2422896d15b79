"""A machine that joins as a Mac serves models for a gateway that runs elsewhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import weights
from cluster.stack import free_port

from pippin_contract import endpoint
from support.e2e import Cluster, Tenant
from support.eventually import eventually
from support.mac import Mac
from support.manifests import key, model, sample
from support.nodeagent import endpoint as endpoint_of
from support.traffic import stream_once

pytestmark = [pytest.mark.same_machine, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def mac(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mac]:
    """PIPPIN_E2E_HOST_ADDRESS: where the cluster's Pods reach this machine, at the usual port."""
    address, port = os.environ.get("PIPPIN_E2E_HOST_ADDRESS", ""), 0
    if not address:
        address = "127.0.0.3"
        port = free_port(address)
    home = tmp_path_factory.mktemp("mac")
    mac = Mac(cluster.kubectl, home, address, port, shared=weights.prepare().parent)
    mac.join()
    mac.start()
    try:
        yield mac
    finally:
        mac.leave()


def on_a_mac(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    return model(name, namespace, accelerator={"type": "apple"}, **spec)


async def test_the_apple_sample_answers_from_a_mac_with_real_weights(mac: Mac, tenant: Tenant):
    spec = {
        "model": {"uri": f"file://{weights.prepare()}", "contextLength": 2048},
        "accelerator": {"memory": "1Gi"},
        "replicas": 1,
    }
    tenant.apply(sample("apple.yaml", **spec), key("app", tenant.namespace))
    tenant.wait_ready("qwen-7b", within=240)
    (pod,) = tenant.server_pods("qwen-7b")
    assert pod["spec"]["nodeName"] == mac.name
    assert "podIP" not in pod["status"]
    reached = endpoint.parse(endpoint_of(pod))
    assert reached.host == mac.address and reached.pin
    client = await tenant.client("app")
    assert await stream_once(client, "gpt-4o-mini", "from a Mac")


async def test_what_no_mac_has_room_for_waits_and_says_so(mac: Mac, tenant: Tenant):
    tenant.apply(on_a_mac("huge", tenant.namespace, resources={"requests": {"memory": "9Ti"}}))
    scheduled = await tenant.condition("mdep", "huge", "Scheduled", "False")
    assert scheduled["reason"] == "InsufficientMemory"
    assert "Insufficient memory" in scheduled["message"]


async def test_a_killed_server_on_a_mac_is_back_at_the_same_address(
    cluster: Cluster, mac: Mac, tenant: Tenant
):
    tenant.apply(on_a_mac("echo", tenant.namespace), key("app", tenant.namespace))
    tenant.wait_ready("echo")
    client = await tenant.client("app")
    assert await stream_once(client, "echo", "before")
    (pod,) = tenant.server_pods("echo")
    for process in cluster.pids_of(pod):
        os.kill(process, signal.SIGKILL)

    def restarted() -> bool:
        (now,) = tenant.server_pods("echo")
        return bool(now["status"]["containerStatuses"][0]["restartCount"])

    await eventually(restarted)
    await tenant.condition("mdep", "echo", "Ready", "True")
    assert await eventually(lambda: stream_once(client, "echo", "after"))
    (now,) = tenant.server_pods("echo")
    assert endpoint_of(now) == endpoint_of(pod)
