"""ServiceMonitors: there when their API is, and what they name is really scraped."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.e2e import Cluster, Tenant
from support.eventually import eventually
from support.kubectl import kinds_established
from support.manifests import key, model
from support.prometheus import Prometheus
from support.traffic import stream_once

pytestmark = pytest.mark.containers

CRD = "servicemonitors.monitoring.coreos.com"
CHART = Path(__file__).parents[2] / "charts/pippin"
#: As the chart's networkPolicy.metricsFrom names it.
NAMESPACE = "monitoring"


@pytest.fixture
def monitoring_api(cluster: Cluster) -> Iterator[None]:
    """The definition as the Prometheus operator ships it, and the chart's own monitors."""
    cluster.kubectl("apply", "--server-side", "-f", os.environ["PIPPIN_E2E_SERVICEMONITOR_CRD"])
    kinds_established(cluster.kubectl)
    upgrade(cluster, "true")
    yield
    upgrade(cluster, "false")
    cluster.kubectl("delete", "crd", CRD)


@pytest.fixture
def prometheus(cluster: Cluster) -> Iterator[Prometheus]:
    yield Prometheus(cluster.kubectl, NAMESPACE)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")


def upgrade(cluster: Cluster, enabled: str) -> None:
    """The release as it is, with or without the chart's ServiceMonitors."""
    command = ["helm", "upgrade", "pippin", str(CHART), "-n", cluster.system_namespace]
    subprocess.run(
        [
            *command,
            "--reuse-values",
            "--set",
            f"monitoring.enabled={enabled},monitoring.interval=1s",
        ],
        env={**os.environ, "KUBECONFIG": str(cluster.kubectl.kubeconfig)},
        check=True,
        capture_output=True,
        timeout=60,
    )


async def test_without_its_api_no_servicemonitor_is_missed(tenant: Tenant):
    tenant.apply(model("echo", tenant.namespace))
    tenant.wait_ready("echo")
    monitoring = await tenant.condition("mdep", "echo", "MonitoringReady", "False")
    assert monitoring["reason"] == "MonitoringAPIMissing"


@pytest.mark.timeout(240)
async def test_a_prometheus_scrapes_what_the_servicemonitors_name(
    cluster: Cluster, tenant: Tenant, monitoring_api: None, prometheus: Prometheus
):
    tenant.apply(
        model("echo", tenant.namespace, monitoring={"interval": "1s"}),
        key("app", tenant.namespace),
    )
    tenant.wait_ready("echo")
    await tenant.condition("mdep", "echo", "MonitoringReady", "True")
    assert await stream_once(await tenant.client("app"), "echo", "to be counted")
    monitors = cluster.kubectl.items("servicemonitors", "-A")
    expected = {
        f"{tenant.namespace}/echo/0",
        f"{cluster.system_namespace}/pippin-gateway/0",
        f"{cluster.system_namespace}/pippin-operator/0",
    }
    prometheus.start(monitors)
    seen = await eventually(
        prometheus.targets,
        until=lambda found: expected <= found.keys() and set(found.values()) == {"up"},
        within=60,
    )
    assert seen.keys() == expected
    (served,) = await eventually(lambda: prometheus.series("pippin_server_requests_total"))
    assert (served["model"], served["code"]) == ("echo", "200")
    counted = prometheus.series("pippin_gateway_requests_total")
    assert any(one.get("model") == f"{tenant.namespace}/echo" for one in counted), counted
