"""ModelDeployment: a model, the engine that serves it, and where and how it runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from pippin_contract import providers

from .meta import (
    KUBE,
    Condition,
    Duration,
    KubeModel,
    ObjectName,
    Quantity,
    SecretKey,
    ServedName,
    Text,
    Word,
    conditions,
    opaque,
    rule,
    rules,
    set_of,
)

Task = Literal["chat", "completion", "embedding", "transcription", "image"]
EngineType = Literal["mlx", "vllm", "echo", "external"]
AcceleratorType = Literal["nvidia", "amd", "apple", "cpu"]
Name = Annotated[str, Field(min_length=1, max_length=63)]
Counted = Annotated[int, Field(ge=1, le=1_000_000_000)]

_URI = r"^(hf|pvc|s3|oci|https|file)://.+"
_URI_HELP = "must start with hf://, pvc://, s3://, oci://, https:// or file:// and say what follows"


def _ordered(first: str, second: str) -> dict[str, str]:
    return rule(
        f"!has(self.{first}) || !has(self.{second}) || "
        f"duration(self.{first}) <= duration(self.{second})",
        f"{first} must not be longer than {second}",
        f".{first}",
    )


class Credentials(KubeModel):
    """A Secret of the object's own namespace, for the source of the weights."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: Word | None = Field(
        default=None,
        description=(
            "Key inside the Secret. Default: `token` for hf:// and https://; for s3:// and oci://"
            " every key, under the names that the source knows."
        ),
    )


class Adapter(KubeModel):
    """A LoRA adapter, served as <name>:<adapter>."""

    name: ServedName = Field(description="Name of the adapter.")
    uri: str = Field(
        description=(
            "Where the adapter lies, as model.uri: adapter_config.json and the weights beside it,"
            " as PEFT writes them (adapter_model.safetensors), or for mlx also as mlx_lm does."
        ),
        max_length=1024,
        json_schema_extra=rules(rule(f"self.matches('{_URI}')", f"uri {_URI_HELP}")),
    )
    credentials_secret_ref: Credentials | None = Field(
        default=None,
        description="Credential for its source. Default: the model's, where both are hf://.",
    )


class Model(KubeModel):
    """Which model, and what it is called."""

    uri: str | None = Field(
        default=None,
        max_length=1024,
        description=(
            "Where the weights lie: hf://org/name@revision (Hugging Face), pvc://claim/path (a"
            " volume of this namespace), s3://bucket/path, oci://registry/name:tag,"
            " https://host/model.tar.gz#sha256=digest (an archive), or file:///directory (a"
            " directory of the node, if the node allows it). Needed unless the engine is echo or"
            " external."
        ),
        json_schema_extra=rules(rule(f"self.matches('{_URI}')", f"uri {_URI_HELP}")),
    )
    name: ServedName | None = Field(
        default=None,
        description="Name by which clients ask for the model. Default: metadata.name.",
    )
    aliases: tuple[ServedName, ...] = set_of("Further names that resolve to this model.", 32)
    task: Task = Field(
        default="chat",
        description="What the model does. Cannot be changed later.",
        json_schema_extra=rules(
            rule("self == oldSelf", "task cannot be changed: make a new ModelDeployment")
        ),
    )
    context_length: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="Most tokens of a prompt and its answer. Default: what the model allows.",
    )
    family: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="Family shown by /v1/models. Default: taken from the uri."
    )
    tags: tuple[Name, ...] = set_of("Labels shown by /v1/models.", 32)
    description: Text | None = Field(default=None, description="Words shown by /v1/models.")
    credentials_secret_ref: Credentials | None = Field(
        default=None, description="Credential for the source of the weights."
    )
    adapters: tuple[Adapter, ...] = Field(
        default=(),
        max_length=32,
        description=(
            "LoRA adapters of a model for chat or completion, each served as <name>:<adapter>."
        ),
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
    )


class External(KubeModel):
    """A provider outside of this cluster."""

    url: str = Field(
        description=(
            "Base URL of the provider's API, as OpenAI's clients take it; without a path it is /v1."
            " http:// for addresses inside the cluster's networks only."
        ),
        max_length=1024,
        json_schema_extra=rules(
            rule(
                f"self.matches(r'{providers.URL}')",
                "url must be http://host or https://host, with a port and a path if need be, and"
                " without user, query and fragment",
            )
        ),
    )
    model: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        default=None, description="The provider's name of the model. Default: the served name."
    )
    provider: Literal["openai", "ollama", "llamacpp", "vllm"] = Field(
        default="openai",
        description="Whose it is: it decides on limits.rpm and limits.tpm where neither is set.",
    )
    api_key_secret_ref: SecretKey | None = Field(
        default=None, description="The key by which the provider knows us."
    )


