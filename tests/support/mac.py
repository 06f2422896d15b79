"""A machine of its own that joins a cluster as docs/macs.md says, and passes for a Mac."""

from __future__ import annotations

import base64
import datetime as dt
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from support.kubectl import Kubectl

#: The group of `kubeadm token create`, whose requests the cluster approves by itself.
JOINERS = "system:bootstrappers:kubeadm:default-node-token"


def bootstrap_token(kubectl: Kubectl) -> str:
    """As `kubeadm token create` makes it, for an hour."""
    token_id, secret = secrets.token_hex(3), secrets.token_hex(8)
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"bootstrap-token-{token_id}", "namespace": "kube-system"},
            "type": "bootstrap.kubernetes.io/token",
            "stringData": {
                "token-id": token_id,
                "token-secret": secret,
                "expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "usage-bootstrap-authentication": "true",
                "auth-extra-groups": JOINERS,
            },
        }
    )
    return f"{token_id}.{secret}"


@dataclass
class Mac:
    """`address` is one of this machine's own, at which the gateway reaches it, at `port`."""

    kubectl: Kubectl
    home: Path
    address: str
    port: int
    shared: Path
    name: str = field(default_factory=lambda: f"mac-{secrets.token_hex(3)}")
    process: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> Path:
        return self.home / "root"

    @property
    def log(self) -> Path:
        return self.home / "agent.log"

    def join(self) -> None:
        ca = self.home / "ca.crt"
        cluster = _cluster(self.kubectl.kubeconfig)
        ca.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        self._agent(
            *("join", "--server", cluster["server"], "--ca-file", str(ca)),
            *("--token", "-", "--name", self.name),
            said=bootstrap_token(self.kubectl),
        )

    def start(self) -> None:
        command = [
            *(sys.executable, "-m", "pippin_node", "run", "--os", "darwin"),
            *("--host-address", self.address, "--kubelet-port", str(self.port)),
            *("--allow-host-path", str(self.shared), "--root", str(self.root)),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.kubectl("wait", f"node/{self.name}", "--for=create", "--timeout=30s")
        self.kubectl("wait", f"node/{self.name}", "--for=condition=Ready", "--timeout=60s")

    def leave(self) -> None:
        """End agent and Pods, remove the directory, and the Node from the cluster."""
        self._agent("reset", "--grace", "5")
        if self.process is not None:
            self.process.wait(timeout=20)
        self.kubectl("delete", "node", self.name, "--ignore-not-found")

    def _agent(self, *arguments: str, said: str = "") -> None:
        subprocess.run(
            [sys.executable, "-m", "pippin_node", *arguments, "--root", str(self.root)],
            input=said.encode(),
            check=True,
            timeout=60,
        )


def _cluster(kubeconfig: Path) -> dict[str, Any]:
    (only,) = yaml.safe_load(kubeconfig.read_text())["clusters"]
    return dict(only["cluster"])
