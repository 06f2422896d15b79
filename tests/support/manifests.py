"""ModelDeployments and APIKeys for tests: defaults everywhere, overrides deep-merge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pippin_contract import wire

SAMPLES = Path(__file__).parents[2] / "crds/samples"


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping; lists and scalars are replaced."""
    result = dict(base)
    for key, value in over.items():
        inner = result.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        result[key] = merged(inner, value) if both else value  # type: ignore[arg-type]
    return result


def sample(file: str, **spec: Any) -> dict[str, Any]:
    """A manifest that users copy, from crds/samples; keywords are merged into its spec."""
    return merged(yaml.safe_load((SAMPLES / file).read_text()), {"spec": spec} if spec else {})


def model(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """An echo ModelDeployment on this machine's CPU; keywords are merged into its spec."""
    base = {
        "model": {"task": "chat"},
        "engine": {"type": "echo"},
        "accelerator": {"type": "cpu"},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    }
    return {
        "apiVersion": wire.API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": merged(base, spec),
    }


def key(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """An APIKey for every model of its namespace."""
    return {
        "apiVersion": wire.API_VERSION,
        "kind": "APIKey",
        "metadata": {"name": name, "namespace": namespace},
        "spec": merged({"models": ["*"]}, spec),
    }
