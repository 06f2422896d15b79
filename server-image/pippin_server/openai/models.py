"""GET /v1/models: what is shown of a model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pippin_contract.serverconfig import ServerConfig


class ModelRequest(BaseModel):
    """Of /models/load and /models/unload."""

    model_config = ConfigDict(extra="forbid")

    model: str


def card(config: ServerConfig, *, context_length: int | None, created: int) -> dict[str, object]:
    """OpenAI's four fields, and what people want to know besides."""
    return {
        "id": config.served_name,
        "object": "model",
        "created": created,
        "owned_by": "pippin",
        "task": config.model.task,
        "family": config.model.family,
        "tags": list(config.model.tags),
        "context_length": context_length or config.model.context_length,
        "description": config.model.description,
        "tier": "3A",
    }
