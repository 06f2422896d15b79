"""What the process is told: flags, then environment, then the file that the operator wrote.

The only module that reads the environment. Everything wrong is reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pippin_contract import native, serverconfig
from pippin_contract.serverconfig import (
    AdapterConfig,
    EchoConfig,
    EngineName,
    ModelConfig,
    PromptCacheConfig,
    ServerConfig,
)
from pippin_contract.units import quantity
from pippin_contract.wire import CACHE_DIR, HTTP_PORT_NAME, SERVER_PORT, TERMINATION_LOG

PREFIX = "PIPPIN_SERVER_"

#: What earlier servers called a model's task.
_FORMER_TASKS = {
    "lm": "chat",
    "multimodal": "chat",
    "embeddings": "embedding",
    "whisper": "transcription",
    "image-generation": "image",
    "image-edit": "image",
}
Task = Annotated[
    serverconfig.Task,
    BeforeValidator(lambda told: _FORMER_TASKS.get(told, told)),
]


class SettingsError(Exception):
    """Everything that is wrong with the settings, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _names(ours: str, *legacy: str) -> AliasChoices:
    """The names of a setting in the environment; the ones known from earlier servers last."""
    return AliasChoices(PREFIX + ours, *legacy)


class Settings(BaseSettings):
    """Frozen. Sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        env_ignore_empty=True,
        case_sensitive=True,
    )

    config: Path | None = Field(
        default=None,
        validation_alias=_names("CONFIG"),
        description="The operator's file (ServerConfig); without it the server stands alone.",
    )
    model: str = Field(
        default="",
        validation_alias=_names("MODEL", "MODEL_PATH"),
        description="Directory with the weights, or where they come from: hf://, s3://, oci://,"
        " https://, file://.",
    )
    name: str = Field(
        default="",
        validation_alias=_names("NAME"),
        description="Name that clients ask for; empty: the directory's.",
    )
    models_dir: Path | None = Field(
        default=None,
        validation_alias=_names("MODELS_DIR"),
        description="Directory of models that are all served, each loaded when it is first asked"
        " for; instead of a model.",
    )
    max_loaded_models: int = Field(
        default=3,
        ge=1,
        le=64,
        validation_alias=_names("MAX_LOADED_MODELS"),
        description="Models of that directory in memory at once; the one that was not used for the"
        " longest time makes room for another.",
    )
    load_timeout: float = Field(
        default=300,
        gt=0,
        validation_alias=_names("LOAD_TIMEOUT"),
        description="Seconds in which one of them must be loaded.",
    )
    adapters: tuple[AdapterConfig, ...] = Field(
        default=(),
        validation_alias=_names("ADAPTERS"),
        description="LoRA adapters, each served as name:adapter, as a JSON list of"
        ' {"name": …, "uri": …}; instead of `uri`, `path` names a directory.',
    )
    adapter_sources: tuple[str, ...] = Field(
        default=(),
        validation_alias=_names("ADAPTER_SOURCES"),
        description="Beginnings of uris (`hf://our-organisation`, `file:///adapters`) from which"
        " adapters may be loaded while the server runs, as a JSON list; absent: they may not.",
    )
    engine: EngineName | None = Field(
        default=None,
        validation_alias=_names("ENGINE"),
        description="mlx, vllm or echo; absent: what `pippin-server hardware` would take.",
    )
    task: Task = Field(
        default="chat",
        validation_alias=_names("TASK", "MODEL_TYPE"),
        description="What the model does: chat, completion, embedding, transcription or image;"
        " lm and multimodal are chat, embeddings is embedding, whisper is transcription,"
        " image-generation and image-edit are image.",
    )
    engine_args: tuple[str, ...] = Field(
        default=(),
        validation_alias=_names("ENGINE_ARGS"),
        description="Arguments of the engine, as a JSON list.",
    )
    echo: EchoConfig = Field(
        default=EchoConfig(),
        validation_alias=_names("ECHO"),
        description="Knobs of the echo engine, as a JSON object.",
    )
    host: str = Field(
        default="",
        validation_alias=_names("HOST", "SERVER_HOST", "HF_SERVER_HOST"),
        description="Address to listen on; empty: all when callers need a key, else loopback.",
    )
    port: int = Field(
        default=SERVER_PORT,
        ge=0,
        le=65535,
        validation_alias=_names("PORT", "SERVER_PORT", "HF_SERVER_PORT"),
        description="Port to listen on.",
    )
    max_concurrency: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        validation_alias=_names("MAX_CONCURRENCY", "MAX_CONCURRENCY"),
        description="Requests that are worked on at once; absent: the file's.",
    )
    max_queue: int | None = Field(
        default=None,
        ge=0,
        validation_alias=_names("MAX_QUEUE"),
        description="Requests that may wait; absent: the file's.",
    )
    context_length: int | None = Field(
        default=None,
        ge=1,
        validation_alias=_names("CONTEXT_LENGTH", "CONTEXT_LENGTH"),
        description="Most tokens of prompt and answer; absent: the model's.",
    )
    prompt_cache: bool | None = Field(
        default=None,
        validation_alias=_names("PROMPT_CACHE", "HF_SERVER_ENABLE_CACHING"),
        description="Keep prefixes of prompts; absent: the file's, else yes.",
    )
    prompt_cache_bytes: int | None = Field(
        default=None,
        ge=0,
        validation_alias=_names("PROMPT_CACHE_BYTES"),
        description="Memory for them (`2Gi`); absent: the file's, else an eighth of what the"
        " weights leave, at most 2Gi. Engine mlx.",
    )
    memory_limit: int | None = Field(
        default=None,
        ge=1,
        validation_alias=_names("MEMORY_LIMIT"),
        description="Memory that the server may take (`16Gi`); absent: what the container's limit,"
        " Metal and the machine leave. Engine mlx.",
    )
    memory_check: Literal["refuse", "warn"] = Field(
        default="refuse",
        validation_alias=_names("MEMORY_CHECK"),
        description="What happens to a model that does not fit into memory: it is refused, or a"
        " warning is logged and it is tried. Engine mlx.",
    )
    warmup: bool = Field(
        default=True,
        validation_alias=_names("WARMUP", "MLX_WARMUP"),
        description="Make one token before the server is ready.",
    )
    api_keys_file: Path | None = Field(
        default=None,
        validation_alias=_names("API_KEYS_FILE"),
        description="File with one key a line, for a server without a gateway.",
    )
    cache_dir: Path = Field(
        default=Path(CACHE_DIR),
        validation_alias=_names("CACHE_DIR"),
        description="Where downloaded weights go; models and servers may share it.",
    )
    private_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(),
        validation_alias=_names("PRIVATE_NETWORKS"),
        description="Networks that are not public from which weights may come all the same, as a"
        " JSON list. Endpoints of s3:// and registries of oci:// may be in a cluster's or a"
        " company's (10.0.0.0/8 and the like) without; a cloud's metadata service never.",
    )
    plain_http_registries: tuple[str, ...] = Field(
        default=(),
        validation_alias=_names("PLAIN_HTTP_REGISTRIES"),
        description="Registries (host or host:port) that oci:// asks without TLS, as a JSON list.",
    )
    file_roots: tuple[Path, ...] = Field(
        default=(),
        validation_alias=_names("FILE_ROOTS"),
        description="Directories below which file:// may name models, as a JSON list.",
    )
    max_body_bytes: int = Field(
        default=8 * 1024 * 1024,
        ge=1024,
        validation_alias=_names("MAX_BODY_BYTES"),
        description="Largest JSON body.",
    )
    max_media_bytes: int = Field(
        default=25 * 1024 * 1024,
        ge=1024,
        validation_alias=_names("MAX_MEDIA_BYTES"),
        description="Largest body with media.",
    )
    body_timeout: float = Field(
        default=30,
        gt=0,
        validation_alias=_names("BODY_TIMEOUT"),
        description="Seconds in which a body must arrive.",
    )
    drain_timeout: float | None = Field(
        default=None,
        ge=0,
        validation_alias=_names("DRAIN_TIMEOUT"),
        description="Seconds for answers under way when the server ends; absent: the file's.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        validation_alias=_names("LOG_LEVEL", "HF_SERVER_LOG_LEVEL"),
        description="Lines with less weight are not written.",
    )
    access_log: bool = Field(
        default=True,
        validation_alias=_names("ACCESS_LOG"),
        description="Write one line for each request.",
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _small(cls, told: object) -> object:
        return told.lower() if isinstance(told, str) else told

    @field_validator("prompt_cache_bytes", "memory_limit", mode="before")
    @classmethod
    def _in_bytes(cls, told: object) -> object:
        return int(quantity(told)) if isinstance(told, str) else told


def load(flags: Mapping[str, Any]) -> Settings:
    """Flags that are None were not given. Raises SettingsError."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError(_lines(error)) from error


