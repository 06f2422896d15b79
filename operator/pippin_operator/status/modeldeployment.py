"""The status of a ModelDeployment, from its spec and what is seen of its children."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pippin_contract import wire

from ..api import honored
from ..api.modeldeployment import ModelDeploymentSpec
from . import external, pods
from .conditions import Verdict, laid_over, no, unknown, yes
from .fallbacks import NONE as NO_FALLBACKS
from .pods import Pod, Trouble


@dataclass(frozen=True)
class Seen:
    """What is seen around a ModelDeployment.

    `failure`: why we could not do our part; `complaint`: a node's, about a Pod that it makes;
    `provider`: why the gateway cannot ask the provider that serves instead of Pods.
    """

    deployment: Mapping[str, Any] | None = None
    pods: tuple[Pod, ...] = ()
    monitoring_api: bool = False
    name_taken: tuple[str, str] | None = None
    fallbacks: Verdict = NO_FALLBACKS
    failure: Trouble | None = None
    complaint: Trouble | None = None
    provider: Trouble | None = None


@dataclass(frozen=True)
class Wanted:
    """What the status must know of the object. `spec` is None when it cannot be understood."""

    name: str
    served_name: str
    generation: int
    replicas: int | None
    spec: ModelDeploymentSpec | None
    url: str


@dataclass(frozen=True)
class _Counts:
    wanted: int
    existing: int
    ready: int
    rolling: bool


def derive(wanted: Wanted, seen: Seen, old: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The whole status. Equal to `old` when nothing has changed, times included."""
    if wanted.spec is None:
        return _of_invalid(wanted, seen, old, now)
    counts = _counts(wanted, seen)
    verdicts = _verdicts(wanted, wanted.spec, seen, counts)
    phase = _phase(wanted, verdicts, counts)
    conditions = laid_over(old.get("conditions", ()), verdicts, wanted.generation, now)
    status = {
        "observedGeneration": wanted.generation,
        "phase": phase,
        "url": wanted.url,
        "servedName": wanted.served_name,
        "engine": honored.engine(wanted.spec),
        "replicas": counts.existing,
        "readyReplicas": counts.ready,
        "ready": "-" if honored.provider(wanted.spec) else f"{counts.ready}/{counts.wanted}",
        "selector": f"{wire.LABEL_INSTANCE}={wanted.name},{wire.LABEL_NAME}={wire.SERVER_APP}",
        "nodes": sorted({name for pod in seen.pods if (name := pods.node(pod))}),
        "conditions": conditions,
    }
    same_phase = old.get("phase") == phase and "lastTransitionTime" in old
    status["lastTransitionTime"] = old["lastTransitionTime"] if same_phase else now
    return status


def _of_invalid(wanted: Wanted, seen: Seen, old: Mapping[str, Any], now: str) -> dict[str, Any]:
    """What runs keeps running by the last spec that could be understood."""
    trouble = seen.failure or Trouble("InvalidSpec", "the spec cannot be understood")
    verdicts = (
        no("Ready", trouble.reason, trouble.message),
        no("SpecValid", trouble.reason, trouble.message),
    )
    kept = {key: value for key, value in old.items() if key not in ("conditions", "phase")}
    return {
        **kept,
        "observedGeneration": wanted.generation,
        "phase": "Failed",
        "lastTransitionTime": kept.get("lastTransitionTime", now),
        "conditions": laid_over(old.get("conditions", ()), verdicts, wanted.generation, now),
    }


def _counts(wanted: Wanted, seen: Seen) -> _Counts:
    if wanted.spec is not None and honored.provider(wanted.spec):
        return _Counts(wanted=0, existing=0, ready=0, rolling=False)
    deployment = seen.deployment or {}
    status = deployment.get("status") or {}
    asked = wanted.replicas
    if asked is None:
        asked = (deployment.get("spec") or {}).get("replicas", 1)
    alive = [pod for pod in _alive(seen) if not pods.is_over(pod)]
    ready = sum(pods.is_ready(pod) for pod in alive)
    behind = status.get("observedGeneration", 0) < deployment.get("metadata", {}).get(
        "generation", 0
    )
    updated = status.get("updatedReplicas", 0)
    old_ones = status.get("replicas", 0) - updated
    rolling = bool(deployment) and (behind or updated < asked or old_ones > 0)
    return _Counts(wanted=asked, existing=len(alive), ready=ready, rolling=rolling)


