"""`kubectl logs` of native Pods, and who may read them."""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from support.eventually import eventually
from support.kubectl import Kubectl, KubectlFailed
from support.nodeagent import NodeAgent, call, container, first, pod, ready


def said(kubectl: Kubectl, *flags: str) -> list[str]:
    return kubectl("logs", "toy", *flags).splitlines()


async def test_kubectl_logs_shows_what_the_process_wrote(kubectl: Kubectl) -> None:
    kubectl.apply(pod("toy"))
    seen = await eventually(lambda: ready(kubectl, "toy"))
    for text in ("one", "two", "three"):
        call(seen, f"/say?text={text}")
    await eventually(lambda: said(kubectl, "--tail=2") == ["two", "three"])
    assert said(kubectl)[-3:] == ["one", "two", "three"]
    assert said(kubectl, "--since=1h")[-1] == "three"
    stamped = said(kubectl, "--tail=1", "--timestamps")[0]
    assert stamped.endswith("Z three")
    assert kubectl("logs", "toy", "--limit-bytes=4") == kubectl("logs", "toy")[:4]


async def test_a_followed_log_ends_with_the_container(kubectl: Kubectl) -> None:
    kubectl.apply(pod("toy", restartPolicy="Never"))
    seen = await eventually(lambda: ready(kubectl, "toy"))
    following = await asyncio.create_subprocess_exec(
        str(kubectl.binary),
        f"--kubeconfig={kubectl.kubeconfig}",
        *("-n", str(kubectl.namespace), "logs", "-f", "toy"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert following.stdout is not None
    async with asyncio.timeout(20):
        assert (await following.stdout.readline()).startswith(b"serving on")
        call(seen, "/say?text=live")
        assert await following.stdout.readline() == b"live\n"
        with pytest.raises((ConnectionError, urllib.error.URLError, OSError)):
            call(seen, "/exit?code=0")
        assert await following.stdout.read() == b""
        assert await following.wait() == 0


async def test_the_log_of_the_attempt_before_is_kept(kubectl: Kubectl) -> None:
    kubectl.apply(pod("toy", container("crash", "1")))

    def restarted() -> bool:
        return bool(first(kubectl.json("get", "pod", "toy")).get("restartCount", 0) >= 1)

    await eventually(restarted)
    assert said(kubectl, "--previous") == ["about to fail"]


async def test_a_container_that_never_ran_says_why_it_has_no_log(kubectl: Kubectl) -> None:
    volume = {"name": "c", "configMap": {"name": "absent"}}
    kubectl.apply(pod("toy", volumes=[volume]))

    def words() -> str:
        try:
            return kubectl("logs", "toy")
        except KubectlFailed as error:
            return str(error)

    await eventually(lambda: "is waiting to start: ContainerCreating" in words())


async def test_exec_is_refused_in_plain_words(kubectl: Kubectl) -> None:
    kubectl.apply(pod("toy"))
    await eventually(lambda: ready(kubectl, "toy"))
    with pytest.raises(KubectlFailed, match="exec is not supported on a native node"):
        kubectl("exec", "toy", "--", "true")


def test_strangers_and_the_unprivileged_read_no_logs(node_agent: NodeAgent) -> None:
    node = node_agent.kubectl.json("get", "node", node_agent.name)
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    assert fetch(node_agent, port, None) == 401
    assert fetch(node_agent, port, "not-a-token") == 401
    token = node_agent.kubectl("-n", "default", "create", "token", "default").strip()
    assert fetch(node_agent, port, token) == 403
    node_agent.kubectl(
        "create", "clusterrolebinding", "metrics-reader",
        "--clusterrole=system:kubelet-api-admin", "--serviceaccount=default:reader",
    )  # fmt: skip
    node_agent.kubectl("-n", "default", "create", "serviceaccount", "reader")
    token = node_agent.kubectl("-n", "default", "create", "token", "reader").strip()
    assert fetch(node_agent, port, token) == 200


def fetch(agent: NodeAgent, port: int, token: str | None) -> int:
    """Status of GET /metrics over TLS that the cluster's CA vouches for."""
    trust = ssl.create_default_context(cafile=str(agent.plane.authority))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"https://127.0.0.1:{port}/metrics", headers=headers)
    try:
        with urllib.request.urlopen(request, context=trust, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_files_of_the_agent_are_for_its_owner_only(node_agent: NodeAgent) -> None:
    for name in ("kubelet-client.pem", "node.kubeconfig", "serving.pem", "node.json"):
        assert (node_agent.root / name).stat().st_mode & 0o077 == 0, name
    joined = json.loads(Path(node_agent.root / "node.json").read_text())
    assert joined["name"] == node_agent.name