def environment() -> Mapping[str, str]:
    """The environment, for `pippin_contract.native`."""
    return os.environ


def server_config(
    settings: Settings, preferred: Callable[[], EngineName] = lambda: "mlx"
) -> ServerConfig:
    """The operator's file, or one made from the settings for a standalone server, with the
    `preferred` engine where none is told."""
    config = _from_file(settings.config) if settings.config else _standalone(settings, preferred)
    changed: dict[str, Any] = {}
    if settings.max_concurrency is not None:
        changed["max_concurrency"] = settings.max_concurrency
    if settings.max_queue is not None:
        changed["max_queue"] = settings.max_queue
    if settings.drain_timeout is not None:
        changed["drain_timeout_seconds"] = settings.drain_timeout
    changed["prompt_cache"] = _prompt_cache(settings, config.prompt_cache)
    return config.model_copy(update=changed)


def several_config(settings: Settings, preferred: Callable[[], EngineName]) -> ServerConfig:
    """What holds for every model of the directory that says nothing else. Raises SettingsError."""
    problems = [
        f"{name}: one model's only: leave it out, or leave models_dir out"
        for name in ("config", "model", "name", "adapters", "adapter_sources")
        if getattr(settings, name)
    ]
    if problems:
        raise SettingsError(problems)
    return server_config(settings.model_copy(update={"name": "models", "model": "."}), preferred)


