"""A real node agent as a process of its own, with a toy in place of Pippin's programs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
from cluster.controlplane import ControlPlane

from pippin_contract import __version__, wire
from support.eventually import eventually
from support.kubectl import Kubectl, KubectlFailed

TOY = Path(__file__).with_name("toy_server.py")
IMAGE = f"registry.invalid/any/pippin-server:{__version__}-toy"

READY = {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1}

#: Quick, so that tests of waiting take little of it.
QUICK = {
    "PIPPIN_NODE_BACKOFF_SECONDS": "1.5",
    "PIPPIN_NODE_RESYNC_SECONDS": "1",
    "PIPPIN_NODE_RETRY_SECONDS": "0.5",
    "PIPPIN_NODE_NODE_CHECK_SECONDS": "2",
}


@dataclass
class NodeAgent:
    """Starts, kills and ends one agent; its Pods are its own."""

    plane: ControlPlane
    root: Path
    name: str
    flags: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.plane.binaries / "kubectl", self.plane.kubeconfig)

    @property
    def log(self) -> Path:
        return self.root.with_name(f"{self.root.name}.log")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pippin_node", *arguments, "--root", str(self.root)]

    def environment(self) -> dict[str, str]:
        images = {"pippin-server": [sys.executable, str(TOY)]}
        return {**os.environ, **QUICK, "PIPPIN_NODE_IMAGES": json.dumps(images)}

    def join(self) -> None:
        bootstrap = self.plane.bootstrap_kubeconfig()
        subprocess.run(
            self.command("join", "--name", self.name, "--bootstrap-kubeconfig", str(bootstrap)),
            env=self.environment(),
            check=True,
            timeout=60,
        )

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command("run", *self.flags), env=self.environment(), stdout=log, stderr=log
            )

    def end(self, number: int = signal.SIGTERM) -> None:
        """Signal the agent and wait for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(timeout=20)
        self.process = None

    def reset(self) -> str:
        """`pippin-node reset`: agent, Pods, files."""
        done = subprocess.run(
            self.command("reset", "--grace", "5"),
            env=self.environment(),
            check=True,
            timeout=60,
            capture_output=True,
            text=True,
        )
        if self.process is not None:
            self.process.wait(timeout=20)
            self.process = None
        return done.stdout

    async def ready(self) -> dict[str, Any]:
        """The Node once it is Ready."""

        def look() -> dict[str, Any]:
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the agent has ended; its log: {self.log.read_text()[-2000:]}")
            try:
                kind, node = "Ready", self.kubectl.json("get", "node", self.name)
            except KubectlFailed as error:
                log = self.log.read_text()[-2000:]
                raise AssertionError(f"{error}; the agent's log: {log}") from error
            ready = [c for c in node["status"]["conditions"] if c["type"] == kind]
            assert ready and ready[0]["status"] == "True", ready
            return dict(node)

        return await eventually(look, within=30, retry=(AssertionError, KeyError))

    def pod_dir(self, pod: dict[str, Any]) -> Path:
        return self.root / "pods" / str(pod["metadata"]["uid"])


def container(*args: str, **fields: Any) -> dict[str, Any]:
    """A toy container; `serve` with a port named http unless args say other."""
    base: dict[str, Any] = {"name": "server", "image": IMAGE, "args": list(args or ("serve",))}
    if not args:
        base["readinessProbe"] = READY
        base["ports"] = [{"name": "http", "containerPort": 8000}]
    return {**base, **fields}


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A Pod that any native node takes."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "containers": list(containers or (container(),)),
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 5,
            "tolerations": [{"operator": "Exists"}],
            **spec,
        },
    }


def endpoint(seen: dict[str, Any]) -> str:
    """The URL that the agent put into the Pod's status; empty when it has not yet."""
    for condition in seen.get("status", {}).get("conditions", []):
        if condition["type"] == wire.ENDPOINT_CONDITION and condition["status"] == "True":
            return str(condition["message"])
    return ""


def call(seen: dict[str, Any], path: str) -> bytes:
    """GET from the toy in the Pod."""
    with urlopen(endpoint(seen) + path, timeout=5) as answer:
        return bytes(answer.read())


def ready(kubectl: Kubectl, name: str) -> dict[str, Any]:
    """The Pod if it is Ready; an assertion that fails otherwise."""
    seen = kubectl.json("get", "pod", name)
    states = {c["type"]: c["status"] for c in seen["status"].get("conditions", [])}
    assert states.get("Ready") == "True", seen["status"]
    return dict(seen)


def first(seen: dict[str, Any]) -> dict[str, Any]:
    """The status of the Pod's first container; empty when there is none yet."""
    statuses = seen["status"].get("containerStatuses") or [{}]
    return dict(statuses[0])


def waiting(kubectl: Kubectl, name: str) -> dict[str, str]:
    """Why the Pod's first container waits; empty when it does not."""
    state = first(kubectl.json("get", "pod", name)).get("state", {})
    return dict(state.get("waiting", {}))


def event_messages(kubectl: Kubectl, reason: str) -> list[str]:
    found = kubectl.items("events", f"--field-selector=reason={reason}")
    return [str(event["message"]) for event in found]


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processes_of(root: Path) -> list[int]:
    """Every process that has the directory in its environment or command line."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            said = [*process.cmdline(), *process.environ().values()]
            if any(str(root) in word for word in said):
                found.append(process.pid)
    return sorted(set(found) - {os.getpid()})
