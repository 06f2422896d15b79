"""What the agent may be told, by `PIPPIN_NODE_*` or by flags. Times in seconds, sizes in bytes."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pippin_contract.units import quantity

OperatingSystem = Literal["linux", "darwin"]


def default_images() -> dict[str, tuple[str, ...]]:
    """Image name -> command line: the entry points of the agent's own environment."""
    return {
        name: (sys.executable, "-m", name.replace("-", "_"))
        for name in ("pippin-operator", "pippin-gateway", "pippin-server")
    }


class Settings(BaseSettings):
    """Read once at start; all errors at once."""

    model_config = SettingsConfigDict(env_prefix="PIPPIN_NODE_", frozen=True)

    root: Path = Path("/var/lib/pippin-node")
    name: str = Field(default_factory=lambda: platform.node().lower())
    os: OperatingSystem = Field(
        default="darwin" if sys.platform == "darwin" else "linux",
        description="What the Node says it runs; to be changed in tests only.",
    )
    host_address: str = "127.0.0.1"
    kubelet_port: int = Field(default=0, ge=0, le=65535, description="0: any free port.")
    images: dict[str, tuple[str, ...]] = Field(default_factory=default_images)
    allow_host_path: tuple[Path, ...] = ()
    labels: dict[str, str] = {}
    max_pods: int = Field(default=110, ge=1)
    memory_budget: str = Field(default="", description="Memory that Pods may ask for.")
    pass_env: tuple[str, ...] = ()
    port_first: int = Field(default=20000, ge=1024, le=65535)
    port_last: int = Field(default=29999, ge=1024, le=65535)

    lease_seconds: int = Field(default=40, ge=1)
    node_status_seconds: float = Field(default=300, gt=0)
    node_check_seconds: float = Field(default=60, gt=0)
    resync_seconds: float = Field(default=60, gt=0, description="Volumes are looked at again.")
    retry_seconds: float = Field(default=5, gt=0, description="After a failed mount or write.")
    backoff_seconds: float = Field(default=10, gt=0, description="First pause of a crash loop.")
    backoff_max_seconds: float = Field(default=300, gt=0)
    backoff_reset_seconds: float = Field(default=600, gt=0)
    csr_wait_seconds: float = Field(default=300, gt=0, description="For a join to be approved.")
    log_max_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    log_max_files: int = Field(default=3, ge=1)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("root", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.absolute()

    @field_validator("allow_host_path", mode="after")
    @classmethod
    def _absolute_all(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(path.absolute() for path in value)

    @field_validator("memory_budget", mode="after")
    @classmethod
    def _is_quantity(cls, value: str) -> str:
        if value:
            quantity(value)
        return value