def _prompt_cache(settings: Settings, told: PromptCacheConfig) -> PromptCacheConfig:
    changed: dict[str, Any] = {"enabled": settings.prompt_cache}
    changed["max_bytes"] = settings.prompt_cache_bytes
    return told.model_copy(update={k: v for k, v in changed.items() if v is not None})


def address(settings: Settings, config: ServerConfig) -> tuple[str, int]:
    """Where to listen. Without any key only the loopback is a safe default."""
    open_to_all = config.auth.mode == "none" and settings.api_keys_file is None
    host = settings.host or ("127.0.0.1" if open_to_all else "0.0.0.0")
    return native.bind(HTTP_PORT_NAME, host, settings.port, os.environ)


def termination_log() -> Path:
    """Where Kubernetes reads why a container ended."""
    told = os.environ.get(native.TERMINATION_LOG)
    return Path(told) if told else Path(TERMINATION_LOG)


def _from_file(path: Path) -> ServerConfig:
    where = native.resolve(str(path), os.environ)
    try:
        return serverconfig.load(where.read_text())
    except OSError as error:
        raise SettingsError([f"config: {path.name} cannot be read: {error.strerror}"]) from error
    except ValidationError as error:
        raise SettingsError([f"{path.name}: {line}" for line in _lines(error)]) from error


def _standalone(settings: Settings, preferred: Callable[[], EngineName]) -> ServerConfig:
    if not settings.model and settings.engine != "echo":
        raise SettingsError(["model: give --model DIR or --config FILE (or --engine echo)"])
    name = settings.name or Path(settings.model.partition("#")[0]).name or "echo"
    remote = "://" in settings.model
    return ServerConfig(
        name=name,
        served_name=name,
        engine=settings.engine or preferred(),
        engine_args=settings.engine_args,
        echo=settings.echo,
        model=ModelConfig(
            uri=settings.model if remote else "",
            path="" if remote else settings.model and str(Path(settings.model).absolute()),
            task=settings.task,
            context_length=settings.context_length,
        ),
        adapters=settings.adapters,
    )


def _lines(error: ValidationError) -> list[str]:
    found = []
    for item in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in item["loc"])
        found.append(f"{where}: {item['msg']}")
    return found
