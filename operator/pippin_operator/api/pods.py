"""A ModelDeployment's Pods: what they need of the cluster, how many there are, how they end."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from .meta import KUBE, Duration, KubeModel, Quantity, opaque, rule, rules

AcceleratorType = Literal["nvidia", "amd", "apple", "cpu"]


class Accelerator(KubeModel):
    """What the model computes on. It decides node selector, tolerations and resource."""

    model_config = ConfigDict(
        **KUBE,
        json_schema_extra=rules(
            rule(
                "!(self.type in ['nvidia', 'amd']) || self.count >= 1",
                "count must be at least 1 for type nvidia and amd",
                ".count",
            )
        ),
    )

    type: AcceleratorType = Field(
        default="cpu", description="Kind of hardware. cpu means Linux nodes, apple means Macs."
    )
    count: int = Field(default=1, ge=0, le=64, description="GPUs of each replica.")
    product: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")] | None = (
        Field(
            default=None,
            max_length=63,
            description="Product by node label: nvidia.com/gpu.product, or the Mac's chip.",
        )
    )
    memory: Quantity | None = Field(
        default=None, description="Unified memory of a Mac that a replica takes."
    )
    resource_name: Annotated[str, Field(max_length=253)] | None = Field(
        default=None, description="Name of the GPU resource, when it is not the usual one."
    )


class Autoscaling(KubeModel):
    """How many replicas, by load."""

    model_config = ConfigDict(
        **KUBE,
        json_schema_extra=rules(
            rule(
                "self.minReplicas <= self.maxReplicas",
                "minReplicas must not be more than maxReplicas",
                ".minReplicas",
            )
        ),
    )

    min_replicas: int = Field(
        default=1,
        ge=0,
        le=256,
        description="Fewest replicas. 0: none while nobody asks; the first request starts one.",
    )
    max_replicas: int = Field(ge=1, le=256, description="Most replicas.")
    target_requests_per_replica: int = Field(
        default=8,
        ge=1,
        le=100_000,
        description="Requests under way, or waiting, that one replica should have.",
    )
    scale_down_delay: Duration = Field(
        default="60s",
        description="How long fewer replicas must have been enough before one goes.",
    )
    provider: Literal["builtin", "keda", "hpa"] = Field(
        default="builtin",
        description="Who scales: builtin is the operator, by what its gateways tell; with others it"
        " leaves the number alone.",
    )


class Resources(KubeModel):
    """CPU, memory and others of a replica, as in a Pod."""

    requests: dict[str, Quantity] = Field(
        default_factory=dict,
        description="What is set aside.",
        json_schema_extra={"maxProperties": 32},
    )
    limits: dict[str, Quantity] = Field(
        default_factory=dict,
        description="What is the most.",
        json_schema_extra={"maxProperties": 32},
    )


class Toleration(KubeModel):
    """A taint that the Pods bear, as in a Pod."""

    key: Annotated[str, Field(max_length=317)] | None = Field(
        default=None, description="Key of the taint; absent with Exists: every key."
    )
    operator: Literal["Exists", "Equal"] = Field(
        default="Equal", description="How key and value are compared."
    )
    value: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="Value of the taint."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint; absent: every effect."
    )
    toleration_seconds: int | None = Field(
        default=None, description="How long NoExecute is borne; absent: for ever."
    )


class PodMetadata(KubeModel):
    """Labels and annotations of the Pods."""

    labels: dict[str, str] = Field(
        default_factory=dict,
        description="Further labels.",
        json_schema_extra={"maxProperties": 64},
    )
    annotations: dict[str, str] = Field(
        default_factory=dict,
        description="Further annotations.",
        json_schema_extra={"maxProperties": 64},
    )


def _opaque_items(description: str) -> Any:
    item: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return Field(
        default=(), description=description, max_length=32, json_schema_extra={"items": item}
    )


class PodTemplate(KubeModel):
    """A narrow escape hatch into the Pods."""

    metadata: PodMetadata | None = Field(default=None, description="Labels and annotations.")
    volumes: tuple[dict[str, Any], ...] = _opaque_items("Further volumes, as in a Pod.")
    volume_mounts: tuple[dict[str, Any], ...] = _opaque_items(
        "Further mounts of the server's container, as in a Pod."
    )
    security_context: dict[str, Any] | None = opaque(
        "Laid over the Pod's security context, as in a Pod."
    )


class Storage(KubeModel):
    """A volume that keeps downloaded weights."""

    size: Quantity = Field(default="50Gi", description="Size of the volume.")
    storage_class_name: Annotated[str, Field(max_length=253)] | None = Field(
        default=None, description="Its storage class; absent: the cluster's default."
    )
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"] = Field(
        default="ReadWriteOnce", description="Who may mount it."
    )
    retain: bool = Field(default=True, description="Whether it outlives the ModelDeployment.")


class Probes(KubeModel):
    """When a replica counts as started and as stuck."""

    startup_timeout: Duration = Field(
        default="30m", description="How long a replica may load before it is started again."
    )
    liveness_stall: Duration = Field(
        default="60s",
        description="How long active requests may see no token before a replica is restarted.",
    )


class Drain(KubeModel):
    """How a replica ends."""

    timeout: Duration = Field(default="60s", description="For requests that are under way.")


#: A namespace's name, or all of them.
