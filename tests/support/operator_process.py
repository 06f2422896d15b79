"""The operator as a process of its own against a test's control plane, and its objects as data."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cluster.controlplane import ControlPlane
from cluster.stack import free_port

from pippin_contract import wire
from support.chart import Chart
from support.eventually import eventually
from support.kubectl import kinds_established

CRDS = Path(__file__).parents[2] / "crds"
SYSTEM = "pippin-system"
ACCOUNT = "pippin-operator"
#: Seconds for the operator to start on a busy machine.
START = 60

PATHS = {
    "modeldeployments": f"/apis/{wire.API_VERSION}",
    "apikeys": f"/apis/{wire.API_VERSION}",
    "deployments": "/apis/apps/v1",
    "services": "/api/v1",
    "configmaps": "/api/v1",
    "secrets": "/api/v1",
    "persistentvolumeclaims": "/api/v1",
    "pods": "/api/v1",
    "events": "/apis/events.k8s.io/v1",
}


@dataclass
class Cluster:
    """The API server as tests read and write it."""

    plane: ControlPlane

    def path(self, plural: str, namespace: str, name: str = "") -> str:
        root = PATHS.get(plural, "/apis/monitoring.coreos.com/v1")
        return f"{root}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")

    def get(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.plane.api.get(self.path(plural, namespace, name))
        return found

    def list(self, plural: str, namespace: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.plane.api.get(self.path(plural, namespace))["items"]
        return found

    def create(self, plural: str, body: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = self.plane.api.create(
            self.path(plural, body["metadata"]["namespace"]), body
        )
        return made

    def delete(self, plural: str, namespace: str, name: str) -> None:
        self.plane.api.delete(self.path(plural, namespace, name))

    def status(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(plural, namespace, name).get("status", {})
        return found

    def condition(self, plural: str, namespace: str, name: str, kind: str) -> dict[str, Any]:
        found = self.status(plural, namespace, name).get("conditions", [])
        return next((entry for entry in found if entry["type"] == kind), {})

    def set_status(self, plural: str, namespace: str, name: str, status: dict[str, Any]) -> None:
        path = self.path(plural, namespace, name)
        self.plane.api.update(path, {"status": status}, "/status")

    def versions(self, namespace: str) -> dict[str, str]:
        """Resource version of everything that the operator writes in a namespace."""
        kinds = [kind for kind in PATHS if kind not in ("pods", "events")]
        return {
            f"{kind}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
            for kind in kinds
            for item in self.list(kind, namespace)
        }


@dataclass
class Operator:
    """One operator process; `environment` is laid over what every test wants."""

    kubeconfig: Path
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Until everything has been read once."""
        self._launch()
        await eventually(self.ready, within=START)

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pippin_operator", "run"],
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "KUBECONFIG": str(self.kubeconfig),
                    "POD_NAMESPACE": SYSTEM,
                    "PIPPIN_OPERATOR_HOST": "127.0.0.1",
                    "PIPPIN_OPERATOR_PORT": str(self.port),
                    "PIPPIN_OPERATOR_GATEWAY_URL": "http://gateway.example",
                    "PIPPIN_OPERATOR_KEY_CHECK_SECONDS": "1",
                    "PIPPIN_OPERATOR_API_CHECK_SECONDS": "1",
                    **self.environment,
                },
            )

    def stop(self, within: float = 20) -> int:
        """Politely; the exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process = None

    def ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the operator ended: {self.log.read_text()[-2000:]}")
        try:
            return self.read("/readyz") == "ok\n"
        except (urllib.error.URLError, OSError):
            return False

    def read(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            text: bytes = answer.read()
        return text.decode()

    def writes(self) -> float:
        """Requests that were not reads, since its start."""
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in self.read("/metrics").splitlines()
            if line.startswith("pippin_operator_api_requests_total") and 'verb="GET"' not in line
        )


def install(plane: ControlPlane, directory: Path) -> Path:
    """CRDs, Pippin's namespace and the chart's rights; a kubeconfig of the operator's own account.

    The token lies in a file, as it does for a native Pod.
    """
    crds = [f"--filename={CRDS / plural}.yaml" for plural in (wire.MODELDEPLOYMENTS, wire.APIKEYS)]
    plane.kubectl("apply", "--server-side", *crds)
    kinds_established(plane.kubectl)
    # kubectl remembers which kinds there are, and asks anew here.
    plane.kubectl("api-resources", f"--api-group={wire.GROUP}")
    plane.api.ensure("/api/v1/namespaces", {"metadata": {"name": SYSTEM}})
    chart = Chart(plane.binaries / "helm")
    kinds = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")
    rights = [
        item
        for item in chart.objects()
        if item["kind"] in kinds and item["metadata"]["name"] == ACCOUNT
    ]
    assert len(rights) == len(kinds)
    plane.kubectl("apply", "--server-side", "-f-", stdin=yaml.safe_dump_all(rights))
    write_token(plane, directory)
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(_kubeconfig(plane)))
    return kubeconfig


def write_token(plane: ControlPlane, directory: Path) -> None:
    """A fresh token of the operator's account, as the node would write it."""
    answer = plane.api.create(
        f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/{ACCOUNT}/token",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
    )
    (directory / "token").write_text(answer["status"]["token"])


def _kubeconfig(plane: ControlPlane) -> dict[str, Any]:
    cluster = {"server": plane.url, "certificate-authority": str(plane.authority)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "it", "user": {"tokenFile": "token"}}],
    }


@contextmanager
def running_operator(kubeconfig: Path, directory: Path, **environment: str) -> Iterator[Operator]:
    """Started; it must end well, unless a test has ended it."""
    operator = Operator(kubeconfig, directory / "operator.log", environment)
    asyncio.run(operator.start())
    try:
        yield operator
    finally:
        if operator.process is not None:
            assert operator.stop() == 0
