"""The roles, asked of a real API server: what each account may do, and what not."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from cluster.controlplane import ControlPlane

from pippin_contract import wire
from support.apiserver import new_namespace
from support.chart import Chart, select
from support.kubectl import Kubectl


@dataclass(frozen=True)
class Rights:
    """The rights of one release's service accounts."""

    kubectl: Kubectl
    release: str
    namespace: str

    def may(self, part: str, verb: str, resource: str, name: str = "") -> bool:
        """`resource` as `[group:]plural[/subresource]`; in any namespace, or one there."""
        group, _, rest = resource.rpartition(":")
        plural, _, sub = rest.partition("/")
        asked = {"verb": verb, "group": group, "resource": plural, "subresource": sub}
        if name:
            asked |= {"name": name, "namespace": self.namespace}
        account = f"system:serviceaccount:{self.namespace}:{self.release}-pippin-{part}"
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": account, "resourceAttributes": asked},
        }
        said = self.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review))
        return bool(json.loads(said)["status"]["allowed"])


@pytest.fixture(scope="module")
def rights(control_plane: ControlPlane, chart: Chart) -> Iterator[Rights]:
    kubectl = Kubectl(chart.helm.with_name("kubectl"), control_plane.kubeconfig)
    release = f"t{secrets.token_hex(3)}"
    there = replace(chart, namespace=new_namespace(control_plane))
    objects = there.objects(release=release)
    wanted = [
        item
        for kind in ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
        for item in select(objects, kind)
    ]
    kubectl.apply(*wanted)
    yield Rights(kubectl, release, there.namespace)
    for item in wanted:
        if item["kind"].startswith("Cluster"):
            kubectl("delete", item["kind"], item["metadata"]["name"])


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("watch", "pippin.dev:modeldeployments"),
        ("patch", "pippin.dev:apikeys/status"),
        ("patch", "apps:deployments"),
        ("delete", "services"),
        ("create", "secrets"),
        ("get", "secrets"),
        ("create", "events.k8s.io:events"),
    ],
)
def test_the_operator_may_do_its_work(rights: Rights, verb: str, resource: str) -> None:
    assert rights.may("operator", verb, resource)


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("list", "secrets"),
        ("watch", "secrets"),
        ("delete", "secrets"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("get", "nodes"),
        ("patch", "pippin.dev:modeldeployments"),
        ("delete", "pippin.dev:modeldeployments"),
        ("create", "rbac.authorization.k8s.io:clusterrolebindings"),
        ("create", "serviceaccounts/token"),
        ("impersonate", "users"),
    ],
)
def test_the_operator_may_do_no_more(rights: Rights, verb: str, resource: str) -> None:
    assert not rights.may("operator", verb, resource)


def test_the_gateway_reads_and_writes_nothing(rights: Rights) -> None:
    for resource in ("pippin.dev:modeldeployments", "pippin.dev:apikeys", "pods"):
        assert rights.may("gateway", "list", resource)
        assert rights.may("gateway", "watch", resource)
        assert not rights.may("gateway", "patch", resource)
    for resource in ("secrets", "configmaps", "apps:deployments", "nodes"):
        assert not rights.may("gateway", "get", resource)


def test_the_gateway_follows_one_secret_and_no_other(rights: Rights) -> None:
    for verb in ("list", "watch"):
        assert rights.may("gateway", verb, "secrets", wire.PROVIDERS_SECRET)
        assert not rights.may("gateway", verb, "secrets", wire.SIGNING_SECRET)
        assert not rights.may("gateway", verb, "secrets")
