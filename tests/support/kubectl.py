"""kubectl as a person types it, for tests that look at a cluster from outside."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.eventually import PAUSE

#: Seconds that one kubectl call may take.
TIMEOUT = 60


class KubectlFailed(AssertionError):
    """kubectl said no; the message holds what it printed on stderr."""


@dataclass(frozen=True)
class Kubectl:
    """One kubeconfig, one binary, optionally one namespace."""

    binary: Path
    kubeconfig: Path
    namespace: str | None = None

    def within(self, namespace: str) -> Kubectl:
        return Kubectl(self.binary, self.kubeconfig, namespace)

    def __call__(self, *args: str, stdin: str | None = None, timeout: float = TIMEOUT) -> str:
        scope = ["-n", self.namespace] if self.namespace else []
        done = subprocess.run(
            [str(self.binary), *scope, *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )
        if done.returncode:
            raise KubectlFailed(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def json(self, *args: str) -> Any:
        return json.loads(self(*args, "-o", "json"))

    def items(self, *args: str) -> list[dict[str, Any]]:
        return list(self.json("get", *args)["items"])

    def apply(self, *manifests: Mapping[str, Any]) -> str:
        # As JSON: what is a string for one YAML library is a number for another ("2326e4").
        together = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        return self("apply", "-f", "-", stdin=json.dumps(together))

    def patch(self, what: str, name: str, patch: Mapping[str, Any]) -> None:
        self("patch", what, name, "--type=merge", "-p", json.dumps(patch))

    def condition(self, what: str, name: str, kind: str) -> dict[str, Any]:
        """The condition of that type, or an empty one when it is not there yet."""
        conditions = self.json("get", what, name).get("status", {}).get("conditions", [])
        return next((dict(c) for c in conditions if c["type"] == kind), {})


def kinds_established(kubectl: Callable[..., str], within: float = 30) -> None:
    """Until the API server serves every CRD it has.

    `kubectl wait` is no help: it gives up on a CRD that has no conditions at all yet.
    """
    deadline = time.monotonic() + within
    while True:
        crds = json.loads(kubectl("get", "crd", "-o", "json"))["items"]
        if all(_established(crd) for crd in crds):
            return
        assert time.monotonic() < deadline, [crd["metadata"]["name"] for crd in crds]
        time.sleep(PAUSE)


def _established(crd: Mapping[str, Any]) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
