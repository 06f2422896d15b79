"""How a ModelDeployment's requests are let in, bounded, tried again, kept and watched."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from .meta import KUBE, Duration, KubeModel, Quantity, rule, rules, set_of

Counted = Annotated[int, Field(ge=1, le=1_000_000_000)]
Neighbour = Annotated[
    str, Field(pattern=r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$", min_length=1, max_length=63)
]


def _ordered(first: str, second: str) -> dict[str, str]:
    return rule(
        f"!has(self.{first}) || !has(self.{second}) || "
        f"duration(self.{first}) <= duration(self.{second})",
        f"{first} must not be longer than {second}",
        f".{first}",
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
