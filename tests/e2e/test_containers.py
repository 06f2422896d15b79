"""What only nodes that run containers show: GPUs, images, volumes, memory, Pod Security, probes."""

from __future__ import annotations

import os
import signal
import ssl
from typing import Any

import httpx
import openai
import pytest

from support.e2e import Cluster, Tenant
from support.eventually import eventually
from support.manifests import key, model
from support.traffic import stream_once

pytestmark = pytest.mark.containers


async def test_a_gpu_model_gets_the_gpu_and_the_next_one_is_told_why_it_waits(
    cluster: Cluster, tenant: Tenant
):
    gpu = {"type": "nvidia", "count": 1, "product": "NVIDIA-L4"}
    tenant.apply(model("first", tenant.namespace, accelerator=gpu))
    tenant.apply(key("app", tenant.namespace))
    tenant.wait_ready("first")
    (pod,) = tenant.server_pods("first")
    (server,) = pod["spec"]["containers"]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "1"
    node = cluster.kubectl.json("get", "node", pod["spec"]["nodeName"])
    assert node["metadata"]["labels"]["nvidia.com/gpu.product"] == "NVIDIA-L4"
    assert await stream_once(await tenant.client("app"), "first", "on a GPU node")
    tenant.apply(model("second", tenant.namespace, accelerator=gpu))
    scheduled = await tenant.condition("mdep", "second", "Scheduled", "False")
    assert scheduled["reason"] == "InsufficientGPU"
    assert "Insufficient nvidia.com/gpu" in scheduled["message"]


async def test_a_model_for_cpus_stays_off_the_gpu_node(cluster: Cluster, tenant: Tenant):
    tenant.apply(model("plain", tenant.namespace, replicas=2))
    tenant.wait_ready("plain")
    await eventually(lambda: len(tenant.server_pods("plain")) == 2)
    for pod in tenant.server_pods("plain"):
        node = cluster.kubectl.json("get", "node", pod["spec"]["nodeName"])
        assert "nvidia.com/gpu" not in {taint["key"] for taint in node["spec"].get("taints", [])}


async def test_it_serves_where_pod_security_is_restricted(tenant: Tenant):
    label = "pod-security.kubernetes.io/enforce=restricted"
    tenant.cluster.kubectl("label", "namespace", tenant.namespace, label)
    tenant.apply(model("strict", tenant.namespace))
    tenant.wait_ready("strict")


async def test_the_stock_client_streams_through_the_ingress_over_tls(tenant: Tenant):
    tenant.apply(model("echo", tenant.namespace), key("app", tenant.namespace))
    tenant.wait_ready("echo")
    direct = await tenant.client("app")
    url, host = (os.environ[f"PIPPIN_E2E_INGRESS_{name}"] for name in ("URL", "HOST"))

    async def named(request: httpx.Request) -> None:
        """As a resolver would have it: the host's name on the ingress's address."""
        request.headers["host"] = host
        request.extensions["sni_hostname"] = host

    tls = ssl.create_default_context(cafile=os.environ["PIPPIN_E2E_INGRESS_CA"])
    async with httpx.AsyncClient(verify=tls, event_hooks={"request": [named]}) as http:
        client = openai.AsyncOpenAI(api_key=direct.api_key, base_url=f"{url}/v1", http_client=http)
        assert await stream_once(client, "echo", "through the ingress")
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="pp_wrong").models.list()
        # Nothing but the API is open to the outside.
        assert (await http.get(f"{url}/metrics")).status_code == 404


@pytest.mark.parametrize(
    ("spec", "reason", "says"),
    [
        ({"engine": {"image": "127.0.0.1:1/none:1"}}, "ImagePullFailed", "127.0.0.1:1"),
        (
            {"engine": {"type": "mlx"}, "model": {"uri": "pvc://no-such-claim/model"}},
            "NoMatchingNode",
            'persistentvolumeclaim "no-such-claim" not found',
        ),
        ({"resources": {"requests": {"cpu": "1000"}}}, "InsufficientCPU", "Insufficient cpu"),
        ({"resources": {"limits": {"memory": "24Mi"}}}, "OutOfMemory", "resources.limits"),
    ],
    ids=["image", "claim", "cpu", "memory"],
)
async def test_why_it_does_not_serve_is_told_in_the_clusters_own_words(
    tenant: Tenant, spec: dict[str, Any], reason: str, says: str
):
    if "limits" in spec.get("resources", {}):
        spec["resources"]["requests"] = {"memory": "24Mi"}
    tenant.apply(model("stuck", tenant.namespace, **spec))
    ready = await tenant.condition("mdep", "stuck", "Ready", "False", says=says)
    assert ready["reason"] == reason


@pytest.mark.same_machine
@pytest.mark.timeout(300)
async def test_a_server_that_stands_still_is_taken_out_and_restarted(
    cluster: Cluster, tenant: Tenant
):
    tenant.apply(
        model("echo", tenant.namespace, drain={"timeout": "1s"}), key("app", tenant.namespace)
    )
    tenant.wait_ready("echo")
    client = await tenant.client("app")
    (pod,) = tenant.server_pods("echo")
    os.kill(cluster.pids_of(pod)[0], signal.SIGSTOP)
    await tenant.condition("mdep", "echo", "Ready", "False")

    def restarted() -> bool:
        (now,) = tenant.server_pods("echo")
        return bool(now["status"]["containerStatuses"][0]["restartCount"])

    await eventually(restarted, within=120)
    await tenant.condition("mdep", "echo", "Ready", "True")
    assert await stream_once(client, "echo", "alive")
