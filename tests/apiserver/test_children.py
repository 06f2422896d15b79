"""The operator makes a ModelDeployment's children, keeps them as wanted, and then keeps still."""

import json
from typing import Any

import pytest

from pippin_contract import serverconfig, wire
from support.eventually import eventually
from support.manifests import model
from support.operator_process import SYSTEM, Cluster, Operator

CHILDREN = (("deployments", "tiny"), ("services", "tiny"), ("configmaps", "tiny-server"))


@pytest.fixture
async def tiny(cluster: Cluster, operator: Operator, namespace: str) -> str:
    """The namespace of a ModelDeployment whose children are there."""
    cluster.create("modeldeployments", model("tiny", namespace, replicas=2))
    await eventually(lambda: children(cluster, namespace), until=lambda found: len(found) == 3)
    await eventually(
        lambda: cluster.status("modeldeployments", namespace, "tiny"),
        until=lambda status: status.get("observedGeneration") == 1,
    )
    return namespace


def children(cluster: Cluster, namespace: str) -> dict[str, Any]:
    return {
        kind: item
        for kind, name in CHILDREN
        for item in cluster.list(kind, namespace)
        if item["metadata"]["name"] == name
    }


def patch(cluster: Cluster, namespace: str, what: str, body: dict[str, Any]) -> None:
    cluster.plane.kubectl("patch", what, "-n", namespace, "--type=merge", "-p", json.dumps(body))


async def still(cluster: Cluster, operator: Operator, namespace: str) -> dict[str, str]:
    """Versions once two looks in a row saw no change and no write."""
    seen: list[Any] = []

    def same() -> bool:
        seen.append((cluster.versions(namespace), operator.writes()))
        return len(seen) > 1 and seen[-1] == seen[-2]

    await eventually(same)
    return cluster.versions(namespace)


async def test_children_are_made_and_owned(cluster: Cluster, tiny: str):
    uid = cluster.get("modeldeployments", tiny, "tiny")["metadata"]["uid"]
    for child in children(cluster, tiny).values():
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("ModelDeployment", uid, True)
        labels = child["metadata"]["labels"]
        assert labels[wire.LABEL_MANAGED_BY] == wire.MANAGER
        assert labels[wire.LABEL_INSTANCE] == "tiny"
    assert children(cluster, tiny)["deployments"]["spec"]["replicas"] == 2


async def test_the_server_is_told_the_gateways_public_keys(cluster: Cluster, tiny: str):
    secret = cluster.get("secrets", SYSTEM, wire.SIGNING_SECRET)
    assert set(secret["data"]) == {wire.SIGNING_CURRENT, wire.SIGNING_NEXT}
    text = children(cluster, tiny)["configmaps"]["data"]["server.json"]
    auth = serverconfig.load(text).auth
    assert (auth.mode, auth.audience) == ("gateway", f"{tiny}/tiny")
    assert len({key.kid for key in auth.public_keys}) == 2
    assert "PRIVATE" not in text


async def test_a_settled_object_causes_no_write(cluster: Cluster, operator: Operator, tiny: str):
    before = await still(cluster, operator, tiny)
    writes = operator.writes()
    # Another object's whole life is time enough for a loop to show.
    cluster.create("modeldeployments", model("other", tiny))
    await eventually(lambda: cluster.get("services", tiny, "other"), retry=(Exception,))
    cluster.delete("modeldeployments", tiny, "other")
    after = cluster.versions(tiny)
    assert {name: after[name] for name in before} == before
    assert operator.writes() > writes


async def test_a_restart_writes_nothing(cluster: Cluster, operator: Operator, tiny: str):
    before = await still(cluster, operator, tiny)
    assert operator.stop() == 0
    await operator.start()
    # Every run of the first reading is over when the counter stands.
    await eventually(lambda: runs(operator) >= 1)
    assert await still(cluster, operator, tiny) == before
    assert operator.writes() == 0


def runs(operator: Operator) -> float:
    lines = operator.read("/metrics").splitlines()
    started = [line for line in lines if line.startswith("pippin_operator_reconciles_total")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in started)


async def test_a_change_while_the_operator_was_away_is_made_up_for(
    cluster: Cluster, operator: Operator, namespace: str
):
    manifest = model("tiny", namespace, nodeSelector={"disk": "fast"})
    cluster.create("modeldeployments", manifest)

    def selector() -> dict[str, str]:
        found = cluster.get("deployments", namespace, "tiny")
        chosen: dict[str, str] = found["spec"]["template"]["spec"]["nodeSelector"]
        return chosen

    await eventually(selector, until=lambda s: s.get("disk") == "fast", retry=(Exception,))
    operator.stop()
    patch(cluster, namespace, "mdep/tiny", {"spec": {"nodeSelector": None}})
    await operator.start()
    # A field that is no longer wanted goes, though all that is wanted was there.
    await eventually(selector, until=lambda s: s == {"kubernetes.io/os": "linux"})


