"""GET /v1/models: what is shown of a model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pippin_contract.serverconfig import ServerConfig

from ..roster import Named


class ModelRequest(BaseModel):
    """Of /models/load and /models/unload."""

    model_config = ConfigDict(extra="forbid")

    model: str


def card(
    config: ServerConfig, named: Named, *, context_length: int | None, created: int
) -> dict[str, object]:
    """OpenAI's four fields, and what people want to know besides; `root` and `parent` as vLLM tells
    a model's adapters."""
    return {
        "id": named.served,
        "object": "model",
        "created": created,
        "owned_by": "pippin",
        "root": named.adapter or named.served,
        "parent": config.served_name if named.adapter else None,
        "task": config.model.task,
        "family": config.model.family,
        "tags": list(config.model.tags),
        "context_length": context_length or config.model.context_length,
        "description": config.model.description,
        "tier": "3A",
    }
