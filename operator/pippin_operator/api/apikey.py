"""APIKey: who may call which models, and how much."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from .meta import (
    KUBE,
    Condition,
    Duration,
    KubeModel,
    ObjectName,
    SecretKey,
    Text,
    conditions,
    rule,
    rules,
    set_of,
)

Glob = Annotated[str, Field(min_length=1, max_length=256)]
Counted = Annotated[int, Field(ge=1, le=1_000_000_000)]


class KeyLimits(KubeModel):
    """What this key may use."""

    rpm: Counted | None = Field(default=None, description="Requests a minute.")
    tpm: Counted | None = Field(default=None, description="Tokens a minute.")
    concurrency: int | None = Field(default=None, ge=1, le=100_000, description="At once.")
    tokens_per_day: int | None = Field(
        default=None,
        ge=1,
        le=2**53,
        description="Tokens a day (UTC).",
        json_schema_extra={"format": "int64"},
    )


class Rotation(KubeModel):
    """A new key from time to time, the old one good for a while."""

    model_config = ConfigDict(
        **KUBE,
        json_schema_extra=rules(
            rule(
                "duration(self.overlap) < duration(self.interval)",
                "overlap must be shorter than interval",
                ".overlap",
            )
        ),
    )

    interval: Duration = Field(description="Age at which a key is replaced.")
    overlap: Duration = Field(default="24h", description="How long the old key is still good.")


class APIKeySpec(KubeModel):
    """Whose key, for what."""

    model_config = ConfigDict(
        **KUBE,
        json_schema_extra=rules(
            rule(
                "!(has(self.existingSecretRef) && has(self.rotation))",
                "rotation is not possible with existingSecretRef: leave one out",
                ".rotation",
            ),
            rule(
                "!(has(self.existingSecretRef) && has(self.secretName))",
                "secretName is not used with existingSecretRef: leave one out",
                ".secretName",
            ),
        ),
    )

    owner: Annotated[str, Field(max_length=253)] | None = Field(
        default=None, description="Whom to ask about this key."
    )
    description: Text | None = Field(default=None, description="What the key is for.")
    models: tuple[Glob, ...] = set_of(
        "Served names that the key may use, as globs: qwen-* or *. An empty list means none."
        " namespace/name is a model of another namespace that allows it.",
        64,
    )
    limits: KeyLimits | None = Field(default=None, description="What this key may use.")
    expires_at: str | None = Field(
        default=None,
        description="When the key ends.",
        json_schema_extra={"format": "date-time"},
    )
    enabled: bool = Field(default=True, description="Whether the key is good now.")
    secret_name: ObjectName | None = Field(
        default=None,
        description=(
            "Secret that the key is written into, under api-key, beside base-url."
            " Default: <name>-apikey."
        ),
    )
    existing_secret_ref: SecretKey | None = Field(
        default=None, description="A key of your own, of at least 32 characters."
    )
    rotation: Rotation | None = Field(default=None, description="A new key from time to time.")
    egress: Literal["Allow", "Deny"] = Field(
        default="Allow",
        description="Deny: requests never leave the cluster, not by fallback either.",
    )
    priority: Literal["interactive", "batch"] = Field(
        default="interactive",
        description="Who goes first when a model is busy: requests of batch keys wait for others.",
    )


class KeyRow(KubeModel):
    """One key that is good, by its digest. The key itself is in its Secret only."""

    id: str = Field(description="Id of the key. Not a secret.", max_length=64)
    digest: str = Field(description="sha256 of the key.", max_length=128)
    created_at: str | None = Field(
        default=None, description="Since when.", json_schema_extra={"format": "date-time"}
    )
    not_after: str | None = Field(
        default=None, description="Until when.", json_schema_extra={"format": "date-time"}
    )


class SecretRef(KubeModel):
    """Where the owner of the key reads it."""

    name: str = Field(description="Name of the Secret.")
    key: str = Field(description="Key inside the Secret.")


def _count(description: str) -> Any:
    """A sum that only grows."""
    return Field(default=0, ge=0, description=description, json_schema_extra={"format": "int64"})


class Sums(KubeModel):
    """How much."""

    requests: int = _count("Requests that went to a model.")
    errors: int = _count("Of these, such as the model failed.")
    prompt_tokens: int = _count("Tokens asked.")
    completion_tokens: int = _count("Tokens answered.")
    cached_tokens: int = _count("Of the tokens asked, those that the server's cache knew.")


class ModelSums(Sums):
    """How much of one model."""

    model: str = Field(description="Namespace/name of the ModelDeployment.", max_length=320)
    last_used_at: str | None = Field(
        default=None, description="When last used.", json_schema_extra={"format": "date-time"}
    )


class KeyUse(KubeModel):
    """When one of the keys was last shown to a gateway."""

    id: str = Field(description="Id of the key.", max_length=64)
    last_used_at: str = Field(
        description="When last used.", json_schema_extra={"format": "date-time"}
    )


class Mark(Sums):
    """How far a source of these sums was when it was last read."""

    source: str = Field(description="A gateway's memory, or the Redis of several.", max_length=64)
    model: str = Field(description="Namespace/name of the ModelDeployment.", max_length=320)


class Usage(Sums):
    """What the key has used, written every minute."""

    tokens_today: int | None = Field(
        default=None, description="Tokens of this day (UTC).", json_schema_extra={"format": "int64"}
    )
    window: str | None = Field(default=None, description="The day that tokensToday counts.")
    models: tuple[ModelSums, ...] = Field(
        default=(), max_length=65, description="The same by model."
    )
    keys: tuple[KeyUse, ...] = Field(
        default=(), max_length=8, description="When each key that is good was last used."
    )
    counted: tuple[Mark, ...] = Field(
        default=(), max_length=256, description="What of each source is in the sums already."
    )


class APIKeyStatus(KubeModel):
    """What is."""

    observed_generation: int | None = Field(
        default=None,
        description="Generation of the spec that was last acted upon.",
        json_schema_extra={"format": "int64"},
    )
    phase: Literal["Active", "Disabled", "Expired", "Rotating", "Error"] | None = Field(
        default=None, description="The conditions in one word."
    )
    key_id: str | None = Field(default=None, description="Id of the newest key. Not a secret.")
    keys: tuple[KeyRow, ...] = Field(
        default=(),
        max_length=8,
        description="Digests of the keys that are good.",
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["id"],
        },
    )
    secret_ref: SecretRef | None = Field(default=None, description="Where the key is.")
    last_used_at: str | None = Field(
        default=None, description="When last used.", json_schema_extra={"format": "date-time"}
    )
    usage: Usage | None = Field(default=None, description="What the key has used.")
    conditions: tuple[Condition, ...] = conditions()


class APIKey(KubeModel):
    """A key for the models of its namespace."""

    spec: APIKeySpec = Field(description="Whose key, for what.")
    status: APIKeyStatus | None = Field(default=None, description="What is.")