async def test_an_edited_child_is_repaired(cluster: Cluster, tiny: str):
    patch(cluster, tiny, "deploy/tiny", {"spec": {"replicas": 5}})
    cluster.plane.kubectl("-n", tiny, "set", "image", "deploy/tiny", "server=evil:1")
    patch(cluster, tiny, "cm/tiny-server", {"data": {"server.json": "{}"}})
    patch(cluster, tiny, "svc/tiny", {"spec": {"selector": {wire.LABEL_INSTANCE: "other"}}})

    def repaired() -> bool:
        found = children(cluster, tiny)
        spec = found["deployments"]["spec"]
        assert spec["replicas"] == 2
        assert spec["template"]["spec"]["containers"][0]["image"].startswith("pippin-server:")
        assert found["configmaps"]["data"]["server.json"] != "{}"
        assert found["services"]["spec"]["selector"][wire.LABEL_INSTANCE] == "tiny"
        return True

    await eventually(repaired)


@pytest.mark.parametrize(("kind", "name"), CHILDREN)
async def test_a_deleted_child_comes_back(cluster: Cluster, tiny: str, kind: str, name: str):
    old = cluster.get(kind, tiny, name)["metadata"]["uid"]
    cluster.delete(kind, tiny, name)
    await eventually(
        lambda: cluster.get(kind, tiny, name)["metadata"]["uid"],
        until=lambda uid: uid != old,
        retry=(Exception,),
    )


async def test_a_child_without_its_labels_is_found_again(cluster: Cluster, tiny: str):
    patch(cluster, tiny, "svc/tiny", {"metadata": {"labels": {wire.LABEL_MANAGED_BY: None}}})
    await eventually(
        lambda: cluster.get("services", tiny, "tiny")["metadata"]["labels"],
        until=lambda labels: labels.get(wire.LABEL_MANAGED_BY) == wire.MANAGER,
    )


async def test_what_others_add_stays(cluster: Cluster, operator: Operator, tiny: str):
    patch(cluster, tiny, "deploy/tiny", {"metadata": {"labels": {"team": "a"}}})
    patch(cluster, tiny, "mdep/tiny", {"spec": {"replicas": 3}})
    deployment = await eventually(
        lambda: cluster.get("deployments", tiny, "tiny"),
        until=lambda found: found["spec"]["replicas"] == 3,
    )
    assert deployment["metadata"]["labels"]["team"] == "a"


async def test_a_changed_engine_rolls_the_pods(cluster: Cluster, tiny: str):
    def template() -> dict[str, str]:
        found = cluster.get("deployments", tiny, "tiny")["spec"]["template"]["metadata"]
        annotations: dict[str, str] = found["annotations"]
        return annotations

    before = template()
    patch(cluster, tiny, "mdep/tiny", {"spec": {"engine": {"args": ["--verbose"]}}})
    await eventually(template, until=lambda after: after != before)
    text = cluster.get("configmaps", tiny, "tiny-server")["data"]["server.json"]
    assert serverconfig.load(text).engine_args == ("--verbose",)


async def test_where_others_scale_their_replicas_stay(
    cluster: Cluster, operator: Operator, namespace: str
):
    scaling = {"maxReplicas": 9, "provider": "hpa"}
    cluster.create("modeldeployments", model("tiny", namespace, autoscaling=scaling))
    await eventually(lambda: cluster.get("deployments", namespace, "tiny"), retry=(Exception,))
    cluster.plane.kubectl("-n", namespace, "scale", "deploy/tiny", "--replicas=7")
    patch(cluster, namespace, "mdep/tiny", {"spec": {"engine": {"args": ["--x"]}}})
    await eventually(
        lambda: cluster.get("configmaps", namespace, "tiny-server")["data"]["server.json"],
        until=lambda text: "--x" in text,
    )
    await still(cluster, operator, namespace)
    assert cluster.get("deployments", namespace, "tiny")["spec"]["replicas"] == 7
    honored = cluster.condition("modeldeployments", namespace, "tiny", "SpecHonored")
    assert honored["status"] == "False"
    assert "autoscaling.provider" in honored["message"]


