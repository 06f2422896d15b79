"""How a program finds its files and ports when it runs as a native Pod, without a container.

The node agent lays mounts out under the Pod's own directory and passes `PIPPIN_ROOT`; it picks a
loopback port for each named container port and passes `PIPPIN_BIND_HOST` and `PIPPIN_PORT_<NAME>`.
In a container none of them is set and every function here is the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ROOT = "PIPPIN_ROOT"
BIND_HOST = "PIPPIN_BIND_HOST"
PORT_PREFIX = "PIPPIN_PORT_"
TERMINATION_LOG = "PIPPIN_TERMINATION_LOG"
#: No kernel holds a native process to its container's limit, so the server does it by itself.
MEMORY_LIMIT = "PIPPIN_SERVER_MEMORY_LIMIT"


def resolve(path: str, environ: Mapping[str, str]) -> Path:
    """Where an absolute path of the Pod lies on this machine."""
    root = environ.get(ROOT)
    return Path(root) / path.lstrip("/") if root else Path(path)


def port_variable(name: str) -> str:
    """`http` -> `PIPPIN_PORT_HTTP`."""
    return PORT_PREFIX + name.upper().replace("-", "_")


def bind(name: str, host: str, port: int, environ: Mapping[str, str]) -> tuple[str, int]:
    """Where to listen for a named container port: the given host and port unless told other."""
    chosen = environ.get(port_variable(name))
    return environ.get(BIND_HOST, host), int(chosen) if chosen else port
