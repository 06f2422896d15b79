"""Pippin on this one machine: a control plane, a node made of this machine, and the chart.

What `make demo` shows and what the end-to-end tests run on. Each step is a method of its own, so
that whoever climbs them can say where it is.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .components import FULL
from .controlplane import ControlPlane
from .pki import LOOPBACK

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts" / "pippin"
NAMESPACE = "pippin-system"
NODE = "node"

_JOIN_SECONDS = 60.0
_ROLLOUT_SECONDS = 180
_SHORT_SECONDS = 60


class StepFailed(Exception):
    """A step that did not end well: what it said last, and where to read more."""


class Stack:
    """One directory, one control plane, one node, one gateway on a loopback port."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    @classmethod
    def create(cls, state: Path, programs: Path, *, durable: bool = False) -> Stack:
        """A new one in an empty place; nothing runs yet."""
        return cls(ControlPlane.create(state, programs, durable=durable))

    @classmethod
    def open(cls, state: Path) -> Stack:
        """The one that was made in this directory. Raises FileNotFoundError when there is none."""
        return cls(ControlPlane.open(state))

    @property
    def node_root(self) -> Path:
        """The node agent's directory: identity, Pods, their logs."""
        return self.plane.state / NODE

    @property
    def gateway_url(self) -> str:
        """Where applications reach the gateway, once the chart is installed."""
        return f"http://{LOOPBACK}:{(self.plane.state / 'gateway-port').read_text()}"

    def start_control_plane(self) -> None:
        """Step one. Raises cluster.processes.StartFailed."""
        self.plane.start(FULL)

    def join_node(self, name: str, host_paths: Sequence[Path] = ()) -> None:
        """Make this machine a Node that may show `host_paths` to its Pods."""
        bootstrap = self.plane.bootstrap_kubeconfig()
        root = ["--root", str(self.node_root)]
        self._agent("join", "--name", name, *root, "--bootstrap-kubeconfig", str(bootstrap))
        self.start_node(name, host_paths)

    def start_node(self, name: str, host_paths: Sequence[Path] = ()) -> None:
        """Start the agent of a node that has joined, and wait until it is Ready."""
        allowed = [f"--allow-host-path={path}" for path in host_paths]
        self.plane.processes.start(
            NODE,
            [sys.executable, "-m", "pippin_node", "run", "--root", str(self.node_root), *allowed],
            self.plane.environment(),
        )
        self.plane.processes.wait_ready(
            NODE, lambda: self._node_is_ready(name), within=_JOIN_SECONDS
        )

    def install_chart(self, gateway_port: int | None = None) -> None:
        """Install or upgrade with the embedded values; until operator and gateway are ready."""
        chosen = self.plane.state / "gateway-port"
        if not chosen.exists():
            chosen.write_text(str(gateway_port or free_port()))
        # An install that was interrupted would lock the release for ever.
        pending = "owner=helm,name=pippin,status in (pending-install,pending-upgrade)"
        self.plane.kubectl("-n", NAMESPACE, "delete", "secret", "-l", pending)
        self._run(
            str(self.plane.binaries / "helm"),
            f"--kubeconfig={self.plane.kubeconfig}",
            *("upgrade", "--install", "pippin", str(CHART)),
            *("--namespace", NAMESPACE, "--create-namespace"),
            *("-f", str(CHART / "values-embedded.yaml")),
            *("--set", f"gateway.hostPort={chosen.read_text()}"),
        )
        for part in ("operator", "gateway"):
            self.plane.kubectl(
                *("-n", NAMESPACE, "rollout", "status", f"deployment/pippin-{part}"),
                f"--timeout={_ROLLOUT_SECONDS}s",
                timeout=_ROLLOUT_SECONDS + _SHORT_SECONDS,
            )

    def remove(self) -> None:
        """End the node and its Pods, then the control plane, and delete the directory."""
        self.plane.processes.stop(NODE)
        if self.node_root.exists():
            self._agent("reset", "--root", str(self.node_root))
        self.plane.remove()

    def _node_is_ready(self, name: str) -> bool:
        try:
            node = json.loads(self.plane.kubectl("get", "node", name, "-o", "json"))
        except subprocess.CalledProcessError:
            return False
        conditions = node.get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def _agent(self, *arguments: str) -> None:
        self._run(sys.executable, "-m", "pippin_node", *arguments)

    def _run(self, *argv: str) -> None:
        done = subprocess.run(
            argv,
            env=self.plane.environment(),
            capture_output=True,
            text=True,
            timeout=_JOIN_SECONDS + _ROLLOUT_SECONDS,
        )
        if done.returncode:
            words = (done.stderr or done.stdout).strip()
            raise StepFailed(f"`{' '.join(argv)}` failed:\n{words}")


def free_port(address: str = LOOPBACK) -> int:
    """A port of this machine's address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
