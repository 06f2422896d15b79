"""The operator over time: outages, missing kinds, optional APIs, rotated tokens, the end."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.controlplane import ControlPlane

from pippin_contract import wire
from support.apiserver import new_namespace, running_control_plane
from support.eventually import eventually
from support.manifests import key, model
from support.operator_process import SYSTEM, Cluster, Operator, install, write_token

MONITOR_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "names": {
            "kind": "ServiceMonitor",
            "plural": "servicemonitors",
            "singular": "servicemonitor",
        },
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}


def monitoring(cluster: Cluster, namespace: str) -> dict[str, Any]:
    return cluster.condition("modeldeployments", namespace, "tiny", "MonitoringReady")


async def test_a_missing_monitoring_api_is_a_condition_and_is_found_when_it_comes(
    cluster: Cluster, operator: Operator, namespace: str
):
    cluster.create("modeldeployments", model("tiny", namespace))
    await eventually(
        lambda: monitoring(cluster, namespace),
        until=lambda c: c.get("reason") == "MonitoringAPIMissing",
    )
    cluster.plane.kubectl("apply", "-f-", stdin=yaml.safe_dump(MONITOR_CRD))
    try:
        await eventually(
            lambda: monitoring(cluster, namespace), until=lambda c: c["status"] == "True"
        )
        monitor = cluster.get("servicemonitors", namespace, "tiny")
        assert monitor["spec"]["selector"]["matchLabels"][wire.LABEL_INSTANCE] == "tiny"
        cluster.plane.kubectl(
            *("-n", namespace, "patch", "mdep/tiny", "--type=merge"),
            *("-p", '{"spec": {"monitoring": {"enabled": false}}}'),
        )
        await eventually(
            lambda: cluster.list("servicemonitors", namespace), until=lambda found: found == []
        )
    finally:
        cluster.plane.kubectl("delete", "crd", "servicemonitors.monitoring.coreos.com")
    await eventually(
        lambda: monitoring(cluster, namespace), until=lambda c: c["reason"] == "Disabled"
    )


async def test_an_optional_kind_that_goes_away_fails_no_model(
    cluster: Cluster, operator: Operator, namespace: str
):
    cluster.plane.kubectl("apply", "-f-", stdin=yaml.safe_dump(MONITOR_CRD))
    try:
        cluster.create("modeldeployments", model("tiny", namespace))
        await eventually(
            lambda: monitoring(cluster, namespace), until=lambda c: c.get("status") == "True"
        )
    finally:
        cluster.plane.kubectl("delete", "crd", "servicemonitors.monitoring.coreos.com")
    # The operator has not looked again yet: it tries to make a monitor, and nobody knows the kind.
    cluster.create("modeldeployments", model("late", namespace))
    ready = await eventually(
        lambda: cluster.condition("modeldeployments", namespace, "late", "Ready"),
        until=lambda c: c.get("reason"),
    )
    assert ready["reason"] != "ReconcileError", ready
    assert cluster.list("deployments", namespace)


async def test_the_signing_key_is_made_once(cluster: Cluster, operator: Operator):
    before = cluster.get("secrets", SYSTEM, wire.SIGNING_SECRET)["data"]
    operator.stop()
    await operator.start()
    assert cluster.get("secrets", SYSTEM, wire.SIGNING_SECRET)["data"] == before


async def test_told_to_end_while_its_watches_begin_it_ends(operator: Operator):
    for _ in range(4):
        assert operator.stop(within=12) == 0
        await operator.start()


async def test_the_charts_empty_signing_secret_is_filled_and_stays_the_charts(
    cluster: Cluster, operator: Operator
):
    operator.stop()
    cluster.delete("secrets", SYSTEM, wire.SIGNING_SECRET)
    labels = {wire.LABEL_MANAGED_BY: "Helm"}
    metadata = {"name": wire.SIGNING_SECRET, "namespace": SYSTEM, "labels": labels}
    cluster.create("secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    await operator.start()
    filled = cluster.get("secrets", SYSTEM, wire.SIGNING_SECRET)
    assert set(filled["data"]) == {wire.SIGNING_CURRENT, wire.SIGNING_NEXT}
    assert filled["metadata"]["labels"] == labels


async def test_two_that_start_together_agree_on_one_signing_key(
    cluster: Cluster, operator: Operator, operator_kubeconfig: Path, tmp_path: Path
):
    operator.stop()
    cluster.delete("secrets", SYSTEM, wire.SIGNING_SECRET)
    other = Operator(operator_kubeconfig, tmp_path / "log")
    try:
        await asyncio.gather(operator.start(), other.start())
    finally:
        other.stop()
    assert set(cluster.get("secrets", SYSTEM, wire.SIGNING_SECRET)["data"]) == {
        wire.SIGNING_CURRENT,
        wire.SIGNING_NEXT,
    }


@pytest.fixture
def own_plane(kubernetes_programs: Path) -> Iterator[ControlPlane]:
    """A control plane that a test may hurt, with controllers."""
    names = ("etcd", "kube-apiserver", "kube-controller-manager")
    with running_control_plane(kubernetes_programs, names) as plane:
        yield plane


@pytest.mark.timeout(240)
async def test_from_missing_kinds_over_an_outage_to_the_end(
    own_plane: ControlPlane, tmp_path: Path
):
    cluster = Cluster(own_plane)
    kubeconfig = install(own_plane, tmp_path)
    own_plane.kubectl("delete", "crd", "--all")
    operator = Operator(kubeconfig, tmp_path / "log")
    starting = asyncio.create_task(operator.start())
    try:
        # It waits for its kinds, and says what to do.
        await eventually(lambda: "CRDs of ModelDeployment and APIKey" in said(operator), within=30)
        install(own_plane, tmp_path)
        await starting
        namespace = new_namespace(own_plane)
        cluster.create("modeldeployments", model("tiny", namespace))
        cluster.create("apikeys", key("app", namespace))
        await settled(cluster, namespace, "tiny")

        own_plane.stop_apiserver()
        write_token_after_start(own_plane, tmp_path)
        cluster.create("modeldeployments", model("after", namespace))
        await settled(cluster, namespace, "after")
        own_plane.kubectl("-n", namespace, "delete", "svc/tiny")
        await eventually(lambda: cluster.get("services", namespace, "tiny"), retry=(Exception,))
        assert operator.process is not None and operator.process.poll() is None

        own_plane.kubectl("-n", namespace, "delete", "mdep,ak", "--all")
        await eventually(lambda: left(cluster, namespace), until=lambda x: x == [], within=60)
    finally:
        starting.cancel()
        if operator.process is not None:
            operator.stop()


def said(operator: Operator) -> str:
    return operator.log.read_text() if operator.log.exists() else ""


def write_token_after_start(plane: ControlPlane, directory: Path) -> None:
    """The node writes a new token from time to time; it is used from then on."""
    plane.start_apiserver()
    write_token(plane, directory)


async def settled(cluster: Cluster, namespace: str, name: str) -> None:
    await eventually(
        lambda: cluster.condition("modeldeployments", namespace, name, "SpecValid"),
        until=lambda c: c.get("status") == "True",
        within=60,
        retry=(Exception,),
    )


def left(cluster: Cluster, namespace: str) -> list[str]:
    """What is there beyond what every namespace has."""
    return [name for name in cluster.versions(namespace) if "kube-root-ca.crt" not in name]


def test_a_wrong_setting_is_named_at_the_start():
    done = run_with({"PIPPIN_OPERATOR_PORT": "70000", "PIPPIN_OPERATOR_CONCURRENCY": "0"})
    assert done.returncode == 78
    assert "port" in done.stderr and "concurrency" in done.stderr
    assert "Traceback" not in done.stderr


def run_with(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pippin_operator", "run"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
