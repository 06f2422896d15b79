"""Pods on a native node, from creation to deletion, against a real control plane."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.eventually import eventually
from support.kubectl import Kubectl
from support.nodeagent import IMAGE, NodeAgent, call, container, endpoint, pod


def ready(kubectl: Kubectl, name: str) -> dict[str, Any]:
    """The Pod, once it is Ready; an assertion that fails until then."""
    seen = kubectl.json("get", "pod", name)
    conditions = {c["type"]: c["status"] for c in seen["status"].get("conditions", [])}
    assert conditions.get("Ready") == "True", seen["status"]
    return dict(seen)


def server(seen: dict[str, Any]) -> dict[str, Any]:
    return dict(seen["status"]["containerStatuses"][0])


def events(kubectl: Kubectl, reason: str) -> list[str]:
    found = kubectl.items("events", f"--field-selector=reason={reason}")
    return [event["message"] for event in found]


async def test_a_deployment_becomes_available_and_says_where_it_answers(kubectl: Kubectl) -> None:
    template = pod(
        "ignored", container(readinessProbe={"httpGet": {"path": "/ready", "port": "http"}})
    )
    del template["spec"]["terminationGracePeriodSeconds"]
    kubectl.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "toy"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "toy"}},
                "template": {
                    "metadata": {"labels": {"app": "toy"}},
                    "spec": template["spec"],
                },
            },
        }
    )
    kubectl("rollout", "status", "deployment/toy", "--timeout=30s")
    pods = kubectl.items("pods")
    addresses = {endpoint(one) for one in pods}
    assert len(addresses) == 2
    assert all(address.startswith("http://127.0.0.1:") for address in addresses)
    assert [one["status"].get("podIP") for one in pods] == [None, None]
    assert call(pods[0], "/ready") == b""