THEIRS = [
    ("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "data": {"mine": "yes"}}),
    (
        "services",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "spec": {"ports": [{"port": 80}], "selector": {"app": "mine"}},
        },
    ),
    (
        "deployments",
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "spec": {
                "selector": {"matchLabels": {"app": "mine"}},
                "template": {
                    "metadata": {"labels": {"app": "mine"}},
                    "spec": {"containers": [{"name": "server", "image": "mine:1"}]},
                },
            },
        },
    ),
]


@pytest.mark.parametrize(("kind", "theirs"), THEIRS, ids=[kind for kind, _ in THEIRS])
async def test_another_objects_name_is_not_taken_over(
    cluster: Cluster, operator: Operator, namespace: str, kind: str, theirs: dict[str, Any]
):
    name = dict(CHILDREN)[kind]
    theirs = {**theirs, "metadata": {"name": name, "namespace": namespace}}
    before = cluster.create(kind, theirs)
    cluster.create("modeldeployments", model("tiny", namespace))
    ready = await eventually(
        lambda: cluster.condition("modeldeployments", namespace, "tiny", "Ready"),
        until=lambda c: c.get("reason") == "NameTaken",
    )
    assert f"{theirs['kind']} {name} exists and is not Pippin's" in ready["message"]
    after = cluster.get(kind, namespace, name)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_nothing_is_stored_on_the_users_objects(cluster: Cluster, tiny: str):
    metadata = cluster.get("modeldeployments", tiny, "tiny")["metadata"]
    assert "annotations" not in metadata
    assert "finalizers" not in metadata


async def test_what_cannot_run_yet_makes_nothing_and_says_so(
    cluster: Cluster, operator: Operator, namespace: str
):
    paints = {"task": "image", "uri": "hf://org/model"}
    body = model("draws", namespace, model=paints, engine={"type": "vllm"})
    cluster.create("modeldeployments", body)
    honored = await eventually(
        lambda: cluster.condition("modeldeployments", namespace, "draws", "SpecHonored"),
        until=lambda c: c.get("status") == "False",
    )
    assert honored["reason"] == "FieldUnsupported"
    assert "model.task" in honored["message"]
    assert cluster.list("deployments", namespace) == []


async def test_adapters_reach_the_pods_and_another_one_rolls_them(
    cluster: Cluster, operator: Operator, namespace: str
):
    adapters = [{"name": "sql", "uri": "pvc://shelf/sql"}]
    weights = {"uri": "hf://org/model", "adapters": adapters}
    cluster.create("modeldeployments", model("tiny", namespace, model=weights))

    def template() -> dict[str, Any]:
        found: dict[str, Any] = cluster.get("deployments", namespace, "tiny")["spec"]["template"]
        return found

    first = await eventually(template, retry=(Exception,))
    (mounted,) = [v for v in first["spec"]["volumes"] if v["name"] == "adapter-0"]
    assert mounted["persistentVolumeClaim"]["claimName"] == "shelf"
    text = cluster.get("configmaps", namespace, "tiny-server")["data"]["server.json"]
    (told,) = serverconfig.load(text).adapters
    assert (told.name, told.path) == ("sql", "/adapters/0/sql")
    adapters.append({"name": "poet", "uri": "hf://org/poet"})
    patch(cluster, namespace, "mdep/tiny", {"spec": {"model": weights}})
    await eventually(template, until=lambda now: now["metadata"] != first["metadata"])
    honored = await eventually(
        lambda: cluster.condition("modeldeployments", namespace, "tiny", "SpecHonored"),
        until=lambda c: c.get("observedGeneration") == 2,
    )
    assert honored["status"] == "True"


async def test_a_workload_that_is_no_longer_wanted_goes(cluster: Cluster, tiny: str):
    external = {"type": "external", "external": {"url": "https://api.example.com/v1"}}
    patch(cluster, tiny, "mdep/tiny", {"spec": {"engine": external}})
    await eventually(lambda: children(cluster, tiny), until=lambda found: found == {})


async def test_what_kubernetes_refuses_is_told_and_not_tried_over_and_over(
    cluster: Cluster, operator: Operator, namespace: str
):
    wrong = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}
    cluster.create("modeldeployments", model("tiny", namespace, affinity=wrong))
    ready = await eventually(
        lambda: cluster.condition("modeldeployments", namespace, "tiny", "Ready"),
        until=lambda c: c.get("reason") == "ReconcileError",
    )
    assert "nodeSelectorTerms" in ready["message"]
    await still(cluster, operator, namespace)
    patch(cluster, namespace, "mdep/tiny", {"spec": {"affinity": None}})
    await eventually(lambda: cluster.get("deployments", namespace, "tiny"), retry=(Exception,))
