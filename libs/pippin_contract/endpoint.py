"""How the gateway reaches a native Pod: the URL in the condition pippin.dev/Endpoint.

    http://127.0.0.1:PORT                     gateway and Pod are on one machine
    https://MAC:10260/pods/UID#SHA256         through the TLS port of the node's agent

The fragment is the SHA-256 of the certificate that the agent shows for Pods. It stands in the Pod's
status, which only the Pod's own node may write, so the gateway needs neither an authority nor
anybody's approval to know the machine. On that port the gateway asks for SERVER_NAME (that is how
the agent tells it from the API server), sends `GET /pods/UID` with its signed token and
`Upgrade: PROTOCOL`, and after `101` has the Pod's own port before it, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from .wire import ENDPOINT_CONDITION, HTTP_PORT_NAME

SERVER_NAME: Final = "pods.pippin.dev"
PROTOCOL: Final = "pippin-pod"

_POD_PATH = re.compile(r"/pods/[0-9A-Za-z-]{1,63}")
_PIN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a Pod answers; with `pin` only through the TLS port of its node."""

    host: str
    port: int
    path: str = ""
    pin: str = ""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        if self.pin:
            return f"https://{self.authority}{self.path}#{self.pin}"
        return f"http://{self.authority}"


def through_node(host: str, port: int, uid: str, pin: str) -> Endpoint:
    """Of the Pod with that uid behind its node's TLS port."""
    return Endpoint(host, port, f"/pods/{uid}", pin)


def parse(url: str) -> Endpoint:
    """Raises ValueError, in words, when it is neither of the two forms."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port
    if host and port and not parts.query and not parts.username:
        if parts.scheme == "http" and not parts.path and not parts.fragment:
            return Endpoint(host, port)
        if parts.scheme == "https" and _POD_PATH.fullmatch(parts.path):
            if _PIN.fullmatch(parts.fragment):
                return Endpoint(host, port, parts.path, parts.fragment)
    raise ValueError(f"{url!r} is neither http://host:port nor https://host:port/pods/uid#sha256")


def of_pod(pod: Mapping[str, Any], default_port: int) -> Endpoint | None:
    """Where a Pod's port `http` is: as its node says, else at its address; None: nowhere yet.

    Raises ValueError when what the node says makes no sense.
    """
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        told = condition.get("type") == ENDPOINT_CONDITION and condition.get("status") == "True"
        if told and condition.get("message"):
            return parse(condition["message"])
    address = status.get("podIP")
    return Endpoint(address, _http_port(pod, default_port)) if address else None


def _http_port(pod: Mapping[str, Any], default: int) -> int:
    for container in (pod.get("spec") or {}).get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("name") == HTTP_PORT_NAME:
                return int(port["containerPort"])
    return default
