"""The status of a Pod, derived from what is seen of its containers. Pure; the kubelet's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pippin_contract.wire import ENDPOINT_CONDITION

from .process import Exit
from .records import Json

#: Keys of a condition that may differ without the condition being another one.
_TIMES = ("lastTransitionTime", "lastProbeTime")


@dataclass(frozen=True)
class Ended:
    """An attempt that is over."""

    attempt: int
    exit: Exit
    started_at: str | None
    message: str = ""


@dataclass(frozen=True)
class Seen:
    """One container as it is now. Exactly one of waiting, running, ended is set."""

    name: str
    image: str
    attempt: int = 0
    waiting: tuple[str, str] | None = None
    running_since: str | None = None
    ended: Ended | None = None
    last: Ended | None = None
    started: bool = False
    ready: bool = False


@dataclass(frozen=True)
class Circumstances:
    """What else the status depends on."""

    host_ip: str
    started_at: str
    now: str
    endpoint: str | None = None
    finishing: bool = False
    failure: tuple[str, str] | None = None
    known: Json = field(default_factory=dict)


def container_id(uid: str, name: str, attempt: int) -> str:
    return f"pippin://{uid}/{name}/{attempt}"


def to_seconds(time: str) -> str:
    """As the API server stores times; with anything finer each look would find a difference."""
    return time.partition(".")[0].rstrip("Z") + "Z"


def terminated(uid: str, name: str, ended: Ended) -> Json:
    """`state.terminated` of an attempt."""
    exit = ended.exit
    state: Json = {
        "exitCode": exit.code,
        "reason": exit_reason(exit),
        "startedAt": to_seconds(ended.started_at or exit.finished_at),
        "finishedAt": to_seconds(exit.finished_at),
        "containerID": container_id(uid, name, ended.attempt),
    }
    if exit.signal:
        state["signal"] = exit.signal
    message = exit.error or ended.message
    if message:
        state["message"] = message
    return state


def exit_reason(exit: Exit) -> str:
    if exit.unknown:
        return "ContainerStatusUnknown"
    if exit.error:
        return "StartError"
    if exit.oom:
        return "OOMKilled"
    return "Completed" if exit.code == 0 else "Error"


def container_status(uid: str, seen: Seen) -> Json:
    status: Json = {
        "name": seen.name,
        "image": seen.image,
        "imageID": "",
        "restartCount": seen.attempt,
        "ready": seen.ready,
        "started": seen.started,
        "state": _state(uid, seen),
        "lastState": {},
    }
    if seen.last is not None:
        status["lastState"] = {"terminated": terminated(uid, seen.name, seen.last)}
    if seen.running_since is not None or seen.ended is not None:
        status["containerID"] = container_id(uid, seen.name, seen.attempt)
    elif seen.last is not None:
        status["containerID"] = container_id(uid, seen.name, seen.last.attempt)
    return status


def _state(uid: str, seen: Seen) -> Json:
    if seen.ended is not None:
        return {"terminated": terminated(uid, seen.name, seen.ended)}
    if seen.running_since is not None:
        return {"running": {"startedAt": to_seconds(seen.running_since)}}
    reason, message = seen.waiting or ("ContainerCreating", "")
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def phase(restart_policy: str, containers: Sequence[Seen]) -> str:
    """As the kubelet's getPhase."""
    running = sum(1 for seen in containers if seen.running_since is not None)
    fresh = sum(1 for seen in containers if seen.waiting is not None and seen.last is None)
    if fresh:
        return "Pending"
    if running or restart_policy == "Always":
        return "Running"
    over = [seen.ended or seen.last for seen in containers]
    if all(ended is not None and ended.exit.code == 0 for ended in over):
        return "Succeeded"
    waiting = any(seen.waiting is not None for seen in containers)
    return "Running" if restart_policy == "OnFailure" or waiting else "Failed"


def final_phase(containers: Sequence[Seen]) -> str:
    """Of a Pod that is made to end."""
    over = [seen.ended or seen.last for seen in containers]
    clean = all(ended is not None and ended.exit.code == 0 for ended in over)
    return "Succeeded" if clean else "Failed"


