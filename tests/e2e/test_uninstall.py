"""The end: last in the alphabet, since nothing is there after it."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from support.e2e import Cluster

pytestmark = pytest.mark.containers

#: What the chart may make, in any namespace or none.
RELEASE = "app.kubernetes.io/part-of=pippin"
KINDS = (
    "deployments,replicasets,pods,services,configmaps,secrets,serviceaccounts,roles,rolebindings,"
    "clusterroles,clusterrolebindings,networkpolicies,ingresses,poddisruptionbudgets,"
    "validatingadmissionpolicies,validatingwebhookconfigurations,customresourcedefinitions"
)
#: With crds.keep: the kinds (their objects would go with them), and the key that servers trust.
KEPT = {
    "CustomResourceDefinition/apikeys.pippin.dev",
    "CustomResourceDefinition/modeldeployments.pippin.dev",
    "Secret/pippin-gateway-signing",
}


@pytest.mark.skipif(
    "PIPPIN_E2E_MAY_UNINSTALL" not in os.environ, reason="the cluster is not the suite's own"
)
def test_helm_uninstall_leaves_kept_definitions_and_nothing_else(cluster: Cluster):
    assert ours(cluster)
    subprocess.run(
        ["helm", "uninstall", "pippin", "-n", cluster.system_namespace, "--wait"],
        env={**os.environ, "KUBECONFIG": str(cluster.kubectl.kubeconfig)},
        check=True,
        timeout=100,
    )
    # Pods go after their owners, within their grace.
    cluster.kubectl("wait", "pods", "-A", "-l", RELEASE, "--for=delete", "--timeout=50s")
    assert set(ours(cluster)) == KEPT


def ours(cluster: Cluster) -> list[str]:
    """Every object that belongs to the release, by its label."""
    return [_name(item) for item in cluster.kubectl.items(KINDS, "-A", "-l", RELEASE)]


def _name(item: dict[str, Any]) -> str:
    return f"{item['kind']}/{item['metadata']['name']}"