def _verdicts(
    wanted: Wanted, spec: ModelDeploymentSpec, seen: Seen, counts: _Counts
) -> tuple[Verdict, ...]:
    outside = honored.provider(spec)
    if outside is not None:
        trouble = seen.failure or seen.provider or _unsupported(spec)
        work = external.workload_ready(spec, outside, trouble)
        running = (external.SCHEDULED, external.AVAILABLE, work)
        motion = (external.UNMONITORED, external.SETTLED)
    else:
        work = _workload_ready(spec, seen, counts)
        running = (_scheduled(seen, counts), _model_available(seen, counts), work)
        motion = (_monitoring_ready(spec, seen), _progressing(spec, seen, counts))
    parts = (
        yes("SpecValid", "Valid"),
        _spec_honored(spec),
        *running,
        _route_ready(seen),
        seen.fallbacks,
        *motion,
        _degraded(seen, counts),
    )
    return (_ready(spec, parts, counts), *parts)


def _spec_honored(spec: ModelDeploymentSpec) -> Verdict:
    fields = honored.unsupported_by_model(spec)
    if not fields:
        return yes("SpecHonored", "AllFieldsHonored")
    return no(
        "SpecHonored",
        "FieldUnsupported",
        f"not acted upon in this version: {', '.join(dict.fromkeys(fields))}",
    )


def _scheduled(seen: Seen, counts: _Counts) -> Verdict:
    waiting = next((found for pod in _alive(seen) if (found := pods.unscheduled(pod))), None)
    if waiting is not None:
        return no("Scheduled", waiting.reason, waiting.message)
    placed = sum(pods.node(pod) is not None for pod in _alive(seen))
    if counts.wanted and placed < counts.wanted:
        return unknown("Scheduled", "Pending", f"{placed} of {counts.wanted} Pods have a node")
    return yes("Scheduled", "AllPlaced" if placed else "NothingToPlace")


def _model_available(seen: Seen, counts: _Counts) -> Verdict:
    if counts.ready:
        return yes("ModelAvailable", "Loaded")
    found = _first_trouble(seen)
    if found is not None and found.reason in pods.MODEL_REASONS:
        return no("ModelAvailable", found.reason, found.message)
    return unknown("ModelAvailable", "NotLoaded", "no replica has loaded the model")


def _workload_ready(spec: ModelDeploymentSpec, seen: Seen, counts: _Counts) -> Verdict:
    kind = "WorkloadReady"
    if seen.failure is not None:
        return no(kind, seen.failure.reason, seen.failure.message)
    if unsupported := _unsupported(spec):
        return no(kind, unsupported.reason, unsupported.message)
    if spec.suspend:
        return no(kind, "Suspended", "suspend is set: no Pods run")
    if counts.wanted == 0:
        return no(kind, "ScaledToZero", _why_zero(spec))
    if counts.ready >= counts.wanted:
        return yes(kind, "AllReady", f"{counts.ready} of {counts.wanted} replicas are ready")
    found = _first_trouble(seen) or _of_deployment(seen)
    if found is not None:
        return no(kind, found.reason, found.message)
    if counts.ready:
        message = f"{counts.ready} of {counts.wanted} replicas are ready"
        return no(kind, "RollingOut" if counts.rolling else "Loading", message)
    return no(kind, "Loading", f"0 of {counts.wanted} replicas are ready: loading the model")


def _why_zero(spec: ModelDeploymentSpec) -> str:
    if spec.autoscaling is None:
        return "replicas is 0: no Pods run"
    if spec.autoscaling.provider == "builtin":
        return "nobody asks for it: no Pods run, and it wakes with the first request"
    return "somebody else scaled it to zero: no Pods run"


def _unsupported(spec: ModelDeploymentSpec) -> Trouble | None:
    """Why nothing could serve, whatever there is."""
    fields = honored.blocking(spec)
    return Trouble("FieldUnsupported", f"nothing is run: {', '.join(fields)}") if fields else None


