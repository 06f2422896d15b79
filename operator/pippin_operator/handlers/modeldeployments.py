"""What happens to ModelDeployments wakes them, those that want the same served name, and those
that may fall back on them."""

from __future__ import annotations

from typing import Any

import kopf

from ..api.resources import MODELDEPLOYMENT, Ref
from ..store import Store
from ..workqueue import WorkQueue


def register(registry: kopf.OperatorRegistry, store: Store, queue: WorkQueue[Ref]) -> None:
    @kopf.on.event(MODELDEPLOYMENT.api_version, MODELDEPLOYMENT.plural, registry=registry)
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        note(event["type"], event["object"], store, queue)


def note(kind: str | None, body: Any, store: Store, queue: WorkQueue[Ref]) -> None:
    """Names are claimed and freed here, so rivals of before and after are woken."""
    ref = Ref.of(MODELDEPLOYMENT, body)
    rivals, links = store.rivals(ref), store.fallbacks(ref)
    if kind == "DELETED":
        store.remove(MODELDEPLOYMENT, body)
    elif not store.put(MODELDEPLOYMENT, body):
        return
    queue.wake(ref)
    # Only a change of names moves a claim: the set of rivals then differs, or the object is gone.
    after = store.rivals(ref)
    for rival in rivals | after if kind == "DELETED" or rivals != after else ():
        queue.wake(rival)
    # Who names it directly or over others; few name any.
    if store.fallbacks(ref) != links:
        for naming in store.with_fallbacks(ref.namespace) - {ref}:
            queue.wake(naming)
