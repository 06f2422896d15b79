"""GET /v1/models: what is shown of a model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pippin_contract.serverconfig import ServerConfig

from ..engines.base import Loaded
from ..roster import Named

#: What models of a task read, where it is not text.
_READ = {"transcription": ["audio"], "image": ["text", "image"]}


class ModelRequest(BaseModel):
    """Of /models/load and /models/unload."""

    model_config = ConfigDict(extra="forbid")

    model: str


def card(
    config: ServerConfig, named: Named, *, loaded: Loaded | None, created: int
) -> dict[str, object]:
    """OpenAI's four fields, and what people want to know besides; `root` and `parent` as vLLM tells
    a model's adapters; `input_modalities` as others tell what a model reads."""
    task = config.model.task
    sees = task == "chat" and loaded is not None and loaded.sees
    return {
        "id": named.served,
        "object": "model",
        "created": created,
        "owned_by": "pippin",
        "root": named.adapter or named.served,
        "parent": config.served_name if named.adapter else None,
        "task": task,
        "family": config.model.family,
        "tags": list(config.model.tags),
        "input_modalities": _READ.get(task) or ["text", *(["image"] if sees else [])],
        "context_length": loaded.context_length if loaded else config.model.context_length,
        "description": config.model.description,
        "tier": "3A",
    }
