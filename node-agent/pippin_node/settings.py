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

    root: Path = Field(
        default=Path("/var/lib/pippin-node"),
        description="Where the agent keeps everything: identity, Pods, logs.",
    )
    name: str = Field(
        default_factory=lambda: platform.node().lower(), description="Name of the Node."
    )
    os: OperatingSystem = Field(
        default="darwin" if sys.platform == "darwin" else "linux",
        description="What the Node says it runs; to be changed in tests only.",
    )
    host_address: str = Field(
        default="127.0.0.1",
        description="Address of this machine: of the Node, of the kubelet API and of host ports.",
    )
    kubelet_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="TLS port, for logs and for gateways; 0: 10260, on loopback any free one.",
    )
    images: dict[str, tuple[str, ...]] = Field(
        default_factory=default_images,
        description="Image name to command line; the programs of the agent's own environment.",
    )
    allow_host_path: tuple[Path, ...] = Field(
        default=(), description="Directories that Pods may mount; others are refused."
    )
    labels: dict[str, str] = Field(default={}, description="Further labels of the Node.")
    max_pods: int = Field(default=110, ge=1, description="Pods that the Node takes.")
    memory_budget: str = Field(
        default="",
        description="Memory that Pods may ask for, such as 24Gi; empty: three quarters of a Mac's,"
        " nearly all of a Linux machine's.",
    )
    pass_env: tuple[str, ...] = Field(
        default=(), description="Names of the agent's own variables that every Pod gets."
    )
    port_first: int = Field(
        default=20000, ge=1024, le=65535, description="First of the loopback ports for Pods."
    )
    port_last: int = Field(
        default=29999, ge=1024, le=65535, description="Last of the loopback ports for Pods."
    )

    lease_seconds: int = Field(
        default=40, ge=1, description="Life of the Lease; it is renewed at a quarter of it."
    )
    node_status_seconds: float = Field(
        default=300,
        gt=0,
        description="How often the Node's status is written when nothing changes.",
    )
    node_check_seconds: float = Field(
        default=10, gt=0, description="How often the Node is compared with the machine."
    )
    resync_seconds: float = Field(
        default=60, gt=0, description="How often volumes are looked at again."
    )
    retry_seconds: float = Field(
        default=5, gt=0, description="Pause after a failed mount or write."
    )
    backoff_seconds: float = Field(default=10, gt=0, description="First pause of a crash loop.")
    backoff_max_seconds: float = Field(
        default=300, gt=0, description="Longest pause of a crash loop."
    )
    backoff_reset_seconds: float = Field(
        default=600,
        gt=0,
        description="A container that ran so long begins with the first pause again.",
    )
    csr_wait_seconds: float = Field(
        default=300, gt=0, description="How long a join waits for its approval."
    )
    log_max_bytes: int = Field(
        default=10 * 1024 * 1024, ge=1024, description="Size at which a log is rotated."
    )
    log_max_files: int = Field(
        default=3,
        ge=1,
        description="Log files kept for each container, the current one among them.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lines with less weight are not written."
    )

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
