"""What happens to children wakes their ModelDeployment. Secrets are not watched."""

from __future__ import annotations

from typing import Any

import kopf

from ..api.resources import WATCHED, Ref, Resource
from ..store import Store, owner_of
from ..workqueue import WorkQueue

#: Seconds by which news of children is collected: a starting Pod brings several at once.
GATHER = 0.05


def register(registry: kopf.OperatorRegistry, store: Store, queue: WorkQueue[Ref]) -> None:
    for resource in WATCHED:
        _register(resource, registry, store, queue)


def _register(
    resource: Resource,
    registry: kopf.OperatorRegistry,
    store: Store,
    queue: WorkQueue[Ref],
) -> None:
    @kopf.on.event(
        resource.api_version,
        resource.plural,
        id=f"{resource.plural}_seen",
        registry=registry,
    )
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        note(event["type"], resource, event["object"], store, queue)


def note(
    kind: str | None, resource: Resource, body: Any, store: Store, queue: WorkQueue[Ref]
) -> None:
    if kind == "DELETED":
        store.remove(resource, body)
    elif not store.put(resource, body):
        return
    owner = owner_of(body)
    if owner is not None:
        queue.wake(owner, GATHER)
