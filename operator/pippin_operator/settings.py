"""What the operator is told, once, at its start: environment `PIPPIN_OPERATOR_*` and flags."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from pippin_contract import __version__, native, wire


class Settings(BaseSettings):
    """Typed, frozen, total. Times in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="PIPPIN_OPERATOR_",
        frozen=True,
        extra="forbid",
        cli_kebab_case=True,
        populate_by_name=True,
    )

    namespace: str = Field(
        default="pippin-system",
        validation_alias=AliasChoices("PIPPIN_OPERATOR_NAMESPACE", "POD_NAMESPACE", "namespace"),
        description="Namespace of Pippin itself, where the gateway's signing keys lie.",
    )
    kubeconfig: str | None = Field(
        default=None,
        validation_alias=AliasChoices("PIPPIN_OPERATOR_KUBECONFIG", "KUBECONFIG", "kubeconfig"),
        description="Path of a kubeconfig; absent: the Pod's service account.",
    )
    server_image: str = Field(
        default=f"pippin-server:{__version__}",
        min_length=1,
        description="Image of the servers; -mlx, -vllm or -vllm-cpu is added to its tag.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When server images are pulled."
    )
    gateway_url: str = Field(
        default="http://pippin-gateway.pippin-system.svc",
        pattern=r"^https?://[^/]+",
        description="Where clients reach the gateway, without /v1.",
    )
    host: str = Field(default="0.0.0.0", description="Address of metrics and health.")
    port: int = Field(
        default=wire.OPERATOR_PORT, ge=0, le=65535, description="Port of metrics and health."
    )
    concurrency: int = Field(default=32, ge=1, le=1024, description="Objects settled at once.")
    resync_seconds: float = Field(
        default=300, gt=0, description="How often everything is read and settled again."
    )
    key_check_seconds: float = Field(
        default=60, gt=0, description="How often a key's Secret is looked at."
    )
    usage_seconds: float = Field(
        default=60, gt=0, description="How often what keys have used is read from the gateways."
    )
    autoscale_seconds: float = Field(
        default=2,
        gt=0,
        description="How often gateways are asked how much autoscaled models are in demand.",
    )
    api_check_seconds: float = Field(
        default=15, gt=0, description="How often optional APIs are looked for."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lines with less weight are not written."
    )

    def listen(self) -> tuple[str, int]:
        """Where metrics and health are served; a native Pod is told by its agent."""
        return native.bind("metrics", self.host, self.port, os.environ)

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return self.gateway_url.rstrip("/") + "/v1"
