"""Providers outside: how their URL is read, what they are asked at most, how their key is handed
over.

The operator copies the key of every ModelDeployment that names one into one Secret beside the
gateway. An entry says where and for whom the key is, so that a ModelDeployment that was pointed
elsewhere a moment ago does not show the old provider's key to the new one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field

from .serverconfig import Frozen

#: As the CRD says it too. What could end a request line or hold a credential is not among it.
URL: Final = (
    r"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
    r"(/[A-Za-z0-9._~%!$&()*+,;=:@/-]*)?$"
)
#: Requests and tokens a minute, where a ModelDeployment limits neither.
LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "openai": (100, 50_000),
    "ollama": (100, 50_000),
    "llamacpp": (120, 60_000),
    "vllm": (50, 100_000),
}
#: What a key may look like: it stands in a header.
MAX_KEY: Final = 4096
_KEY = re.compile(r"[!-~]+")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a provider answers; `base` is put before /chat/completions and its like."""

    host: str
    port: int
    tls: bool
    base: str

    @property
    def authority(self) -> str:
        """For the header Host: without the port that everybody would guess."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == _PORTS["https" if self.tls else "http"]
        return host if usual else f"{host}:{self.port}"


def parse(url: str) -> Place:
    """As OpenAI's clients take a base URL; without any path it is /v1. Raises ValueError."""
    if not re.fullmatch(URL, url):
        raise ValueError(
            "it must be http://host or https://host, with a port and a path if need be,"
            " and without user, query and fragment"
        )
    parts = urlsplit(url)
    port = parts.port or _PORTS[parts.scheme]
    return Place(
        parts.hostname or "", port, parts.scheme == "https", parts.path.rstrip("/") or "/v1"
    )


def limits(external: Mapping[str, Any], set_ones: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a ModelDeployment limits, or, where it sets neither rpm nor tpm, what is usual."""
    if set_ones.get("rpm") is not None or set_ones.get("tpm") is not None:
        return set_ones
    rpm, tpm = LIMITS.get(external.get("provider") or "openai", LIMITS["openai"])
    return {**set_ones, "rpm": rpm, "tpm": tpm}


class Handed(Frozen):
    """A key for a provider, as it lies in the Secret beside the gateway."""

    version: Literal[1] = 1
    url: str
    secret: str
    entry: str
    key: str = Field(repr=False)

    def is_for(self, url: str, secret: str, entry: str) -> bool:
        """Whether it is the one that a ModelDeployment means now."""
        return (self.url, self.secret, self.entry) == (url, secret, entry)


def sendable(key: str) -> bool:
    """Whether it can stand in a header."""
    return len(key) <= MAX_KEY and _KEY.fullmatch(key) is not None


def row(namespace: str, name: str) -> str:
    """Of a ModelDeployment in that Secret. Namespaces have no dots."""
    return f"{namespace}.{name}"


def owner(row: str) -> tuple[str, str]:
    """Namespace and name."""
    namespace, _, name = row.partition(".")
    return namespace, name
