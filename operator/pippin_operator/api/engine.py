"""What computes a ModelDeployment's answers, or who gives them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from pippin_contract import providers

from .meta import KUBE, Duration, KubeModel, Name, SecretKey, opaque, rule, rules

EngineType = Literal["mlx", "vllm", "echo", "external"]


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