def derive(pod: Json, containers: Sequence[Seen], about: Circumstances) -> Json:
    """The status to post, whole but for what others own (conditions of theirs, qosClass)."""
    uid = pod["metadata"]["uid"]
    policy = pod["spec"].get("restartPolicy", "Always")
    if about.failure is not None:
        now_phase = "Failed"
    else:
        now_phase = final_phase(containers) if about.finishing else phase(policy, containers)
    status: Json = {
        "phase": now_phase,
        "hostIP": about.host_ip,
        "hostIPs": [{"ip": about.host_ip}],
        "startTime": about.started_at,
        "containerStatuses": [container_status(uid, seen) for seen in containers],
        "conditions": _conditions(pod, containers, now_phase, about),
    }
    if about.failure is not None:
        status["reason"], status["message"] = about.failure
    if "generation" in pod["metadata"]:
        status["observedGeneration"] = pod["metadata"]["generation"]
    return status


def _conditions(
    pod: Json, containers: Sequence[Seen], phase: str, about: Circumstances
) -> list[Json]:
    known = {condition["type"]: condition for condition in about.known.get("conditions", [])}
    unready = [seen.name for seen in containers if not seen.ready]
    begun = all(seen.waiting is None or seen.last is not None for seen in containers)
    inside = (True, "", "")
    if phase in ("Succeeded", "Failed"):
        reason = "PodCompleted" if phase == "Succeeded" else "PodFailed"
        inside = (False, reason, "")
    elif unready:
        words = f"containers with unready status: [{' '.join(unready)}]"
        inside = (False, "ContainersNotReady", words)
    wanted = {
        "PodReadyToStartContainers": (begun and phase == "Running", "", ""),
        "Initialized": (True, "", ""),
        "ContainersReady": inside,
        "Ready": inside if not inside[0] else _gates(pod, known),
        "PodScheduled": (True, "", ""),
    }
    if about.endpoint is not None:
        alive = phase in ("Pending", "Running")
        wanted[ENDPOINT_CONDITION] = (alive, "Listening" if alive else "PodEnded", about.endpoint)
    return [_condition(kind, wanted[kind], known.get(kind), about.now) for kind in wanted]


def _gates(pod: Json, known: Mapping[str, Json]) -> tuple[bool, str, str]:
    for gate in pod["spec"].get("readinessGates", []):
        kind = gate["conditionType"]
        if known.get(kind, {}).get("status") != "True":
            words = f'corresponding condition of pod readiness gate "{kind}" does not exist.'
            if kind in known:
                words = f'the status of pod readiness gate "{kind}" is not "True", but False'
            return False, "ReadinessGatesNotReady", words
    return True, "", ""


def _condition(kind: str, says: tuple[bool, str, str], old: Json | None, now: str) -> Json:
    state, reason, message = says
    condition: Json = {"type": kind, "status": str(state), "lastProbeTime": None}
    since = now
    if old is not None and old.get("status") == str(state):
        since = old.get("lastTransitionTime", now)
    condition["lastTransitionTime"] = since
    condition["reason"], condition["message"] = reason or None, message or None
    return condition


def same(wanted: Json, known: Json) -> bool:
    """Whether the API server has this status already, whatever others added to it."""
    theirs = {condition["type"]: condition for condition in known.get("conditions", [])}
    for condition in wanted["conditions"]:
        if _bare(condition) != _bare(theirs.get(condition["type"], {})):
            return False
    rest = {key: value for key, value in wanted.items() if key != "conditions"}
    return all(_covers(value, known.get(key)) for key, value in rest.items())


def _bare(condition: Json) -> Json:
    return {key: value for key, value in condition.items() if key not in _TIMES and value}


def _covers(wanted: Any, known: Any) -> bool:
    """Every value of `wanted` is in `known`; empty values may be left out there."""
    if isinstance(wanted, dict):
        other = known if isinstance(known, dict) else {}
        return all(_covers(value, other.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        others = known if isinstance(known, list) else []
        return len(others) == len(wanted) and all(map(_covers, wanted, others))
    return wanted == known or (not wanted and not known)
