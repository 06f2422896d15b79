"""What a native node does not run, and how it says so."""

from __future__ import annotations

from typing import Any

import pytest

from pippin_contract import __version__
from support.eventually import eventually
from support.kubectl import Kubectl
from support.nodeagent import (
    IMAGE,
    NodeAgent,
    container,
    event_messages,
    pod,
    processes_of,
    waiting,
)

HOST_PATH = [{"name": "etc", "hostPath": {"path": "/etc"}}]


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"image": "docker.io/library/nginx:1.27"}, "ImageNotAllowed", "pippin-server"),
        ({"image": "pippin-server:0.0.9"}, "ImageVersionMismatch", __version__),
        ({"command": ["/bin/sh"]}, "ContainerNotSupported", "only args"),
        ({"env": [{"name": "LD_PRELOAD", "value": "/x"}]}, "EnvNotAllowed", "LD_PRELOAD"),
    ],
)
async def test_a_container_that_is_not_allowed_fails_the_pod_with_an_event(
    kubectl: Kubectl, node_agent: NodeAgent, changes: dict[str, Any], reason: str, words: str
) -> None:
    kubectl.apply(pod("toy", {**container(), **changes}))
    seen = await eventually(
        lambda: kubectl.json("get", "pod", "toy"), until=lambda p: p["status"]["phase"] == "Failed"
    )
    assert seen["status"]["reason"] == reason
    assert words in seen["status"]["message"]
    await eventually(lambda: event_messages(kubectl, reason))
    assert processes_of(node_agent.pod_dir(seen)) == []
    kubectl("delete", "pod", "toy", "--wait=true", "--timeout=20s")


async def test_a_host_path_outside_of_what_is_allowed_fails_the_pod(kubectl: Kubectl) -> None:
    kubectl.apply(pod("toy", volumes=HOST_PATH))
    seen = await eventually(
        lambda: kubectl.json("get", "pod", "toy"), until=lambda p: p["status"]["phase"] == "Failed"
    )
    assert seen["status"]["reason"] == "HostPathNotAllowed"
    assert "--allow-host-path" in seen["status"]["message"]


async def test_a_deployment_of_a_refused_image_waits_and_does_not_flood_the_cluster(
    kubectl: Kubectl,
) -> None:
    spec = pod("ignored", {**container(), "image": IMAGE.replace(__version__, "9.9.9")})["spec"]
    kubectl.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "toy"},
            "spec": {
                "selector": {"matchLabels": {"app": "toy"}},
                "template": {"metadata": {"labels": {"app": "toy"}}, "spec": spec},
            },
        }
    )
    await eventually(lambda: event_messages(kubectl, "ImageVersionMismatch"))
    pods = kubectl.items("pods")
    assert [one["status"]["phase"] for one in pods] == ["Pending"]
    why = waiting(kubectl, pods[0]["metadata"]["name"])
    assert why["reason"] == "ImageVersionMismatch"
    assert "upgrade pippin-node" in why["message"]
