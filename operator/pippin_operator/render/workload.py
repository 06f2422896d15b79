"""The Deployment that runs the servers."""

from __future__ import annotations

from math import ceil
from typing import Any

from pippin_contract import wire
from pippin_contract.units import seconds

from ..api.honored import engine
from ..api.pods import PodTemplate, Resources
from ..api.resources import Manifest
from . import names, storage
from .context import Model, RenderContext
from .placement import Placement, place
from .serverconfig import config_hash
from .weights import every

#: Seconds between the end of draining and the kill.
_GRACE = 15
#: Seconds that a Deployment may take beyond a replica's start before it counts as stuck.
_ROLLOUT_SLACK = 120
_UID = 65532


def workload(model: Model, ctx: RenderContext) -> Manifest:
    placement = place(model.spec.accelerator)
    startup = seconds(model.spec.probes.startup_timeout)
    spec: dict[str, Any] = {
        "selector": {"matchLabels": names.selector(model)},
        "strategy": storage.strategy(model, placement.strategy),
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": ceil(startup) + _ROLLOUT_SLACK,
        "template": {"metadata": _pod_metadata(model, ctx), "spec": _pod(model, ctx, placement)},
    }
    if model.replicas is not None:
        spec["replicas"] = model.replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": names.metadata(model, model.name),
        "spec": spec,
    }


def _pod_metadata(model: Model, ctx: RenderContext) -> dict[str, Any]:
    template = model.spec.pod_template
    extra = template.metadata if template else None
    return {
        "labels": {**(extra.labels if extra else {}), **names.labels(model)},
        "annotations": {
            **(extra.annotations if extra else {}),
            names.CONFIG_HASH: config_hash(model, ctx),
        },
    }


def _pod(model: Model, ctx: RenderContext, placement: Placement) -> dict[str, Any]:
    spec = model.spec
    template = spec.pod_template or PodTemplate()
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": ceil(seconds(spec.drain.timeout)) + _GRACE,
        "nodeSelector": {**placement.selector, **spec.node_selector},
        "tolerations": [
            *placement.tolerations,
            *(t.model_dump(by_alias=True, exclude_none=True) for t in spec.tolerations),
        ],
        "affinity": storage.affinity(model),
        "priorityClassName": spec.priority_class_name,
        "runtimeClassName": spec.runtime_class_name,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _UID,
            "runAsGroup": _UID,
            "fsGroup": _UID,
            "seccompProfile": {"type": "RuntimeDefault"},
            **(template.security_context or {}),
        },
        "containers": [_container(model, ctx, placement)],
        "volumes": [
            {"name": "config", "configMap": {"name": names.config_map(model)}},
            {"name": "tmp", "emptyDir": {}},
            storage.cache(model),
            *_shared_memory(model),
            *(volume for one in every(spec) for volume in one.volumes),
            *template.volumes,
        ],
    }
    # An empty value and an absent one are the same to the API server, which stores the absent one.
    return {key: value for key, value in pod.items() if value not in (None, [], {})}


def _shared_memory(model: Model) -> tuple[dict[str, Any], ...]:
    """vLLM's processes talk through it, and a container has 64 MiB of its own; it counts as the
    container's memory."""
    if engine(model.spec) != "vllm":
        return ()
    return ({"name": "shm", "emptyDir": {"medium": "Memory"}},)


def _container(model: Model, ctx: RenderContext, placement: Placement) -> dict[str, Any]:
    spec = model.spec
    container: dict[str, Any] = {
        "name": "server",
        "image": _image(model, ctx),
        "imagePullPolicy": ctx.image_pull_policy,
        "args": ["serve", "--config", wire.SERVER_CONFIG_FILE],
        "env": [
            variable.model_dump(by_alias=True, exclude_none=True)
            for variable in (spec.engine.env if spec.engine else ())
        ],
        "ports": [
            {
                "name": wire.HTTP_PORT_NAME,
                "containerPort": wire.SERVER_PORT,
                "protocol": "TCP",
            }
        ],
        "resources": _resources(spec.resources or Resources(), placement),
        **_probes(model),
        "lifecycle": {"preStop": {"exec": {"command": ["pippin-server", "drain"]}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": wire.SERVER_CONFIG_DIR, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "cache", "mountPath": wire.CACHE_DIR},
            *({"name": v["name"], "mountPath": "/dev/shm"} for v in _shared_memory(model)),
            *(mount for one in every(spec) for mount in one.mounts),
            *(spec.pod_template.volume_mounts if spec.pod_template else ()),
        ],
    }
    return {key: value for key, value in container.items() if value not in (None, [], {})}


def _image(model: Model, ctx: RenderContext) -> str:
    chosen = model.spec.engine.image if model.spec.engine else None
    return chosen or f"{ctx.server_image}-{_image_suffix(model)}"


def _image_suffix(model: Model) -> str:
    if engine(model.spec) != "vllm":
        return "mlx"
    return "vllm-cpu" if model.spec.accelerator.type == "cpu" else "vllm"


def _resources(asked: Resources, placement: Placement) -> dict[str, Any]:
    """What the user asks for wins over the accelerator's row."""
    both = {
        "requests": {**placement.requests, **asked.requests},
        "limits": {**placement.limits, **asked.limits},
    }
    return {key: value for key, value in both.items() if value}


def _probes(model: Model) -> dict[str, Any]:
    startup = ceil(seconds(model.spec.probes.startup_timeout))
    return {
        # Every second, so that a model serves as soon as it can.
        "startupProbe": {
            **_get("/ready"),
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": max(1, startup),
        },
        "readinessProbe": {
            **_get("/ready"),
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 2,
        },
        "livenessProbe": {
            **_get("/livez"),
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
    }


def _get(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": wire.HTTP_PORT_NAME, "scheme": "HTTP"}}
