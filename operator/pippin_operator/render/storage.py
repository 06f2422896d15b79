"""The volume that keeps fetched weights while Pods come and go."""

from __future__ import annotations

from typing import Any

from ..api.honored import keeps_weights
from ..api.resources import Manifest
from . import names
from .context import Model

_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def claim(model: Model) -> Manifest | None:
    """None: weights are fetched into each Pod. One that is retained has no owner to end with."""
    storage = model.spec.storage
    if storage is None or not keeps_weights(model.spec):
        return None
    metadata = names.metadata(model, names.claim(model))
    if storage.retain:
        del metadata["ownerReferences"]
    spec: dict[str, Any] = {
        "accessModes": [storage.access_mode],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def cache(model: Model) -> dict[str, Any]:
    """The Pod's volume for what is fetched."""
    made = claim(model)
    if made is None:
        return {"name": "cache", "emptyDir": {}}
    return {"name": "cache", "persistentVolumeClaim": {"claimName": made["metadata"]["name"]}}


def strategy(model: Model, usual: dict[str, Any]) -> dict[str, Any]:
    """Of rollouts: a volume for one Pod alone has to be let go before the next one gets it."""
    storage = model.spec.storage
    alone = storage is not None and storage.access_mode == "ReadWriteOncePod"
    return {"type": "Recreate"} if alone and claim(model) else usual


def affinity(model: Model) -> dict[str, Any] | None:
    """The user's; Pods that share a volume of one node would rather be there too."""
    asked, storage = model.spec.affinity, model.spec.storage
    if storage is None or storage.access_mode != "ReadWriteOnce" or claim(model) is None:
        return asked
    term = {
        "labelSelector": {"matchLabels": names.selector(model)},
        "topologyKey": "kubernetes.io/hostname",
    }
    together = {_PREFERRED: [{"weight": 100, "podAffinityTerm": term}]}
    return {"podAffinity": together, **(asked or {})}
