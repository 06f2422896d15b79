"""Statuses follow from what is seen; times move only when a verdict does."""

from typing import Any

import pytest

from pippin_operator.render.context import Model
from pippin_operator.status.conditions import flips, laid_over, no, yes
from pippin_operator.status.modeldeployment import Seen, Wanted, derive
from pippin_operator.status.pods import Trouble
from support import pods
from support.models import a_model

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z"


SETTLED = {
    "metadata": {"generation": 1},
    "spec": {"replicas": 2},
    "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2},
}


def a_pod(status: dict[str, Any], name: str = "p", node: str = "n1") -> dict[str, Any]:
    body = pods.pod(name, "team-a", "qwen")
    return {**body, "spec": {"nodeName": node}, "status": status}


def status(
    model: Model | None = None, old: dict[str, Any] | None = None, now: str = NOW, **seen: Any
) -> dict[str, Any]:
    model = model or a_model()
    wanted = Wanted(
        name=model.name,
        served_name=model.served_name,
        generation=model.generation,
        replicas=model.replicas,
        spec=model.spec,
        url="http://gateway/v1",
    )
    return derive(wanted, Seen(**seen), old or {}, now)


def verdict(found: dict[str, Any], kind: str) -> tuple[str, str]:
    (condition,) = [c for c in found["conditions"] if c["type"] == kind]
    return condition["status"], condition["reason"]


def test_every_condition_is_there_and_observed():
    found = status()
    assert [c["type"] for c in found["conditions"]] == [
        "Ready",
        "SpecValid",
        "SpecHonored",
        "Scheduled",
        "ModelAvailable",
        "WorkloadReady",
        "RouteReady",
        "FallbacksValid",
        "MonitoringReady",
        "Progressing",
        "Degraded",
    ]
    assert {c["observedGeneration"] for c in found["conditions"]} == {3}


def test_nothing_yet_is_loading():
    found = status()
    assert verdict(found, "Ready") == ("False", "Loading")
    assert verdict(found, "Progressing") == ("True", "Loading")
    assert found["phase"] == "Pending"


def test_one_ready_replica_is_enough_to_serve():
    found = status(a_model(replicas=2), pods=(a_pod(pods.serving()),))
    assert verdict(found, "Ready") == ("True", "Serving")
    assert (found["ready"], found["nodes"]) == ("1/2", ["n1"])


def test_a_pod_on_its_way_out_does_not_count():
    ending = a_pod(pods.serving())
    ending["metadata"]["deletionTimestamp"] = NOW
    found = status(pods=(ending,))
    assert verdict(found, "Ready")[0] == "False"
    assert found["replicas"] == 0


def test_the_same_seen_again_gives_the_same_status():
    first = status(pods=(a_pod(pods.serving()),))
    assert status(pods=(a_pod(pods.serving()),), old=first, now=LATER) == first


def test_a_time_moves_with_its_verdict_only():
    first = status()
    second = status(pods=(a_pod(pods.serving()),), old=first, now=LATER)
    times = {c["type"]: c["lastTransitionTime"] for c in second["conditions"]}
    assert times["Ready"] == times["ModelAvailable"] == LATER
    assert times["SpecValid"] == NOW
    assert second["lastTransitionTime"] == LATER


def test_a_taken_name_matters_more_than_serving_pods():
    found = status(pods=(a_pod(pods.serving()),), name_taken=("qwen", "elder"))
    assert verdict(found, "Ready") == ("False", "NameTaken")


def test_our_own_failure_is_told():
    found = status(failure=Trouble("ReconcileError", "quota exceeded"))
    assert verdict(found, "Ready") == ("False", "ReconcileError")


def test_a_spec_that_cannot_be_understood_keeps_what_is_known():
    old = status(pods=(a_pod(pods.serving()),))
    wanted = Wanted("qwen", "qwen", 4, None, None, "u")
    found = derive(wanted, Seen(failure=Trouble("InvalidSpec", "spec.x")), old, LATER)
    assert verdict(found, "SpecValid") == ("False", "InvalidSpec")
    assert found["readyReplicas"] == 1
    assert found["phase"] == "Failed"


