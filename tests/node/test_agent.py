"""The agent itself: joining, heartbeats, its own death, an API server that is away, the end."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.controlplane import ControlPlane

from support.apiserver import new_namespace
from support.eventually import eventually
from support.kubectl import Kubectl
from support.nodeagent import NodeAgent, alive, call, first, pod, processes_of, ready


@pytest.fixture
def spare(full_control_plane: ControlPlane, tmp_path: Path) -> Iterator[NodeAgent]:
    """A second agent, not joined yet, that the test may treat as it likes."""
    agent = NodeAgent(full_control_plane, tmp_path / "root", "spare")
    yield agent
    if agent.root.exists():
        agent.reset()
    agent.kubectl("delete", "node", "spare", "--ignore-not-found")


async def test_a_joined_machine_is_a_ready_node_that_says_what_it_is(
    node_agent: NodeAgent,
) -> None:
    node = await node_agent.ready()
    labels, status = node["metadata"]["labels"], node["status"]
    assert labels["kubernetes.io/os"] == sys.platform
    assert labels["kubernetes.io/hostname"] == "toy"
    assert labels["pippin.dev/memory"].endswith("Gi")
    assert status["capacity"]["pods"] == "110"
    assert {"type": "InternalIP", "address": "127.0.0.1"} in status["addresses"]
    states = {c["type"]: c["status"] for c in status["conditions"]}
    assert states == {
        "Ready": "True",
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
    }
    lease = node_agent.kubectl.json("-n", "kube-node-lease", "get", "lease", "toy")
    assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


async def test_a_node_that_was_given_up_for_a_while_is_ready_again(
    node_agent: NodeAgent, full_control_plane: ControlPlane
) -> None:
    """As Kubernetes does when the node was not heard of, for an outage of the API server, say."""
    kubectl, name = node_agent.kubectl, node_agent.name
    before = kubectl.condition("node", name, "Ready")
    unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
    kubectl(
        *("patch", "node", name, "--subresource=status"),
        *("-p", json.dumps({"status": {"conditions": [unknown]}})),
    )
    after = await eventually(
        lambda: kubectl.condition("node", name, "Ready"),
        until=lambda condition: condition["status"] == "True",
    )
    assert after["reason"] == before["reason"]


async def test_a_settled_node_writes_no_status(node_agent: NodeAgent) -> None:
    node = node_agent.kubectl.json("get", "node", node_agent.name)
    # Long enough for several looks: that nothing happens is the state under test.
    await asyncio.sleep(3 * float(node_agent.environment()["PIPPIN_NODE_NODE_CHECK_SECONDS"]))
    later = node_agent.kubectl.json("get", "node", node_agent.name)
    assert later["metadata"]["resourceVersion"] == node["metadata"]["resourceVersion"]


async def test_a_mac_is_tainted_so_that_only_its_own_pods_come(spare: NodeAgent) -> None:
    spare.flags = ["--os", "darwin"]
    spare.join()
    spare.start()
    node = await spare.ready()
    assert node["metadata"]["labels"]["kubernetes.io/os"] == "darwin"
    taints = [(t["key"], t.get("value"), t["effect"]) for t in node["spec"]["taints"]]
    assert ("kubernetes.io/os", "darwin", "NoSchedule") in taints


async def test_a_killed_agent_finds_its_pods_again_and_they_notice_nothing(
    kubectl: Kubectl, node_agent: NodeAgent
) -> None:
    kubectl.apply(pod("toy"))
    before = await eventually(lambda: ready(kubectl, "toy"))
    pid = call(before, "/pid")
    node_agent.end(signal.SIGKILL)
    node_agent.start()
    await node_agent.ready()
    call(before, "/touch?path=/tmp/unready")  # only an agent that adopted the Pod will notice
    await eventually(lambda: not first(kubectl.json("get", "pod", "toy"))["ready"])
    after = kubectl.json("get", "pod", "toy")
    assert call(after, "/pid") == pid
    assert first(after)["restartCount"] == 0
    assert first(after)["containerID"] == first(before)["containerID"]


async def test_what_happened_while_the_agent_was_away_is_made_good(
    kubectl: Kubectl, node_agent: NodeAgent
) -> None:
    kubectl.apply(pod("killed"), pod("deleted"))
    killed = await eventually(lambda: ready(kubectl, "killed"))
    deleted = await eventually(lambda: ready(kubectl, "deleted"))
    pid = int(call(killed, "/pid"))
    node_agent.end(signal.SIGTERM)
    assert alive(pid)
    with pytest.raises(OSError):
        call(killed, "/exit?code=7")
    kubectl("delete", "pod", "deleted", "--grace-period=0", "--force")
    node_agent.start()

    def restarted() -> dict[str, Any]:
        seen = ready(kubectl, "killed")
        assert first(seen)["restartCount"] == 1
        return seen

    seen = await eventually(restarted)
    assert first(seen)["lastState"]["terminated"]["exitCode"] == 7
    await eventually(lambda: not node_agent.pod_dir(deleted).exists())
    assert processes_of(node_agent.pod_dir(deleted)) == []


async def test_pods_run_on_without_an_api_server_and_what_changed_is_told_later(
    kubectl: Kubectl, node_agent: NodeAgent
) -> None:
    kubectl.apply(pod("toy"))
    before = await eventually(lambda: ready(kubectl, "toy"))
    lease = ("-n", "kube-node-lease", "get", "lease", node_agent.name)
    renewed = node_agent.kubectl.json(*lease)["spec"]["renewTime"]
    node_agent.plane.stop_apiserver()
    try:
        with pytest.raises(OSError):
            call(before, "/exit?code=3")
        await eventually(lambda: call(before, "/ready") == b"", retry=(OSError,))
    finally:
        node_agent.plane.start_apiserver()

    def told() -> dict[str, Any]:
        seen = ready(kubectl, "toy")
        assert first(seen)["restartCount"] == 1
        return seen

    seen = await eventually(told)
    assert first(seen)["lastState"]["terminated"]["exitCode"] == 3
    await eventually(lambda: node_agent.kubectl.json(*lease)["spec"]["renewTime"] > renewed)


async def test_reset_ends_agent_and_pods_and_removes_the_root(spare: NodeAgent) -> None:
    spare.join()
    spare.start()
    await spare.ready()
    namespace = new_namespace(spare.plane)
    kubectl = spare.kubectl.within(namespace)
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    await eventually(lambda: spare.plane.api.ok(account))
    kubectl.apply(pod("toy", nodeName="spare"))
    seen = await eventually(lambda: ready(kubectl, "toy"))
    pid = int(call(seen, "/pid"))
    assert "ended 1 processes" in spare.reset()
    assert not spare.root.exists()
    assert not alive(pid)
    assert processes_of(spare.root) == []
    kubectl("delete", "pod", "toy", "--grace-period=0", "--force")


def test_one_root_has_one_agent(node_agent: NodeAgent) -> None:
    done = subprocess.run(
        node_agent.command("run"), env=node_agent.environment(), capture_output=True, timeout=30
    )
    assert done.returncode == 1
    assert b"is in use by pid" in done.stderr


def test_reset_touches_no_directory_that_is_not_the_agents(
    spare: NodeAgent, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("data")
    spare.root = tmp_path
    done = subprocess.run(
        spare.command("reset"), env=spare.environment(), capture_output=True, timeout=30
    )
    spare.root = tmp_path / "root"
    assert done.returncode == 1
    assert (tmp_path / "precious").read_text() == "data"


def test_a_wrong_bootstrap_token_is_said_plainly(spare: NodeAgent) -> None:
    done = subprocess.run(
        spare.command(
            *("join", "--server", spare.plane.url, "--token", "abcdef.0123456789abcdef"),
            *("--ca-file", str(spare.plane.authority), "--name", "spare"),
        ),
        env=spare.environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "pippin-node: Unauthorized"