class Echo(KubeModel):
    """Knobs of the echo engine: a count of 0 means never."""

    load_delay: Duration | None = Field(default=None, description="How long loading takes.")
    first_token_delay: Duration | None = Field(
        default=None, description="How long the first token takes."
    )
    tokens_per_second: int = Field(
        default=0, ge=0, le=1_000_000, description="Speed of the answer; 0: as fast as it goes."
    )
    error_percent: int = Field(
        default=0, ge=0, le=100, description="How many of a hundred requests fail."
    )
    overloaded_percent: int = Field(
        default=0, ge=0, le=100, description="How many more are refused as by a full server."
    )
    out_of_memory_percent: int = Field(
        default=0, ge=0, le=100, description="How many more fail with out of memory."
    )
    broken_percent: int = Field(
        default=0, ge=0, le=100, description="How many more break off in the middle."
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of what is random.")
    wedge_after: int = Field(
        default=0, ge=0, le=2**31 - 1, description="Stand still from this request on."
    )
    out_of_memory_after: int = Field(
        default=0, ge=0, le=2**31 - 1, description="Fail with out of memory from this request on."
    )
    crash_after: int = Field(
        default=0, ge=0, le=2**31 - 1, description="End the process at this request."
    )
    dimensions: int = Field(
        default=384,
        ge=1,
        le=8192,
        description="Length of its vectors, where the task is embedding.",
    )


class EnvVar(KubeModel):
    """An environment variable, as in a Pod."""

    name: Name = Field(description="Name of the variable.")
    value: Annotated[str, Field(max_length=32768)] | None = Field(
        default=None, description="Its value."
    )
    value_from: dict[str, Any] | None = opaque("Where its value comes from, as in a Pod.")


class Engine(KubeModel):
    """What serves the model."""

    model_config = ConfigDict(
        **KUBE,
        json_schema_extra=rules(
            rule(
                "has(self.external) == (has(self.type) && self.type == 'external')",
                "external must be set exactly when type is external",
                ".external",
            )
        ),
    )

    type: EngineType | None = Field(
        default=None,
        description="Engine. Default: vllm on nvidia and amd, mlx on apple and cpu.",
    )
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None, description="Image of the server. Default: the installation's."
    )
    args: tuple[Annotated[str, Field(max_length=1024)], ...] = Field(
        default=(),
        max_length=64,
        description="Extra arguments of the engine. They come last, so they win.",
    )
    env: tuple[EnvVar, ...] = Field(
        default=(),
        max_length=64,
        description="Environment of the server.",
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
    )
    external: External | None = Field(
        default=None, description="The provider, when type is external."
    )
    echo: Echo | None = Field(default=None, description="Knobs of the echo engine.")


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


class Limits(KubeModel):
    """What all callers together may use."""

    rpm: Counted | None = Field(default=None, description="Requests a minute.")
    tpm: Counted | None = Field(default=None, description="Tokens a minute.")
    concurrency: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description=(
            "Requests that one replica works on at once; absent: 256 with vllm, else 32. With a"
            " provider: requests under way there in all; absent: any number."
        ),
    )
    queue: int | None = Field(
        default=None, ge=1, le=100_000, description="Requests that wait for one replica."
    )


class Timeouts(KubeModel):
    """How long a request may take. Default of each: the gateway's."""

    model_config = ConfigDict(
        **KUBE,
        json_schema_extra=rules(
            _ordered("firstToken", "request"),
            _ordered("request", "total"),
            _ordered("firstToken", "total"),
            _ordered("streamIdle", "total"),
        ),
    )

    connect: Duration | None = Field(default=None, description="To connect to a replica.")
    queue: Duration | None = Field(
        default=None, description="To wait for a free slot, and for a replica while there is none."
    )
    first_token: Duration | None = Field(default=None, description="Until the first token.")
    request: Duration | None = Field(default=None, description="Of an answer in one piece.")
    stream_idle: Duration | None = Field(default=None, description="Between two tokens.")
    total: Duration | None = Field(default=None, description="Of a whole request.")


class Retries(KubeModel):
    """What is tried again, before the first byte."""

    attempts: int = Field(default=2, ge=1, le=10, description="Tries in all.")
    backoff: Duration = Field(default="100ms", description="Pause before the second try.")


class CircuitBreaker(KubeModel):
    """When a failing model is left alone."""

    failures: int = Field(default=5, ge=1, le=10_000, description="Failures that open it.")
    cooldown: Duration = Field(default="60s", description="How long it stays open.")
    half_open_requests: int = Field(
        default=1, ge=1, le=1000, description="Requests that try whether it may close."
    )


class ResponseCache(KubeModel):
    """Equal requests, answered from memory."""

    enabled: bool = Field(default=False, description="Whether answers are kept.")
    ttl: Duration = Field(default="1h", description="How long an answer is kept.")
    max_entries: int = Field(default=1000, ge=1, le=1_000_000, description="Answers kept.")


class Batching(KubeModel):
    """How texts to embed share the engine; text is generated in batches of their own."""

    max_batch_size: int = Field(default=32, ge=1, le=4096, description="Most texts in one batch.")
    window: Duration = Field(
        default="100ms",
        description="How long a batch waits at most for texts of requests that are on their way."
        " When there are none it does not wait.",
    )


class PromptCache(KubeModel):
    """Prompts that begin alike, computed once."""

    enabled: bool = Field(default=True, description="Whether prefixes are kept.")
    max_bytes: Quantity = Field(
        default="2Gi", description="The most memory for them, with the engine mlx."
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
Neighbour = Annotated[
    str, Field(pattern=r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$", min_length=1, max_length=63)
]


class Auth(KubeModel):
    """Who may call."""

    required: bool = Field(default=True, description="Whether callers need a key.")
    namespaces: tuple[Neighbour, ...] = set_of(
        "Other namespaces whose keys may use the model, as namespace/name; * opens it to all.", 64
    )


class Monitoring(KubeModel):
    """Scraping by the Prometheus operator."""

    enabled: bool = Field(
        default=True, description="Make a ServiceMonitor where its API is installed."
    )
    interval: Duration = Field(default="30s", description="How often metrics are read.")
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="Labels of the ServiceMonitor, by which your Prometheus picks it.",
        json_schema_extra={"maxProperties": 64},
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
