"""What a gateway tells at /admin/usage, and the operator writes into the status of APIKeys.

Counts grow for as long as their source lives: a gateway's memory, or the Redis of several. Who adds
up remembers how far a source was, and asks a new one from nothing.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .serverconfig import Frozen


class ModelUsage(Frozen):
    """What one key has used of one model (namespace/name)."""

    model: str
    requests: int = Field(default=0, ge=0)
    #: Requests that the model failed; what the client did wrong is none.
    errors: int = Field(default=0, ge=0)
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    #: Prompt tokens that were in the server's cache.
    cached_tokens: int = Field(default=0, ge=0)
    #: Unix seconds.
    last_used_at: float = 0


class KeyUsage(Frozen):
    """By an APIKey (uid, and namespace/name); `ids`: when each of its keys was last shown."""

    uid: str
    key: str
    ids: dict[str, float] = {}
    models: tuple[ModelUsage, ...] = ()


class UsageReport(Frozen):
    """Of one source."""

    version: Literal[1] = 1
    source: str
    keys: tuple[KeyUsage, ...] = ()


def load(text: bytes) -> UsageReport:
    """Raises pydantic.ValidationError."""
    return UsageReport.model_validate_json(text)