def test_refused_pods_are_told_by_the_deployment():
    failed = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": "exceeded quota",
    }
    deployment = {"metadata": {"generation": 1}, "spec": {}, "status": {"conditions": [failed]}}
    assert verdict(status(deployment=deployment), "Ready") == ("False", "FailedCreate")


def test_a_rollout_under_serving_replicas_is_progressing_not_degraded():
    deployment = {
        "metadata": {"generation": 2},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1},
    }
    found = status(a_model(replicas=2), deployment=deployment, pods=(a_pod(pods.serving()),))
    assert verdict(found, "Progressing") == ("True", "RollingOut")
    assert verdict(found, "Degraded")[0] == "False"
    assert verdict(found, "WorkloadReady") == ("False", "RollingOut")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [({"replicas": 0}, "ScaledToZero"), ({"suspend": True}, "Suspended")],
)
def test_nothing_wanted_is_no_failure(spec, reason):
    found = status(a_model(**spec))
    assert verdict(found, "Ready") == ("False", reason)
    assert verdict(found, "Progressing") == ("False", "Settled")
    assert found["phase"] == reason


def test_a_model_that_is_scaled_to_zero_by_load_says_that_it_wakes():
    found = status(a_model(autoscaling={"minReplicas": 0, "maxReplicas": 2}))
    assert (found["phase"], found["ready"]) == ("ScaledToZero", "0/0")
    (ready,) = [c for c in found["conditions"] if c["type"] == "Ready"]
    assert ready["reason"] == "ScaledToZero"
    assert "wakes with the first request" in ready["message"]


def test_one_more_that_starts_is_progress_and_one_that_serves_no_more_is_degraded():
    starting = a_pod(pods.waiting("ContainerCreating"), "new")
    two = (a_pod(pods.serving()), starting)
    found = status(a_model(replicas=2), deployment=SETTLED, pods=two)
    assert verdict(found, "Degraded")[0] == "False"
    assert verdict(found, "Progressing") == ("True", "Loading")
    (container,) = starting["status"]["containerStatuses"]
    container |= {"started": True, "state": {"running": {}}}
    found = status(a_model(replicas=2), deployment=SETTLED, pods=two)
    assert verdict(found, "Degraded") == ("True", "NoReadyReplicas")


def test_a_lost_node_is_named():
    lost = {
        **pods.waiting("ContainerCreating"),
        "conditions": [
            pods.condition("PodScheduled", "True"),
            pods.condition("DisruptionTarget", "True", "DeletionByTaintManager", "taint"),
        ],
    }
    assert verdict(status(pods=(a_pod(lost),)), "Ready") == ("False", "NodeLost")


def test_a_pod_that_is_over_counts_for_nothing_and_speaks_last():
    evicted = a_pod({"phase": "Failed", "reason": "Evicted", "message": "disk"}, "old")
    alone = status(pods=(evicted,))
    assert verdict(alone, "Ready") == ("False", "Evicted")
    assert alone["replicas"] == 0
    pulling = a_pod(pods.waiting("ImagePullBackOff", "no such image"), "new")
    assert verdict(status(pods=(evicted, pulling)), "Ready") == ("False", "ImagePullFailed")
    assert verdict(status(pods=(evicted, a_pod(pods.serving()))), "Degraded")[0] == "False"


def test_a_starting_container_is_no_trouble():
    found = status(pods=(a_pod(pods.waiting("ContainerCreating")),))
    assert verdict(found, "Ready") == ("False", "Loading")
    assert found["phase"] == "Progressing"


def test_messages_are_cut_to_what_the_schema_takes():
    (condition,) = laid_over((), [no("Ready", "X", "y" * 5000)], 1, NOW)
    assert len(condition["message"]) == 1024


