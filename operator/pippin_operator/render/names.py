"""Names, labels and owner references of children. Selectors hold nothing that can change."""

from __future__ import annotations

from typing import Any

from pippin_contract import wire

from .context import Model

#: Hash of the manifest as it was applied, on children only: a field that is no longer wanted is
#: noticed by it, also after a restart.
MANIFEST_HASH = f"{wire.GROUP}/manifest"
#: Hash of the ServerConfig, on Pods: a new config rolls them.
CONFIG_HASH = f"{wire.GROUP}/config"


def config_map(model: Model) -> str:
    return f"{model.name}-server"


def claim(model: Model) -> str:
    return f"{model.name}-weights"


def selector(model: Model) -> dict[str, str]:
    return {wire.LABEL_NAME: wire.SERVER_APP, wire.LABEL_INSTANCE: model.name}


def labels(model: Model) -> dict[str, str]:
    return {
        **selector(model),
        wire.LABEL_COMPONENT: "server",
        wire.LABEL_MANAGED_BY: wire.MANAGER,
    }


def metadata(model: Model, name: str, **extra_labels: str) -> dict[str, Any]:
    """Metadata of a child, owned by the ModelDeployment so that its end is theirs."""
    return {
        "name": name,
        "namespace": model.namespace,
        "labels": {**extra_labels, **labels(model)},
        "ownerReferences": [owner(wire.API_VERSION, "ModelDeployment", model.name, model.uid)],
    }


def owner(api_version: str, kind: str, name: str, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
