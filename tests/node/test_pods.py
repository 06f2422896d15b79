"""Pods on a native node, from creation to deletion, against a real control plane."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

from support.eventually import eventually
from support.kubectl import Kubectl
from support.nodeagent import (
    READY,
    NodeAgent,
    alive,
    call,
    container,
    endpoint,
    event_messages,
    first,
    pod,
    processes_of,
    ready,
    waiting,
)


async def test_a_deployment_becomes_available_and_says_where_it_answers(kubectl: Kubectl) -> None:
    template = pod("ignored", container())["spec"]
    kubectl.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "toy"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "toy"}},
                "template": {"metadata": {"labels": {"app": "toy"}}, "spec": template},
            },
        }
    )
    kubectl("rollout", "status", "deployment/toy", "--timeout=30s")
    pods = kubectl.items("pods")
    addresses = {endpoint(one) for one in pods}
    assert len(addresses) == 2
    assert all(address.startswith("http://127.0.0.1:") for address in addresses)
    assert [one["status"].get("podIP") for one in pods] == [None, None]
    assert call(pods[0], "/ready") == b""


async def test_a_killed_process_is_restarted_and_the_reason_is_shown(kubectl: Kubectl) -> None:
    kubectl.apply(pod("toy", container()))
    before = await eventually(lambda: ready(kubectl, "toy"))
    os.kill(int(call(before, "/pid")), signal.SIGKILL)

    def again() -> dict[str, object]:
        seen = ready(kubectl, "toy")
        assert first(seen)["restartCount"] == 1
        return seen

    after = await eventually(again)
    last = first(after)["lastState"]["terminated"]
    assert (last["exitCode"], last["signal"], last["reason"]) == (137, 9, "Error")
    assert first(after)["ready"] is True


async def test_a_container_that_keeps_failing_backs_off_and_says_why(kubectl: Kubectl) -> None:
    kubectl.apply(pod("toy", container("crash", "78", "ModelNotFound: no such directory")))
    why = await eventually(
        lambda: waiting(kubectl, "toy"), until=lambda w: w.get("reason") == "CrashLoopBackOff"
    )
    assert "restarting failed container=server pod=toy_" in why["message"]
    last = first(kubectl.json("get", "pod", "toy"))["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (78, "Error")
    assert last["message"] == "ModelNotFound: no such directory"
    await eventually(lambda: event_messages(kubectl, "BackOff"))


async def test_the_end_of_the_log_stands_in_for_a_termination_message(kubectl: Kubectl) -> None:
    failing = container("crash", "3", terminationMessagePolicy="FallbackToLogsOnError")
    kubectl.apply(pod("toy", failing, restartPolicy="Never"))
    seen = await eventually(
        lambda: kubectl.json("get", "pod", "toy"), until=lambda p: p["status"]["phase"] == "Failed"
    )
    assert first(seen)["state"]["terminated"]["message"] == "about to fail\n"
    assert first(seen)["state"]["terminated"]["exitCode"] == 3


async def test_a_pod_that_is_done_succeeds_and_keeps_its_log(kubectl: Kubectl) -> None:
    kubectl.apply(pod("toy", container("count", "3"), restartPolicy="OnFailure"))
    seen = await eventually(
        lambda: kubectl.json("get", "pod", "toy"),
        until=lambda p: p["status"]["phase"] == "Succeeded",
    )
    assert first(seen)["state"]["terminated"]["reason"] == "Completed"
    assert first(seen)["restartCount"] == 0
    assert kubectl("logs", "toy") == "line 0\nline 1\nline 2\n"


async def test_readiness_follows_the_probe_without_a_restart(kubectl: Kubectl) -> None:
    probe = {**READY, "failureThreshold": 1}
    volume = {"name": "tmp", "emptyDir": {}}
    server = container(readinessProbe=probe, volumeMounts=[{"name": "tmp", "mountPath": "/tmp"}])
    kubectl.apply(pod("toy", server, volumes=[volume]))
    seen = await eventually(lambda: ready(kubectl, "toy"))
    call(seen, "/touch?path=/tmp/unready")

    def unready() -> dict[str, str]:
        condition = kubectl.condition("pod", "toy", "Ready")
        assert condition["status"] == "False"
        return condition

    condition = await eventually(unready)
    assert condition["reason"] == "ContainersNotReady"
    assert first(kubectl.json("get", "pod", "toy"))["restartCount"] == 0
    expected = "Readiness probe failed: HTTP probe failed with statuscode: 503"
    await eventually(lambda: expected in event_messages(kubectl, "Unhealthy"))


async def test_readiness_that_others_took_away_is_given_back(kubectl: Kubectl) -> None:
    """As Kubernetes does with Pods of nodes that it has not heard of for a while."""
    kubectl.apply(pod("toy", container(readinessProbe=READY)))
    await eventually(lambda: ready(kubectl, "toy"))
    unready = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    kubectl("patch", "pod", "toy", "--subresource=status", "-p", json.dumps(unready))
    await eventually(lambda: ready(kubectl, "toy"))


async def test_a_container_that_fails_its_liveness_probe_is_restarted(kubectl: Kubectl) -> None:
    probe = {"httpGet": {"path": "/livez", "port": 8000}, "periodSeconds": 1, "failureThreshold": 2}
    kubectl.apply(pod("toy", container(livenessProbe=probe)))
    seen = await eventually(lambda: ready(kubectl, "toy"))
    call(seen, "/touch?path=/tmp/dead")
    restarted = await eventually(
        lambda: first(kubectl.json("get", "pod", "toy")), until=lambda s: s["restartCount"] > 0
    )
    assert restarted["lastState"]["terminated"]["exitCode"] == 0
    expected = "Container server failed liveness probe, will be restarted"
    await eventually(lambda: expected in event_messages(kubectl, "Killing"))


async def test_deletion_runs_the_hook_and_leaves_nothing_behind(
    kubectl: Kubectl, node_agent: NodeAgent, shared: Path
) -> None:
    server = container(
        lifecycle={"preStop": {"exec": {"command": ["pippin-server", "drain"]}}},
        volumeMounts=[{"name": "out", "mountPath": "/var/out"}],
    )
    (shared / "out").mkdir()
    kubectl.apply(
        pod("toy", server, volumes=[{"name": "out", "hostPath": {"path": f"{shared}/out"}}])
    )
    seen = await eventually(lambda: ready(kubectl, "toy"))
    directory = node_agent.pod_dir(seen)
    pid = int(call(seen, "/pid"))
    kubectl("delete", "pod", "toy", "--wait=true", "--timeout=20s")
    assert (shared / "out" / "drained").exists()
    assert not directory.exists()
    assert not alive(pid)
    assert processes_of(directory) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", urlsplit(endpoint(seen)).port)) != 0
    expected = "Stopping container server"
    await eventually(lambda: expected in event_messages(kubectl, "Killing"))


async def test_a_stubborn_process_is_killed_when_its_grace_is_over(
    kubectl: Kubectl, node_agent: NodeAgent
) -> None:
    kubectl.apply(pod("toy", container("stubborn")))
    seen = await eventually(lambda: ready(kubectl, "toy"))
    await eventually(lambda: kubectl("logs", "toy") == "will not go\n")
    kubectl("delete", "pod", "toy", "--grace-period=1", "--wait=true", "--timeout=10s")
    await eventually(lambda: not processes_of(node_agent.pod_dir(seen)))


async def test_a_force_deleted_pod_ends_too(kubectl: Kubectl, node_agent: NodeAgent) -> None:
    kubectl.apply(pod("toy"))
    seen = await eventually(lambda: ready(kubectl, "toy"))
    kubectl("delete", "pod", "toy", "--grace-period=0", "--force")
    await eventually(lambda: not node_agent.pod_dir(seen).exists())
    assert processes_of(node_agent.pod_dir(seen)) == []


async def test_a_port_of_the_host_is_taken_as_given(kubectl: Kubectl) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ports = [{"name": "http", "containerPort": 8000, "hostPort": port}]
    kubectl.apply(pod("toy", container(ports=ports)))
    seen = await eventually(lambda: ready(kubectl, "toy"))
    assert endpoint(seen) == f"http://127.0.0.1:{port}"
    assert call(seen, "/ready") == b""


async def test_two_containers_share_a_pod_but_not_their_fate(kubectl: Kubectl) -> None:
    other = container("crash", "1", name="other")
    kubectl.apply(pod("toy", container(), other))

    def half() -> dict[str, dict[str, object]]:
        seen = kubectl.json("get", "pod", "toy")
        found = {one["name"]: one for one in seen["status"].get("containerStatuses", [])}
        assert found["other"]["restartCount"] >= 1 and found["server"]["ready"]
        return found

    found = await eventually(half, retry=(AssertionError, KeyError))
    assert found["server"]["restartCount"] == 0
    await eventually(lambda: kubectl.condition("pod", "toy", "Ready")["status"] == "False")


async def test_a_pod_past_its_deadline_fails(kubectl: Kubectl, node_agent: NodeAgent) -> None:
    kubectl.apply(pod("toy", activeDeadlineSeconds=2))
    seen = await eventually(
        lambda: kubectl.json("get", "pod", "toy"), until=lambda p: p["status"]["phase"] == "Failed"
    )
    assert seen["status"]["reason"] == "DeadlineExceeded"
    assert processes_of(node_agent.pod_dir(seen)) == []