def told(old: list[Any], new: list[Any]) -> list[tuple[str, bool]]:
    return [
        (flip.reason, flip.bad)
        for flip in flips(laid_over((), old, 1, NOW), laid_over((), new, 1, NOW))
    ]


@pytest.mark.parametrize(
    ("old", "new", "events"),
    [
        ([], [no("Ready", "Loading", "")], []),
        ([], [no("Ready", "NoMatchingNode", "")], [("NoMatchingNode", True)]),
        ([], [yes("Ready", "Serving")], []),
        ([no("Ready", "Loading", "")], [yes("Ready", "Serving")], [("Serving", False)]),
        ([yes("Ready", "Serving")], [yes("Ready", "Other")], []),
        ([yes("Ready", "Serving")], [no("Ready", "Loading", "")], [("Loading", True)]),
        ([yes("Ready", "Serving")], [no("Ready", "Suspended", "")], [("Suspended", False)]),
        ([no("Degraded", "AsWanted", "")], [yes("Degraded", "X", "")], [("X", True)]),
        ([no("WorkloadReady", "X", "")], [yes("WorkloadReady", "Y")], []),
        (
            [],
            [no("Ready", "NoMatchingNode", ""), no("Scheduled", "NoMatchingNode", "")],
            [("NoMatchingNode", True)],
        ),
        ([], [no("MonitoringReady", "MonitoringAPIMissing", "")], []),
    ],
)
def test_events_tell_flips_once(old, new, events):
    assert told(old, new) == events


EXTERNAL = {"type": "external", "external": {"url": "https://api.example.com"}}


def outside(url: str = "https://api.example.com/v1", **spec: Any) -> Model:
    engine = {"type": "external", "external": {"url": url}}
    return a_model(model={"uri": None}, engine=engine, **spec)


def test_a_model_of_a_provider_is_ready_without_pods():
    found = status(outside())
    assert verdict(found, "Ready") == ("True", "External")
    assert verdict(found, "WorkloadReady") == ("True", "External")
    assert verdict(found, "Progressing") == ("False", "Settled")
    assert (found["phase"], found["ready"], found["engine"]) == ("Ready", "-", "external")
    message = found["conditions"][0]["message"]
    assert "api.example.com (openai)" in message and "100 requests a minute" in message
    limited = status(outside(limits={"tpm": 7, "concurrency": 2}))["conditions"][0]["message"]
    assert limited.endswith("together: 7 tokens a minute, 2 at once")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://me:secret@api.example.com", "InvalidURL"),
        ("https://api.example.com:99999", "InvalidURL"),
        ("http://169.254.169.254", "AddressForbidden"),
        ("http://[fd00:ec2::254]:80/v1", "AddressForbidden"),
    ],
)
def test_a_url_that_nobody_asks_is_told_without_its_secrets(url: str, reason: str):
    found = status(outside(url))
    assert verdict(found, "Ready") == ("False", reason)
    assert found["phase"] == "Failed"
    assert "secret" not in str(found)


def test_what_a_provider_lacks_comes_before_what_the_user_asked_for():
    missing = Trouble("SecretNotFound", "make it")
    assert verdict(status(outside(), provider=missing), "Ready") == ("False", "SecretNotFound")
    both = status(outside(suspend=True), provider=missing)
    assert verdict(both, "Ready") == ("False", "SecretNotFound")
    alone = status(outside(suspend=True))
    assert (verdict(alone, "Ready"), alone["phase"]) == (("False", "Suspended"), "Suspended")
    paints = status(a_model(model={"uri": None, "task": "image"}, engine=EXTERNAL))
    assert verdict(paints, "Ready") == ("False", "FieldUnsupported")
    taken = status(outside(), name_taken=("gpt", "elder"))
    assert verdict(taken, "Ready") == ("False", "NameTaken")