def _route_ready(seen: Seen) -> Verdict:
    if seen.name_taken is None:
        return yes("RouteReady", "NameOwned")
    name, holder = seen.name_taken
    return no(
        "RouteReady",
        "NameTaken",
        f"{name!r} is served by ModelDeployment {holder}, which is older: choose another"
        " model.name or alias",
    )


def _monitoring_ready(spec: ModelDeploymentSpec, seen: Seen) -> Verdict:
    kind = "MonitoringReady"
    if not spec.monitoring.enabled:
        return no(kind, "Disabled", "monitoring.enabled is false")
    if not seen.monitoring_api:
        return no(
            kind,
            "MonitoringAPIMissing",
            "monitoring.coreos.com/v1 is not installed: no ServiceMonitor is made",
        )
    return yes(kind, "ServiceMonitorApplied")


def _progressing(spec: ModelDeploymentSpec, seen: Seen, counts: _Counts) -> Verdict:
    kind = "Progressing"
    idle = spec.suspend or counts.wanted == 0 or honored.blocking(spec)
    if idle or (counts.ready >= counts.wanted and not counts.rolling):
        return no(kind, "Settled", "nothing is under way")
    found = _first_trouble(seen)
    if found is not None and found.stuck:
        return no(kind, found.reason, f"stands still until this is mended: {found.message}")
    if counts.rolling and counts.ready:
        return yes(kind, "RollingOut", "new replicas take over")
    return yes(kind, "Loading", "replicas are starting")


def _degraded(seen: Seen, counts: _Counts) -> Verdict:
    """Some serve and some cannot, though nothing is being rolled out and they had their time."""
    if 0 < counts.ready < counts.wanted:
        found = _first_trouble(seen)
        starting = sum(map(pods.is_starting, seen.pods))
        short = counts.ready + starting < counts.wanted and not counts.rolling
        if found is not None or short:
            said = f": {found.message}" if found else ""
            reason = found.reason if found else "NoReadyReplicas"
            message = f"{counts.ready} of {counts.wanted} replicas are ready{said}"
            return yes("Degraded", reason, message)
    return no("Degraded", "AsWanted", "")


def _ready(spec: ModelDeploymentSpec, parts: tuple[Verdict, ...], counts: _Counts) -> Verdict:
    by_type = {part.type: part for part in parts}
    route, workload = by_type["RouteReady"], by_type["WorkloadReady"]
    if route.status == "False":
        return no("Ready", route.reason, route.message)
    if honored.provider(spec):
        return external.ready(workload)
    if counts.wanted == 0 or spec.suspend or honored.blocking(spec):
        return no("Ready", workload.reason, workload.message)
    if counts.ready:
        return yes("Ready", "Serving", f"{counts.ready} of {counts.wanted} replicas are ready")
    return no("Ready", workload.reason, workload.message)


def _phase(wanted: Wanted, verdicts: tuple[Verdict, ...], counts: _Counts) -> str:
    by_type = {verdict.type: verdict for verdict in verdicts}
    reason = by_type["WorkloadReady"].reason
    if reason in ("Suspended", "ScaledToZero"):
        return reason
    if by_type["Ready"].status == "True":
        return "Degraded" if by_type["Degraded"].status == "True" else "Ready"
    if by_type["Scheduled"].status == "False":
        return "Pending"
    if by_type["Progressing"].status == "True":
        return "Progressing" if counts.existing else "Pending"
    return "Failed"


def _alive(seen: Seen) -> list[Pod]:
    return [pod for pod in seen.pods if not pods.is_ending(pod)]


def _first_trouble(seen: Seen) -> Trouble | None:
    """The worst that any Pod says. Those that are over speak only when no other does."""
    alive = sorted(_alive(seen), key=pods.is_over)
    found = [t for pod in alive if (t := pods.unscheduled(pod) or pods.trouble(pod))]
    return min(found, key=lambda trouble: not trouble.stuck, default=seen.complaint)


def _of_deployment(seen: Seen) -> Trouble | None:
    """Why no Pod could even be made: quota, admission, a wrong template."""
    conditions = ((seen.deployment or {}).get("status") or {}).get("conditions") or ()
    for condition in conditions:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return Trouble(condition.get("reason", "FailedCreate"), condition.get("message", ""))
    return None
