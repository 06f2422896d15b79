"""Pods as a scheduler, a kubelet and a server would leave them, for tests without a node."""

from __future__ import annotations

from typing import Any

from pippin_contract import wire

Body = dict[str, Any]


def pod(name: str, namespace: str, model: str) -> Body:
    """One that belongs to a ModelDeployment by its labels."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {
                wire.LABEL_NAME: wire.SERVER_APP,
                wire.LABEL_INSTANCE: model,
                wire.LABEL_MANAGED_BY: wire.MANAGER,
            },
        },
        "spec": {
            "containers": [{"name": "server", "image": "pippin-server:0.1.0-mlx"}],
            "automountServiceAccountToken": False,
        },
    }


def serving() -> Body:
    return {
        "phase": "Running",
        "conditions": [condition("PodScheduled", "True"), condition("Ready", "True")],
        "containerStatuses": [container(ready=True, state={"running": {}})],
    }


def unschedulable(message: str) -> Body:
    return {
        "phase": "Pending",
        "conditions": [condition("PodScheduled", "False", "Unschedulable", message)],
    }


def waiting(reason: str, message: str = "", died: Body | None = None) -> Body:
    """A container that waits; `died`: how its last process ended."""
    state = {"waiting": {"reason": reason, "message": message}}
    return _not_ready(container(state=state, died=died))


def running_again(died: Body) -> Body:
    return _not_ready(container(state={"running": {}}, died=died))


def terminated(code: int, reason: str = "Error", message: str = "") -> Body:
    return {"exitCode": code, "reason": reason, "message": message}


def condition(kind: str, status: str, reason: str = "", message: str = "") -> Body:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def container(*, ready: bool = False, state: Body | None = None, died: Body | None = None) -> Body:
    return {
        "name": "server",
        "image": "pippin-server:0.1.0-mlx",
        "imageID": "",
        "ready": ready,
        "restartCount": 1 if died else 0,
        "state": state or {},
        "lastState": {"terminated": died} if died else {},
    }


def _not_ready(status: Body) -> Body:
    return {
        "phase": "Running",
        "conditions": [condition("PodScheduled", "True"), condition("Ready", "False")],
        "containerStatuses": [status],
    }
