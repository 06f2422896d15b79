"""What Pods say reaches the ModelDeployment's status, in words that users know."""

from typing import Any

import pytest

from support import pods
from support.eventually import eventually
from support.manifests import model
from support.operator_process import Cluster, Operator


class Model:
    """A ModelDeployment whose Pods the test plays."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def says(self, status: dict[str, Any], name: str = "tiny-1") -> None:
        body = pods.pod(name, self.namespace, "tiny")
        if not any(
            p["metadata"]["name"] == name for p in self.cluster.list("pods", self.namespace)
        ):
            self.cluster.create("pods", body)
        self.cluster.set_status("pods", self.namespace, name, status)

    async def condition(self, kind: str, **wanted: str) -> dict[str, Any]:
        return await eventually(
            lambda: self.cluster.condition("modeldeployments", self.namespace, "tiny", kind),
            until=lambda c: all(c.get(key) == value for key, value in wanted.items()),
        )

    def status(self) -> dict[str, Any]:
        return self.cluster.status("modeldeployments", self.namespace, "tiny")

    def events(self) -> list[tuple[str, str, str]]:
        return [
            (event["type"], event["action"], event["reason"])
            for event in self.cluster.list("events", self.namespace)
            if event["regarding"]["name"] == "tiny"
        ]


@pytest.fixture
async def tiny(cluster: Cluster, operator: Operator, namespace: str) -> Model:
    # No controller makes the accounts that Pods need.
    account = {"metadata": {"name": "default", "namespace": namespace}}
    cluster.plane.api.ensure(f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
    cluster.create("modeldeployments", model("tiny", namespace))
    found = Model(cluster, namespace)
    await found.condition("Ready", status="False", reason="Loading")
    return found


async def test_a_serving_pod_makes_it_ready_and_its_death_unready(tiny: Model):
    tiny.says(pods.serving())
    await tiny.condition("Ready", status="True", reason="Serving")
    status = tiny.status()
    assert (status["phase"], status["ready"], status["readyReplicas"]) == ("Ready", "1/1", 1)
    assert (status["engine"], status["servedName"]) == ("echo", "tiny")
    assert status["url"] == "http://gateway.example/v1"
    tiny.says(pods.running_again(pods.terminated(137)))
    down = await tiny.condition("Ready", status="False")
    assert down["reason"] == "CrashLooping"
    assert "exit code 137" in down["message"]
    tiny.says(pods.serving())
    up = await tiny.condition("Ready", status="True")
    assert up["observedGeneration"] == 1
    await eventually(lambda: ("Normal", "Ready", "Serving") in tiny.events())
    assert ("Warning", "Ready", "CrashLooping") in tiny.events()


LIFTED = [
    # what the Pod says, the condition, its reason, words of its message
    (
        pods.unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        ("Scheduled", "InsufficientGPU", "3 Insufficient nvidia.com/gpu"),
    ),
    (
        pods.unschedulable("0/3 nodes are available: 3 Insufficient memory."),
        ("Scheduled", "InsufficientMemory", "Insufficient memory"),
    ),
    (
        pods.unschedulable("0/1 nodes are available: 1 node(s) didn't match Pod's node selector."),
        ("Scheduled", "NoMatchingNode", "node selector"),
    ),
    (
        pods.waiting("ImagePullBackOff", "Back-off pulling image pippin-server:nope"),
        ("Ready", "ImagePullFailed", "pippin-server:nope"),
    ),
    (
        pods.waiting(
            "CrashLoopBackOff",
            "back-off 10s",
            pods.terminated(78, message="ModelSourceNotFound: no such repository org/none"),
        ),
        ("ModelAvailable", "ModelSourceNotFound", "no such repository org/none"),
    ),
    (
        pods.waiting(
            "CrashLoopBackOff", "", pods.terminated(1, message="Traceback\nKeyError: 'x'\n")
        ),
        ("Ready", "CrashLooping", "exit code 1: KeyError"),
    ),
    (
        pods.waiting("CrashLoopBackOff", "", pods.terminated(137, reason="OOMKilled")),
        ("Ready", "OutOfMemory", "raise resources.limits"),
    ),
    (
        pods.waiting("CreateContainerConfigError", 'secret "hf" not found'),
        ("Ready", "CreateContainerConfigError", 'secret "hf" not found'),
    ),
    (
        {"phase": "Failed", "reason": "ImageNotAllowed", "message": "this node runs Pippin only"},
        ("Ready", "ImageNotAllowed", "this node runs Pippin only"),
    ),
]


@pytest.mark.parametrize(
    ("says", "lifted"), LIFTED, ids=lambda value: value[1] if isinstance(value, tuple) else ""
)
async def test_a_pods_own_words_are_lifted(tiny: Model, says, lifted):
    kind, reason, words = lifted
    tiny.says(says)
    found = await tiny.condition(kind, status="False", reason=reason)
    assert words in found["message"]
    await eventually(lambda: [event for event in tiny.events() if event[2] == reason])


async def test_one_of_two_in_trouble_is_degraded_but_serves(tiny: Model):
    tiny.cluster.plane.kubectl("-n", tiny.namespace, "scale", "mdep/tiny", "--replicas=2")
    tiny.says(pods.serving(), "tiny-1")
    tiny.says(pods.waiting("ImagePullBackOff", "no such image"), "tiny-2")
    found = await tiny.condition("Degraded", status="True")
    assert found["reason"] == "ImagePullFailed"
    await tiny.condition("Ready", status="True")
    assert tiny.status()["ready"] == "1/2"
    assert tiny.status()["phase"] == "Degraded"


async def test_suspended_and_scaled_to_zero_are_told_apart(tiny: Model):
    tiny.says(pods.serving())
    await tiny.condition("Ready", status="True")
    tiny.cluster.plane.kubectl("-n", tiny.namespace, "scale", "mdep/tiny", "--replicas=0")
    await tiny.condition("Ready", status="False", reason="ScaledToZero")
    replicas = tiny.cluster.get("deployments", tiny.namespace, "tiny")["spec"]["replicas"]
    assert replicas == 0
    tiny.cluster.plane.kubectl(
        *("-n", tiny.namespace, "patch", "mdep/tiny", "--type=merge"),
        *("-p", '{"spec": {"replicas": 2, "suspend": true}}'),
    )
    await tiny.condition("Ready", status="False", reason="Suspended")
    assert tiny.status()["phase"] == "Suspended"


async def test_a_served_name_belongs_to_the_oldest(tiny: Model):
    cluster, namespace = tiny.cluster, tiny.namespace
    cluster.create(
        "modeldeployments", model("younger", namespace, model={"name": "b", "aliases": ["tiny"]})
    )
    taken = await eventually(
        lambda: cluster.condition("modeldeployments", namespace, "younger", "Ready"),
        until=lambda c: c.get("reason") == "NameTaken",
    )
    assert "ModelDeployment tiny" in taken["message"]
    assert (await tiny.condition("RouteReady"))["status"] == "True"
    cluster.delete("modeldeployments", namespace, "tiny")
    await eventually(
        lambda: cluster.condition("modeldeployments", namespace, "younger", "RouteReady"),
        until=lambda c: c["status"] == "True",
    )


async def test_a_field_that_does_nothing_yet_is_named(tiny: Model):
    tiny.cluster.plane.kubectl(
        *("-n", tiny.namespace, "patch", "mdep/tiny", "--type=merge"),
        *("-p", '{"spec": {"storage": {}, "auth": {"required": false}}}'),
    )
    found = await tiny.condition("SpecHonored", status="False", reason="FieldUnsupported")
    assert "storage, auth.required" in found["message"]
    assert found["observedGeneration"] == 2


async def test_times_stand_while_nothing_flips(tiny: Model):
    tiny.says(pods.serving())
    first = await tiny.condition("Ready", status="True")
    tiny.cluster.plane.kubectl("-n", tiny.namespace, "scale", "mdep/tiny", "--replicas=2")
    later = await tiny.condition("Ready", observedGeneration=2)
    assert later["lastTransitionTime"] == first["lastTransitionTime"]


async def test_a_volume_that_cannot_be_mounted_is_told_by_the_nodes_event(tiny: Model):
    cluster, namespace = tiny.cluster, tiny.namespace
    body = pods.pod("tiny-1", namespace, "tiny")
    uid = cluster.create("pods", {**body, "spec": {**body["spec"], "nodeName": "n1"}})["metadata"][
        "uid"
    ]
    complaint = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "tiny-1.mount", "namespace": namespace},
        "regarding": {"kind": "Pod", "namespace": namespace, "name": "tiny-1", "uid": uid},
        "type": "Warning",
        "reason": "FailedMount",
        "action": "Mount",
        "note": "hostPath type check failed: /srv/no-such-model is not a directory",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "kubelet",
        "reportingInstance": "n1",
    }
    cluster.create("events", complaint)
    tiny.says(pods.waiting("ContainerCreating"))
    found = await tiny.condition("Ready", status="False", reason="FailedMount")
    assert "/srv/no-such-model" in found["message"]
    tiny.says(pods.serving())
    await tiny.condition("Ready", status="True")


async def test_fallbacks_are_judged_anew_when_another_model_comes_changes_or_goes(
    cluster: Cluster, tiny: Model
):
    def change(name: str, fallbacks: list[str]) -> None:
        path = cluster.path("modeldeployments", tiny.namespace, name)
        spec = cluster.plane.api.get(path)["spec"]
        cluster.plane.api.update(path, {"spec": {**spec, "fallbacks": fallbacks}})

    await tiny.condition("FallbacksValid", status="True", reason="NoneGiven")
    change("tiny", ["spare"])
    absent = await tiny.condition("FallbacksValid", status="False", reason="FallbackNotFound")
    assert "spare" in absent["message"]
    cluster.create("modeldeployments", model("spare", tiny.namespace))
    await tiny.condition("FallbacksValid", status="True", reason="AllFound")
    change("spare", ["tiny"])
    circle = await tiny.condition("FallbacksValid", status="False", reason="FallbackCycle")
    assert "tiny → spare → tiny" in circle["message"]
    cluster.delete("modeldeployments", tiny.namespace, "spare")
    await tiny.condition("FallbacksValid", status="False", reason="FallbackNotFound")
