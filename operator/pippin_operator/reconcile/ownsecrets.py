"""Secrets of Pippin's own namespace that the operator makes once and never again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pippin_contract import wire

from ..api.resources import SECRET, Manifest
from ..cluster import Cluster
from ..errors import Conflict, NotFound

#: What to put into one that has nothing; asked only then.
Make = Callable[[], Mapping[str, str]]


async def ensure(cluster: Cluster, namespace: str, name: str, make: Make) -> Manifest:
    """As it is. Whoever makes it first is right; everybody else reads it.

    The chart makes it empty, so that it goes with the release; labels stay the chart's.
    """
    try:
        secret = await cluster.get(SECRET, namespace, name)
    except NotFound:
        metadata = {
            "name": name,
            "namespace": namespace,
            "labels": {wire.LABEL_MANAGED_BY: wire.MANAGER},
        }
        try:
            return await cluster.create(_filled(metadata, make), SECRET)
        except Conflict:
            secret = await cluster.get(SECRET, namespace, name)
    if secret.get("data"):
        return secret
    metadata = {key: secret["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
    try:
        return await cluster.apply(_filled(metadata, make), SECRET, force=True)
    except Conflict:
        return await cluster.get(SECRET, namespace, name)


def _filled(metadata: Manifest, make: Make) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": metadata,
        "data": dict(make()),
    }
