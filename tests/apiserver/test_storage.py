"""Volumes for weights, under the chart's own rights: made once, grown, kept or not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pippin_contract import wire
from support.eventually import eventually
from support.manifests import model
from support.operator_process import Cluster, Operator

GROWS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "grows"},
    "provisioner": "example.com/none",
    "allowVolumeExpansion": True,
}


def stored(namespace: str, **storage: Any) -> dict[str, Any]:
    return model(
        "tiny",
        namespace,
        model={"uri": "hf://org/tiny"},
        engine={"type": "mlx"},
        storage={"size": "1Gi", "storageClassName": "grows"} | storage,
    )


def apply(cluster: Cluster, manifest: dict[str, Any]) -> None:
    cluster.plane.kubectl("apply", "--server-side", "-f-", stdin=json.dumps(manifest))


@pytest.fixture
def classes(cluster: Cluster) -> None:
    apply(cluster, GROWS)


async def claim(cluster: Cluster, namespace: str, until: Any = lambda found: found) -> Any:
    return await eventually(
        lambda: cluster.get("persistentvolumeclaims", namespace, "tiny-weights"),
        until=until,
        retry=(Exception,),
    )


def room(found: dict[str, Any]) -> str:
    size: str = found["spec"]["resources"]["requests"]["storage"]
    return size


@pytest.mark.usefixtures("operator", "classes")
async def test_a_volume_is_made_grown_when_it_is_bound_and_never_made_smaller(
    cluster: Cluster, namespace: str
):
    apply(cluster, stored(namespace))
    made = await claim(cluster, namespace)
    assert (room(made), made["spec"]["storageClassName"]) == ("1Gi", "grows")
    assert "ownerReferences" not in made["metadata"]
    pod = cluster.get("deployments", namespace, "tiny")["spec"]["template"]["spec"]
    (cache,) = [volume for volume in pod["volumes"] if volume["name"] == "cache"]
    assert cache["persistentVolumeClaim"] == {"claimName": "tiny-weights"}
    cluster.set_status("persistentvolumeclaims", namespace, "tiny-weights", {"phase": "Bound"})
    apply(cluster, stored(namespace, size="3Gi"))
    await claim(cluster, namespace, lambda found: room(found) == "3Gi")
    apply(cluster, stored(namespace, size="2Gi", retain=False))
    owned = await claim(cluster, namespace, lambda found: found["metadata"].get("ownerReferences"))
    assert room(owned) == "3Gi"
    assert owned["metadata"]["ownerReferences"][0]["name"] == "tiny"
    apply(cluster, stored(namespace, retain=True))
    await claim(cluster, namespace, lambda found: "ownerReferences" not in found["metadata"])


@pytest.mark.usefixtures("operator", "classes")
async def test_a_volume_that_was_kept_serves_the_next_of_its_name(cluster: Cluster, namespace: str):
    cluster.create("modeldeployments", stored(namespace))
    first = await claim(cluster, namespace)
    cluster.delete("modeldeployments", namespace, "tiny")
    for kind, name in (
        ("deployments", "tiny"),
        ("services", "tiny"),
        ("configmaps", "tiny-server"),
    ):
        cluster.delete(kind, namespace, name)  # no garbage collector runs here
    cluster.create("modeldeployments", stored(namespace, retain=False))
    again = await claim(cluster, namespace, lambda found: found["metadata"].get("ownerReferences"))
    assert again["metadata"]["uid"] == first["metadata"]["uid"]


@pytest.mark.usefixtures("operator")
async def test_a_claim_of_somebody_elses_is_named_and_left_alone(cluster: Cluster, namespace: str):
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    theirs = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "tiny-weights", "namespace": namespace},
        "spec": spec,
    }
    cluster.create("persistentvolumeclaims", theirs)
    cluster.create("modeldeployments", stored(namespace, size="9Gi"))
    told = await eventually(
        lambda: cluster.condition("modeldeployments", namespace, "tiny", "WorkloadReady"),
        until=lambda found: found.get("reason") == "NameTaken",
    )
    assert "tiny-weights exists and is not Pippin's" in told["message"]
    found = await claim(cluster, namespace)
    assert room(found) == "1Gi" and wire.LABEL_MANAGED_BY not in found["metadata"].get("labels", {})


@pytest.mark.usefixtures("classes")
async def test_a_settled_volume_causes_no_write(
    cluster: Cluster, operator: Operator, namespace: str
):
    cluster.create("modeldeployments", stored(namespace))
    made = await claim(cluster, namespace)
    await eventually(
        lambda: cluster.condition("modeldeployments", namespace, "tiny", "Ready"),
        until=lambda found: found.get("status") == "False",
    )
    cluster.plane.kubectl("annotate", "mdep", "tiny", "-n", namespace, "example.com/looked-at=now")
    cluster.create("modeldeployments", model("other", namespace))
    await eventually(lambda: cluster.get("services", namespace, "other"), retry=(Exception,))
    now = await claim(cluster, namespace)
    assert now["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
