"""`kubectl pippin` as a person has it: a real kubectl finds the plugin."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

from support.operator_process import Cluster


class Typed:
    """`kubectl pippin` as it is typed, in one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        # Where kubectl is, and where the wheel puts its scripts.
        self.path = f"{cluster.plane.binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`kubectl pippin key …`."""
        return self._run("key", *words, "-n", self.namespace)

    def explain(self, request_id: str) -> subprocess.CompletedProcess[str]:
        return self._run("explain", request_id)

    def check(self, path: Path) -> subprocess.CompletedProcess[str]:
        return self._run("check", "-f", str(path), "-n", self.namespace)

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        flags = (f"--kubeconfig={self.cluster.plane.kubeconfig}",)
        return subprocess.run(
            ["kubectl", "pippin", *words, *flags],
            env={**os.environ, "PATH": self.path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def __call__(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode != 0, done.stdout
        assert "Traceback" not in done.stderr
        return done.stderr

    def held(self, name: str = "app") -> str:
        secret = self.cluster.get("secrets", self.namespace, f"{name}-apikey")
        return base64.b64decode(secret["data"]["api-key"]).decode()
