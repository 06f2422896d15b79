"""Pods on a real API server without nodes: made and given their status by a test."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pippin_contract import wire
from support.gateway import pod_object
from support.gateway_process import Process, gateway_process
from support.operator_process import SYSTEM, Cluster


def pod(cluster: Cluster, name: str, port: int, namespace: str, labels: dict[str, str]) -> None:
    """One that a native node would run, which listens on that port of this machine."""
    account(cluster, namespace)
    raw = pod_object(name, port)
    raw["metadata"]["labels"] |= labels
    raw["metadata"] |= {"namespace": namespace}
    raw["metadata"].pop("uid")
    raw["spec"] = {"containers": [{"name": "it", "image": "it"}]}
    for condition in raw["status"]["conditions"]:
        condition |= {"lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "ByHand"}
    cluster.create("pods", raw)
    cluster.set_status("pods", namespace, name, raw["status"])


def account(cluster: Cluster, namespace: str) -> None:
    """Without controllers nobody makes the one that Pods are admitted with."""
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    cluster.plane.api.ensure(accounts, {"metadata": {"name": "default"}})


def gateway_pod(cluster: Cluster, name: str, port: int) -> None:
    """One that the operator takes for a gateway's."""
    pod(cluster, name, port, SYSTEM, {wire.LABEL_NAME: "pippin-gateway"})


@asynccontextmanager
async def known_gateway(cluster: Cluster, directory: Path) -> AsyncIterator[Process]:
    """A gateway with the token that the operator made, and known to it by a Pod."""
    secret = cluster.get("secrets", SYSTEM, wire.ADMIN_SECRET)
    token = base64.b64decode(secret["data"][wire.ADMIN_TOKEN]).decode()
    async with gateway_process(directory, cluster.plane.kubeconfig, admin_token=token) as running:
        await running.ready()
        gateway_pod(cluster, "gateway-0", running.port)
        try:
            yield running
        finally:
            # Operators of other tests see the whole cluster.
            cluster.delete("pods", SYSTEM, "gateway-0")
