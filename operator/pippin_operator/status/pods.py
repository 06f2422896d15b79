"""What Pods say of themselves, in words that users know: scheduler, kubelet, server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pippin_contract import wire

Pod = Mapping[str, Any]

_PULL = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "RegistryUnavailable",
        "ImageInspectError",
        "SignatureValidationFailed",
    }
)
#: Waiting reasons that are the way of every start.
_STARTING = frozenset({"ContainerCreating", "PodInitializing", ""})
_GPUS = ("nvidia.com/", "amd.com/", "gpu")
#: Server reasons that are about the model and not about the process.
MODEL_REASONS = frozenset(
    {
        "ModelSourceUnauthorized",
        "ModelSourceNotFound",
        "ModelSourceUnreachable",
        "ModelCorrupted",
        "ModelNotFound",
        "ModelUnsupported",
        "ModelInvalid",
    }
)


@dataclass(frozen=True)
class Trouble:
    """Why a Pod does not serve. `stuck`: it gets no better until somebody does something."""

    reason: str
    message: str
    stuck: bool = True


def is_ready(pod: Pod) -> bool:
    return not is_ending(pod) and condition(pod, "Ready").get("status") == "True"


def is_ending(pod: Pod) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_over(pod: Pod) -> bool:
    """It ended, and nothing of it will run again (evicted, refused by its node)."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def is_starting(pod: Pod) -> bool:
    """It has not served yet, and nothing is wrong with it."""
    if is_ready(pod) or is_ending(pod) or is_over(pod) or unscheduled(pod) or trouble(pod):
        return False
    return not any(status.get("started") for status in _statuses(pod))


def is_creating(pod: Pod) -> bool:
    """A node has it and makes its volumes, sandbox and image: what is wrong then, events tell."""
    if node(pod) is None or is_ending(pod) or is_over(pod):
        return False
    waiting = [(status.get("state") or {}).get("waiting") for status in _statuses(pod)]
    return all(entry is not None and entry.get("reason", "") in _STARTING for entry in waiting)


def told_by(event: Mapping[str, Any]) -> Trouble:
    """An event's reason and words; it may mend itself, so nothing stands still for it."""
    return Trouble(event.get("reason") or "PodFailed", event.get("note") or "", stuck=False)


def condition(pod: Pod, kind: str) -> Mapping[str, Any]:
    found: Iterable[Mapping[str, Any]] = pod.get("status", {}).get("conditions") or ()
    return next((entry for entry in found if entry["type"] == kind), {})


def node(pod: Pod) -> str | None:
    name: str | None = pod.get("spec", {}).get("nodeName")
    return name


def unscheduled(pod: Pod) -> Trouble | None:
    """What the scheduler says, sorted by what is missing."""
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") != "False":
        return None
    message = scheduled.get("message", "")
    return Trouble(_missing(message), message or "the scheduler found no node")


def _missing(message: str) -> str:
    insufficient = [part for part in message.split(",") if "Insufficient" in part]
    if any(gpu in part for part in insufficient for gpu in _GPUS):
        return "InsufficientGPU"
    if any("memory" in part for part in insufficient):
        return "InsufficientMemory"
    if insufficient:
        return "InsufficientCPU" if "cpu" in insufficient[0] else "InsufficientResources"
    return "NoMatchingNode"


def trouble(pod: Pod) -> Trouble | None:
    """Why the Pod does not serve, when more than time is needed or when it died before."""
    lost = condition(pod, "DisruptionTarget")
    if lost.get("status") == "True" and not is_ready(pod):
        return Trouble("NodeLost", lost.get("message", "the node is gone"), stuck=False)
    if pod.get("status", {}).get("phase") == "Failed" and not _statuses(pod):
        return _failed(pod)
    for status in _statuses(pod):
        found = _container(status)
        if found is not None:
            return found
    return _failed(pod) if pod.get("status", {}).get("phase") == "Failed" else None


def _failed(pod: Pod) -> Trouble:
    status = pod["status"]
    reason, message = status.get("reason") or "PodFailed", status.get("message") or ""
    return Trouble(reason, message or "the Pod ended and will not run again")


def _statuses(pod: Pod) -> list[Mapping[str, Any]]:
    status = pod.get("status", {})
    return [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]


def _container(status: Mapping[str, Any]) -> Trouble | None:
    if status.get("ready"):
        return None
    state = status.get("state") or {}
    waiting = state.get("waiting")
    died = state.get("terminated") or (status.get("lastState") or {}).get("terminated")
    if waiting is not None:
        reason, message = waiting.get("reason") or "", waiting.get("message") or ""
        if reason in _PULL:
            return Trouble("ImagePullFailed", message or reason)
        if reason == "CrashLoopBackOff":
            return _death(died or {}, message)
        if reason not in _STARTING:
            return Trouble(reason, message or reason)
    return _death(died, "") if died else None


def _death(terminated: Mapping[str, Any], fallback: str) -> Trouble:
    """What the server wrote as it ended, else how it ended."""
    code = terminated.get("exitCode")
    written = terminated.get("message") or ""
    reason, words = wire.parse_termination_message(written)
    if terminated.get("reason") == "OOMKilled":
        return Trouble("OutOfMemory", "the server was killed for memory: raise resources.limits")
    if reason is not None:
        return Trouble(reason, words)
    ended = f"the server ended with exit code {code}" if code is not None else fallback
    return Trouble("CrashLooping", ": ".join(filter(None, (ended, _last_line(words)))))


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
