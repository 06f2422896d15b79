"""What a cluster looked like when a test failed: objects, events and logs, in one folder."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from support.kubectl import Kubectl, KubectlFailed

#: Secrets are left out: a folder like this one is passed on.
KINDS = (
    "modeldeployments,apikeys,deployments,replicasets,pods,services,endpointslices,configmaps,"
    "persistentvolumeclaims,networkpolicies,ingresses,servicemonitors,poddisruptionbudgets"
)
VIEWS = {
    "overview.txt": ("get", "mdep,ak,pods", "-A", "-o", "wide"),
    "describe.txt": ("describe", "mdep,ak", "-A"),
    "events.txt": ("get", "events", "-A", "--sort-by=.lastTimestamp"),
    "nodes.txt": ("describe", "nodes"),
}


def dump(kubectl: Kubectl, folder: Path) -> None:
    """Write all that can be had; what cannot says why in its file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, command in VIEWS.items():
        (folder / name).write_text(_said(kubectl, *command))
    for kind in KINDS.split(","):
        text = _said(kubectl, "get", kind, "-A", "-o", "yaml")
        (folder / f"{kind}.yaml").write_text(text)
    with suppress(KubectlFailed, subprocess.TimeoutExpired):
        for pod in kubectl.items("pods", "-A"):
            _logs(kubectl, pod["metadata"]["namespace"], pod["metadata"]["name"], folder / "logs")


def _logs(kubectl: Kubectl, namespace: str, pod: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    command = ("-n", namespace, "logs", pod, "--all-containers", "--tail=5000")
    (folder / f"{namespace}_{pod}.log").write_text(_said(kubectl, *command))
    with suppress(KubectlFailed, subprocess.TimeoutExpired):
        before = kubectl(*command, "--previous", timeout=20)
        (folder / f"{namespace}_{pod}.previous.log").write_text(before)


def _said(kubectl: Kubectl, *command: str) -> str:
    try:
        return kubectl(*command, timeout=20)
    except (KubectlFailed, subprocess.TimeoutExpired) as error:
        return f"{error}\n"
