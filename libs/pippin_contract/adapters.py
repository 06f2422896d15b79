"""LoRA adapters: small weights beside a model's own, by which it also answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: What a model that has them does.
TASKS: Final = ("chat", "completion")


def served_name(model: str, adapter: str) -> str:
    """By which clients ask for it, for each of the model's names."""
    return f"{model}:{adapter}"


def every_name(model: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """By which a ModelDeployment called `name` answers, of its `spec.model` as it is in YAML."""
    plain = (model.get("name") or name, *(model.get("aliases") or ()))
    added = [adapter["name"] for adapter in model.get("adapters") or () if "name" in adapter]
    return *plain, *(served_name(one, adapter) for one in plain for adapter in added)
