"""The file that the operator writes and a server Pod reads.

Versioned because Pods outlive operators: the reader accepts the last two versions.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Task = Literal["chat", "completion", "embedding", "transcription", "image"]
EngineName = Literal["mlx", "vllm", "echo"]


class Frozen(BaseModel):
    """camelCase on the wire, frozen; unknown fields ignored: rolled-back readers meet them."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore"
    )


class EchoConfig(Frozen):
    """Knobs of the echo engine. Times in seconds; a count of 0 means never."""

    load_seconds: float = Field(default=0, ge=0)
    first_token_seconds: float = Field(default=0, ge=0)
    tokens_per_second: int = Field(default=0, ge=0, description="0: as fast as it goes.")
    error_percent: int = Field(default=0, ge=0, le=100)
    overloaded_percent: int = Field(default=0, ge=0, le=100, description="503, as if full.")
    out_of_memory_percent: int = Field(default=0, ge=0, le=100)
    broken_percent: int = Field(default=0, ge=0, le=100, description="Broken off half way.")
    seed: int = 0
    wedge_after: int = Field(default=0, ge=0, description="Stand still from this request on.")
    out_of_memory_after: int = Field(default=0, ge=0, description="Fail with out of memory.")
    crash_after: int = Field(default=0, ge=0, description="End the process at this request.")
    dimensions: int = Field(default=384, ge=1, le=8192, description="Length of embeddings.")


class Batching(Frozen):
    """How texts to embed share the engine."""

    max_batch_size: int = Field(default=32, ge=1)
    window_seconds: float = Field(default=0.1, ge=0)


class ModelConfig(Frozen):
    """What to serve, and what /v1/models says of it."""

    uri: str = ""
    path: str = Field(default="", description="Directory of the weights; empty: fetch the uri.")
    task: Task = "chat"
    context_length: int | None = Field(default=None, ge=1)
    family: str = ""
    tags: tuple[str, ...] = ()
    description: str = ""
    token_file: str = Field(default="", description="File with the token for the source.")
    credentials_dir: str = Field(
        default="", description="Directory with what else the source wants, a file for each key."
    )


class AdapterConfig(Frozen):
    """A LoRA adapter of the model, and where it lies: as ModelConfig says it of the weights."""

    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]*$")
    uri: str = ""
    path: str = ""
    token_file: str = ""
    credentials_dir: str = ""


class PromptCacheConfig(Frozen):
    """Prefixes of prompts that are kept. vLLM has its own measure of memory for it."""

    enabled: bool = True
    max_bytes: int | None = Field(
        default=None, ge=0, description="Absent: an eighth of what the weights leave, at most 2 Gi."
    )


class PublicKey(Frozen):
    """One of the gateway's keys: `kid` of the token's header, Ed25519 public key as PEM."""

    kid: str
    pem: str


class AuthConfig(Frozen):
    """Who may call: the gateway (signed tokens for `audience`), or anyone on the loopback."""

    mode: Literal["gateway", "none"] = "none"
    audience: str = ""
    public_keys: tuple[PublicKey, ...] = ()


def usual_concurrency(engine: str) -> int:
    """Requests at once where nobody says: a GPU is idle with as many as a CPU can do."""
    return 256 if engine == "vllm" else 32


class ServerConfig(Frozen):
    """Everything a server Pod is told. Times in seconds."""

    version: Literal[1] = 1
    namespace: str = "default"
    name: str
    served_name: str
    aliases: tuple[str, ...] = ()
    engine: EngineName
    engine_args: tuple[str, ...] = ()
    echo: EchoConfig = EchoConfig()
    model: ModelConfig = ModelConfig()
    adapters: tuple[AdapterConfig, ...] = ()
    batching: Batching = Batching()
    prompt_cache: PromptCacheConfig = PromptCacheConfig()
    max_concurrency: int = Field(default=32, ge=1)
    max_queue: int = Field(default=64, ge=0)
    queue_timeout_seconds: float = Field(default=30, gt=0)
    liveness_stall_seconds: float = Field(default=60, gt=0)
    drain_timeout_seconds: float = Field(default=60, ge=0)
    auth: AuthConfig = AuthConfig()


def dump(config: ServerConfig) -> str:
    """The same bytes for the same config, so that a settled Pod does not roll."""
    return config.model_dump_json(by_alias=True, exclude_defaults=False, indent=1) + "\n"


def load(text: str) -> ServerConfig:
    """Raises pydantic.ValidationError; a version that this reader does not know is one."""
    return ServerConfig.model_validate_json(text)
