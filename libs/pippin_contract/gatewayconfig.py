"""The file that the chart writes and the gateway reads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from . import addresses
from .serverconfig import Frozen
from .wire import (
    ADMIN_DIR,
    GATEWAY_PORT,
    PROVIDER_CA_DIR,
    REDIS_SECRET_DIR,
    SIGNING_KEY_DIR,
    SNAPSHOT_DIR,
)


class GatewayConfig(Frozen):
    """Everything a gateway Pod is told. Times in seconds, sizes in bytes."""

    version: Literal[1] = 1
    #: Of Pippin itself: the keys of providers lie there.
    namespace: str = "pippin-system"
    port: int = Field(default=GATEWAY_PORT, ge=1, le=65535)
    signing_key_dir: str = SIGNING_KEY_DIR
    admin_dir: str = ADMIN_DIR
    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    max_media_bytes: int = Field(default=25 * 1024 * 1024, ge=1024)
    connect_timeout_seconds: float = Field(default=5, gt=0)
    #: How long a request waits for a replica of a model that has none yet; 0: not at all.
    queue_timeout_seconds: float = Field(default=30, ge=0)
    first_token_timeout_seconds: float = Field(default=30, gt=0)
    stream_idle_timeout_seconds: float = Field(default=120, gt=0)
    total_timeout_seconds: float = Field(default=300, gt=0)
    drain_timeout_seconds: float = Field(default=60, ge=0)
    #: redis://HOST:6379/0 or rediss://…: where all gateways count limits and keep answers; empty:
    #: each for itself.
    redis_url: str = ""
    redis_secret_dir: str = REDIS_SECRET_DIR
    #: What holds while Redis is away: this gateway's share of every limit, no limit, or no request.
    redis_away: Literal["localShare", "failOpen", "failClosed"] = "localShare"
    #: An OpenTelemetry collector, http://HOST:4318/v1/traces; empty: nobody collects traces.
    traces_url: str = Field(default="", pattern=r"^(https?://.+)?$")
    #: Of the traces that begin here, the share that is recorded.
    traces_share: float = Field(default=1, ge=0, le=1)
    snapshot_dir: str = SNAPSHOT_DIR
    max_staleness_seconds: float = Field(default=86400, gt=0)
    provider_ca_dir: str = PROVIDER_CA_DIR
    #: Networks in which providers may lie beside public addresses.
    provider_networks: tuple[str, ...] = addresses.PRIVATE
    access_log: bool = True
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("provider_networks")
    @classmethod
    def _are_networks(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        addresses.networks(texts)
        return texts


def load(text: str) -> GatewayConfig:
    """Raises pydantic.ValidationError with every wrong field."""
    return GatewayConfig.model_validate_json(text)
