"""The manifests that users copy, applied as they are: each does what it says, or says why not."""

from __future__ import annotations

from typing import Any

import pytest

from pippin_contract import __version__
from support.e2e import Cluster, Tenant
from support.eventually import eventually
from support.manifests import SAMPLES, sample
from support.traffic import stream_once

pytestmark = pytest.mark.containers


def test_no_sample_is_left_out():
    seen = {path.name for path in SAMPLES.glob("*.yaml")}
    assert seen == {
        *("echo.yaml", "apikey.yaml", "apikey-existing.yaml"),
        *("cpu.yaml", "nvidia.yaml", "external.yaml", "adapters.yaml"),
        "apple.yaml",  # in test_macs.py
    }


async def test_the_echo_sample_answers_to_both_keys(tenant: Tenant):
    own = "sk-legacy-0123456789abcdefghijklmnopqrstuv"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "legacy-app-key"},
        "stringData": {"api-key": own},
    }
    echo, apikey, legacy = map(sample, ("echo.yaml", "apikey.yaml", "apikey-existing.yaml"))
    apikey["spec"]["models"] = ["*"]
    tenant.apply(echo, apikey, secret, legacy)
    tenant.wait_ready(echo["metadata"]["name"])
    client = await tenant.client(apikey["metadata"]["name"])
    assert await stream_once(client, echo["metadata"]["name"], "with a key of ours")
    await eventually(
        lambda: (
            tenant.kubectl.json("get", "ak", "legacy-app").get("status", {}).get("phase")
            == "Active"
        )
    )
    theirs = client.with_options(api_key=own)
    assert await eventually(lambda: stream_once(theirs, "echo", "with a key of yours"))


@pytest.mark.timeout(400)
async def test_the_cpu_sample_serves_real_weights_from_its_volume(cluster: Cluster, tenant: Tenant):
    tenant.apply(*volume_with(cluster.weights_uri, "models", "smollm2-135m-instruct"))
    tenant.kubectl(
        "wait",
        "pod/fill",
        "--for=jsonpath={.status.phase}=Succeeded",
        "--timeout=120s",
        timeout=130,
    )
    tenant.apply(sample("cpu.yaml"), sample("apikey.yaml", models=["*"]))
    tenant.wait_ready("smollm2", within=240)
    (pod,) = tenant.server_pods("smollm2")
    labels = cluster.kubectl.json("get", "node", pod["spec"]["nodeName"])["metadata"]["labels"]
    assert "nvidia.com/gpu.present" not in labels
    client = await tenant.client(sample("apikey.yaml")["metadata"]["name"])
    assert await stream_once(client, "smollm2", "Write a short story about a cat.")


async def test_the_nvidia_sample_gets_its_gpu(cluster: Cluster, tenant: Tenant):
    """As it is it wants four H100: the scheduler's words. Cut to size it lands on the GPU node."""
    cluster.kubectl.apply(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": "high"},
            "value": 1000,
        }
    )
    tenant.apply(sample("nvidia.yaml"))
    waits = await tenant.condition("mdep", "llama-70b", "Scheduled", "False")
    assert "nodes are available" in waits["message"]
    small = {"requests": {"cpu": "100m", "memory": "1Gi"}}
    tenant.apply(
        sample("nvidia.yaml", accelerator={"count": 1, "product": "NVIDIA-L4"}, resources=small)
    )
    await tenant.condition("mdep", "llama-70b", "Scheduled", "True")
    (pod,) = tenant.server_pods("llama-70b")
    (server,) = pod["spec"]["containers"]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert server["image"] == f"pippin-server:{__version__}-vllm"
    node = cluster.kubectl.json("get", "node", pod["spec"]["nodeName"])
    assert node["metadata"]["labels"]["nvidia.com/gpu.present"] == "true"


async def test_the_external_sample_is_ready_with_the_secret_that_it_names(tenant: Tenant):
    tenant.apply(sample("external.yaml"))
    await tenant.condition("mdep", "gpt-cloud", "Ready", "False", says="Secret openai")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "openai"}}
    tenant.apply({**secret, "stringData": {"api-key": "sk-not-a-real-one"}})
    tenant.kubectl("annotate", "mdep", "gpt-cloud", "example.com/looked-at=now")
    tenant.wait_ready("gpt-cloud")
    assert tenant.server_pods("gpt-cloud") == []


async def test_the_sample_with_adapters_answers_to_each_name(tenant: Tenant):
    """With the engine echo: nobody has these weights."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "object-store"}}
    small = {"requests": {"cpu": "10m", "memory": "64Mi"}}
    adapted = sample("adapters.yaml", engine={"type": "echo"}, resources=small)
    tenant.apply(secret, adapted, sample("apikey.yaml", models=["*"]))
    tenant.wait_ready("qwen")
    client = await tenant.client(sample("apikey.yaml")["metadata"]["name"])
    names = ["qwen", "qwen:sql", "qwen:support"]
    assert sorted([card.id async for card in client.models.list()]) == names
    for name in names:
        assert await stream_once(client, name, "by its name")


def volume_with(weights: str, claim: str, folder: str) -> tuple[dict[str, Any], ...]:
    """A claim, and a Pod that copies the node's weights into a folder of it."""
    return (
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "fill"},
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "fill",
                        "image": f"pippin-server:{__version__}-mlx",
                        "command": ["cp", "-rL", weights.removeprefix("file://"), f"/to/{folder}"],
                        "securityContext": {"runAsUser": 0},
                        "volumeMounts": [
                            {"name": "from", "mountPath": "/models", "readOnly": True},
                            {"name": "to", "mountPath": "/to"},
                        ],
                    }
                ],
                "volumes": [
                    {"name": "from", "hostPath": {"path": "/models"}},
                    {"name": "to", "persistentVolumeClaim": {"claimName": claim}},
                ],
            },
        },
    )
