"""Pod status from what is seen: phases, conditions, container states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pippin_contract.wire import ENDPOINT_CONDITION
from pippin_node.process import Exit
from pippin_node.status import Circumstances, Ended, Seen, derive, exit_reason, same

POD: dict[str, Any] = {"metadata": {"name": "p", "uid": "u", "generation": 3}, "spec": {}}
ABOUT = Circumstances(
    host_ip="127.0.0.1",
    started_at="2026-01-01T00:00:00Z",
    now="2026-01-01T00:01:00Z",
    endpoint="http://127.0.0.1:20001",
)
RUNNING = Seen("a", "img", running_since="2026-01-01T00:00:01Z", started=True, ready=True)
CREATING = Seen("a", "img", waiting=("ContainerCreating", ""))


def ended(code: int, **exit: Any) -> Seen:
    over = Ended(0, Exit(code, 0, "2026-01-01T00:00:09Z", **exit), "2026-01-01T00:00:01Z")
    return Seen("a", "img", ended=over)


def backing_off() -> Seen:
    crashed = ended(1)
    return replace(crashed, waiting=("CrashLoopBackOff", "wait"), ended=None, last=crashed.ended)


def pod(policy: str) -> dict[str, Any]:
    return {**POD, "spec": {"restartPolicy": policy}}


def conditions(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["type"]: one for one in status["conditions"]}


@pytest.mark.parametrize(
    ("policy", "containers", "phase"),
    [
        ("Always", [CREATING], "Pending"),
        ("Always", [RUNNING], "Running"),
        ("Always", [RUNNING, CREATING], "Pending"),
        ("Always", [ended(0)], "Running"),
        ("Always", [backing_off()], "Running"),
        ("OnFailure", [ended(0)], "Succeeded"),
        ("OnFailure", [ended(1)], "Running"),
        ("OnFailure", [backing_off()], "Running"),
        ("Never", [ended(0), ended(1)], "Failed"),
        ("Never", [ended(1), RUNNING], "Running"),
        ("Never", [ended(0), ended(0)], "Succeeded"),
    ],
)
def test_the_phase_follows_containers_and_restart_policy(
    policy: str, containers: list[Seen], phase: str
) -> None:
    assert derive(pod(policy), containers, ABOUT)["phase"] == phase


def test_a_pod_is_ready_when_all_its_containers_are() -> None:
    status = derive(POD, [RUNNING, replace(RUNNING, name="b", ready=False)], ABOUT)
    ready = conditions(status)["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "ContainersNotReady")
    assert ready["message"] == "containers with unready status: [b]"
    assert conditions(derive(POD, [RUNNING], ABOUT))["Ready"]["status"] == "True"


def test_a_readiness_gate_holds_the_pod_but_not_its_containers() -> None:
    gated = {**POD, "spec": {"readinessGates": [{"conditionType": "x/y"}]}}
    found = conditions(derive(gated, [RUNNING], ABOUT))
    assert found["ContainersReady"]["status"] == "True"
    assert found["Ready"]["reason"] == "ReadinessGatesNotReady"
    open_gate = {"conditions": [{"type": "x/y", "status": "True"}]}
    passed = derive(gated, [RUNNING], replace(ABOUT, known=open_gate))
    assert conditions(passed)["Ready"]["status"] == "True"


def test_the_endpoint_is_a_condition_whose_message_is_the_address() -> None:
    found = conditions(derive(POD, [RUNNING], ABOUT))[ENDPOINT_CONDITION]
    assert (found["status"], found["message"]) == ("True", "http://127.0.0.1:20001")
    over = conditions(derive(pod("Never"), [ended(0)], ABOUT))
    assert over[ENDPOINT_CONDITION]["status"] == "False"
    assert over["Ready"]["reason"] == "PodCompleted"


def test_an_end_shows_code_signal_reason_and_message() -> None:
    over = Ended(2, Exit(137, 9, "2026-01-01T00:00:09Z"), "2026-01-01T00:00:01Z", "last words")
    status = derive(POD, [Seen("a", "img", attempt=2, ended=over)], ABOUT)
    assert status["containerStatuses"][0]["state"]["terminated"] == {
        "exitCode": 137,
        "signal": 9,
        "reason": "Error",
        "message": "last words",
        "startedAt": "2026-01-01T00:00:01Z",
        "finishedAt": "2026-01-01T00:00:09Z",
        "containerID": "pippin://u/a/2",
    }


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (Exit(0, 0, ""), "Completed"),
        (Exit(1, 0, ""), "Error"),
        (Exit(137, 9, "", oom=True), "OOMKilled"),
        (Exit(128, 0, "", error="no such file"), "StartError"),
        (Exit(137, 0, "", unknown=True), "ContainerStatusUnknown"),
    ],
)
def test_the_reason_of_an_end_is_the_kubelets_word(ending: Exit, reason: str) -> None:
    assert exit_reason(ending) == reason


def test_a_pod_made_to_end_is_over_whatever_its_restart_policy() -> None:
    finishing = replace(ABOUT, finishing=True)
    assert derive(pod("Always"), [ended(0)], finishing)["phase"] == "Succeeded"
    assert derive(pod("Always"), [ended(143)], finishing)["phase"] == "Failed"


def test_times_of_conditions_move_only_when_their_status_does() -> None:
    before = derive(POD, [replace(RUNNING, ready=False)], ABOUT)
    later = replace(ABOUT, now="2026-01-01T00:05:00Z", known=before)
    after = conditions(derive(POD, [RUNNING], later))
    assert after["Ready"]["lastTransitionTime"] == "2026-01-01T00:05:00Z"
    assert after["Initialized"]["lastTransitionTime"] == "2026-01-01T00:01:00Z"


def test_a_status_that_the_api_server_has_is_not_written_again() -> None:
    status = derive(POD, [RUNNING], ABOUT)
    theirs = [{"type": "DisruptionTarget", "status": "True"}]
    stored = {**status, "qosClass": "Burstable", "conditions": [*status["conditions"], *theirs]}
    for one in stored["conditions"]:
        for key in [key for key, value in one.items() if value is None]:
            del one[key]
    again = derive(POD, [RUNNING], replace(ABOUT, known=stored, now="2026-01-01T00:09:00Z"))
    assert same(again, stored)
    assert not same(derive(POD, [replace(RUNNING, ready=False)], ABOUT), stored)
    assert not same(derive(POD, [replace(RUNNING, attempt=1)], ABOUT), stored)


def test_the_observed_generation_is_said() -> None:
    assert derive(POD, [RUNNING], ABOUT)["observedGeneration"] == 3
