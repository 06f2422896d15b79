"""What the chart renders, judged by a real API server. Nothing is stored but namespaces."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from cluster.controlplane import ControlPlane

from support.apiserver import new_namespace
from support.chart import CHART, EVERYTHING, PRESETS, Chart, preset_args, select
from support.kubectl import Kubectl, KubectlFailed, kinds_established


@pytest.fixture
def kubectl(control_plane: ControlPlane, chart: Chart) -> Kubectl:
    return Kubectl(chart.helm.with_name("kubectl"), control_plane.kubeconfig)


@pytest.fixture
def release(control_plane: ControlPlane, chart: Chart) -> Chart:
    """The chart in a namespace of its own."""
    return replace(chart, namespace=new_namespace(control_plane))


def dry_run(kubectl: Kubectl, *objects: Any) -> str:
    """Strict validation, admission and defaulting; nothing is stored."""
    return kubectl(
        *("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"),
        *("--force-conflicts",),
        stdin=yaml.safe_dump_all(objects),
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_every_object_is_accepted(kubectl: Kubectl, release: Chart, preset: str) -> None:
    objects = release.objects(*EVERYTHING, preset=preset)
    # The ServiceMonitor's own definition is not part of Kubernetes.
    known = [item for item in objects if item["kind"] != "ServiceMonitor"]
    said = dry_run(kubectl, *known)
    assert said.count("serverside-applied") == len(known)


@pytest.mark.parametrize("preset", PRESETS)
def test_pods_pass_pod_security_restricted(kubectl: Kubectl, release: Chart, preset: str) -> None:
    kubectl(
        *("label", "namespace", release.namespace),
        "pod-security.kubernetes.io/enforce=restricted",
    )
    objects = release.objects(preset=preset)
    # A Pod is admitted only with its ServiceAccount.
    kubectl.apply(*select(objects, "ServiceAccount"))
    for deployment in select(objects, "Deployment"):
        pod = as_pod(deployment, release.namespace)
        if preset == "embedded" and deployment["metadata"]["name"] == "pippin-gateway":
            # A port of the machine is what the preset is for; Pod Security forbids it elsewhere.
            with pytest.raises(KubectlFailed, match="hostPort"):
                dry_run(kubectl, pod)
            del pod["spec"]["containers"][0]["ports"][0]["hostPort"]
        assert "serverside-applied" in dry_run(kubectl, pod)


def test_pod_security_does_refuse_a_pod_that_lacks_the_settings(
    kubectl: Kubectl, release: Chart
) -> None:
    kubectl(
        *("label", "namespace", release.namespace),
        "pod-security.kubernetes.io/enforce=restricted",
    )
    objects = release.objects()
    kubectl.apply(*select(objects, "ServiceAccount"))
    pod = as_pod(select(objects, "Deployment")[0], release.namespace)
    del pod["spec"]["containers"][0]["securityContext"]
    with pytest.raises(KubectlFailed, match="restricted"):
        dry_run(kubectl, pod)


def as_pod(deployment: Any, namespace: str) -> dict[str, Any]:
    template = deployment["spec"]["template"]
    metadata = {"name": deployment["metadata"]["name"], "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": yaml.safe_load(yaml.safe_dump(template["spec"])),
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_the_notes_name_the_way_in_and_hold_manifests_that_work(
    kubectl: Kubectl, release: Chart, preset: str
) -> None:
    notes = printed_notes(kubectl, release, preset)
    assert f"kubectl -n {release.namespace} rollout status" in notes
    way_in = "http://127.0.0.1:8080/v1"
    assert f"URL={way_in}" in notes
    assert ("port-forward" in notes) == (preset != "embedded")
    assert "kubectl describe mdep hello" in notes
    block = re.search(r"<<'EOF'\n(.*?)\nEOF\n", notes, re.DOTALL)
    assert block is not None
    objects = [{**item} for item in yaml.safe_load_all(block[1])]
    assert [item["kind"] for item in objects] == ["ModelDeployment", "APIKey"]
    kubectl("apply", "--server-side", "-f", str(CHART.parents[1] / "crds/modeldeployments.yaml"))
    kubectl("apply", "--server-side", "-f", str(CHART.parents[1] / "crds/apikeys.yaml"))
    kinds_established(kubectl)
    for item in objects:
        item["metadata"]["namespace"] = release.namespace
    assert dry_run(kubectl, *objects).count("serverside-applied") == 2


def printed_notes(kubectl: Kubectl, release: Chart, preset: str) -> str:
    # Nothing is installed; what other tests have put there under the same names does not matter.
    said = release.run(
        *("install", "pippin", str(CHART), "-n", release.namespace, "--dry-run=client"),
        *("--take-ownership", "--set", "crds.install=false"),
        *("--kubeconfig", str(kubectl.kubeconfig)),
        *preset_args(preset),
    )
    return said.partition("NOTES:")[2]
