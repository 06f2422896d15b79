"""ModelDeployment: a model, the engine that serves it, and where and how it runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from .engine import Engine
from .meta import KUBE, Condition, KubeModel, ObjectName, conditions, opaque, rule, rules, set_of
from .model import Model
from .pods import (
    Accelerator,
    Autoscaling,
    Drain,
    PodTemplate,
    Probes,
    Resources,
    Storage,
    Toleration,
)
from .traffic import (
    Auth,
    Batching,
    CircuitBreaker,
    Limits,
    Monitoring,
    PromptCache,
    ResponseCache,
    Retries,
    Timeouts,
)

_NEEDS_URI = rule(
    "has(self.model.uri) || "
    "(has(self.engine) && has(self.engine.type) && self.engine.type in ['echo', 'external'])",
    "model.uri is needed unless engine.type is echo or external",
    ".model.uri",
)
_ONE_SCALER = rule(
    "!(has(self.replicas) && has(self.autoscaling))",
    "replicas and autoscaling exclude each other: leave one out",
    ".replicas",
)


class ModelDeploymentSpec(KubeModel):
    """The model that is wanted, and how."""

    model_config = ConfigDict(**KUBE, json_schema_extra=rules(_NEEDS_URI, _ONE_SCALER))

    model: Model = Field(default=Model(), description="Which model, and what it is called.")
    engine: Engine | None = Field(default=None, description="What serves the model.")
    accelerator: Accelerator = Field(
        default=Accelerator(), description="What the model computes on."
    )
    replicas: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="Pods wanted. Default: 1. Excludes autoscaling.",
    )
    autoscaling: Autoscaling | None = Field(
        default=None, description="Replicas by load, also none. Excludes replicas."
    )
    suspend: bool = Field(default=False, description="Run no Pods for now.")
    resources: Resources | None = Field(default=None, description="CPU and memory of a replica.")
    node_selector: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default_factory=dict,
        description="Node labels wanted, besides those of the accelerator.",
        json_schema_extra={"maxProperties": 32},
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(),
        max_length=32,
        description="Taints borne, besides those of the accelerator.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    affinity: dict[str, Any] | None = opaque("Affinity of the Pods, as in a Pod.")
    priority_class_name: ObjectName | None = Field(
        default=None, description="Priority class of the Pods."
    )
    runtime_class_name: ObjectName | None = Field(
        default=None, description="Runtime class of the Pods."
    )
    pod_template: PodTemplate | None = Field(
        default=None, description="A narrow escape hatch into the Pods."
    )
    limits: Limits | None = Field(default=None, description="What all callers together may use.")
    timeouts: Timeouts | None = Field(default=None, description="How long a request may take.")
    retries: Retries | None = Field(default=None, description="What is tried again.")
    circuit_breaker: CircuitBreaker | None = Field(
        default=None, description="When a failing model is left alone."
    )
    fallbacks: tuple[ObjectName, ...] = set_of(
        "ModelDeployments of this namespace that answer instead, in order.", 16
    )
    response_cache: ResponseCache | None = Field(
        default=None, description="Equal requests, answered from memory."
    )
    batching: Batching | None = Field(
        default=None, description="How texts to embed share the engine."
    )
    prompt_cache: PromptCache | None = Field(
        default=None, description="Prompts that begin alike, computed once."
    )
    storage: Storage | None = Field(
        default=None, description="A volume that keeps downloaded weights."
    )
    probes: Probes = Field(default=Probes(), description="When a replica is started and stuck.")
    drain: Drain = Field(default=Drain(), description="How a replica ends.")
    auth: Auth | None = Field(default=None, description="Who may call.")
    monitoring: Monitoring = Field(
        default=Monitoring(), description="Scraping by the Prometheus operator."
    )


class ModelInfo(KubeModel):
    """What the weights turned out to be."""

    digest: str | None = Field(default=None, description="Digest of the weights.")
    bytes: int | None = Field(
        default=None, description="Their size.", json_schema_extra={"format": "int64"}
    )
    parameters: str | None = Field(default=None, description="Number of parameters.")
    quantization: str | None = Field(default=None, description="How they are quantized.")


class Capacity(KubeModel):
    """What a replica can hold."""

    max_context: int | None = Field(default=None, description="Most tokens of one sequence.")
    max_concurrent_sequences: int | None = Field(default=None, description="Sequences at once.")
    weight_bytes: int | None = Field(
        default=None, description="Memory of the weights.", json_schema_extra={"format": "int64"}
    )
    kv_bytes_per_token: int | None = Field(
        default=None, description="Memory of a token.", json_schema_extra={"format": "int64"}
    )


class Progress(KubeModel):
    """How far a start has come."""

    stage: str | None = Field(default=None, description="What is being done.")
    percent: int | None = Field(default=None, ge=0, le=100, description="How much is done.")
    message: str | None = Field(default=None, description="In words.")


class ModelDeploymentStatus(KubeModel):
    """What is."""

    observed_generation: int | None = Field(
        default=None,
        description="Generation of the spec that was last acted upon.",
        json_schema_extra={"format": "int64"},
    )
    phase: (
        Literal[
            "Pending", "Progressing", "Ready", "Degraded", "Failed", "Suspended", "ScaledToZero"
        ]
        | None
    ) = Field(default=None, description="The conditions in one word.")
    url: str | None = Field(default=None, description="Base URL for clients.")
    served_name: str | None = Field(default=None, description="Name that clients ask for.")
    engine: str | None = Field(default=None, description="Engine that serves.")
    replicas: int | None = Field(default=None, description="Pods that exist.")
    ready_replicas: int | None = Field(default=None, description="Pods that serve.")
    ready: str | None = Field(default=None, description="Pods that serve / Pods wanted.")
    selector: str | None = Field(default=None, description="Label selector of the Pods.")
    nodes: tuple[str, ...] = Field(
        default=(), description="Nodes that the Pods run on.", max_length=512
    )
    model: ModelInfo | None = Field(default=None, description="What the weights turned out to be.")
    capacity: Capacity | None = Field(default=None, description="What a replica can hold.")
    progress: Progress | None = Field(default=None, description="How far a start has come.")
    last_transition_time: str | None = Field(
        default=None,
        description="When the phase last changed.",
        json_schema_extra={"format": "date-time"},
    )
    conditions: tuple[Condition, ...] = conditions()


class ModelDeployment(KubeModel):
    """A model behind the OpenAI-compatible endpoint of its namespace's keys."""

    spec: ModelDeploymentSpec = Field(description="The model that is wanted, and how.")
    status: ModelDeploymentStatus | None = Field(default=None, description="What is.")
