"""What happens to APIKeys wakes them."""

from __future__ import annotations

from typing import Any

import kopf

from ..api.resources import APIKEY, Ref
from ..store import Store
from ..workqueue import WorkQueue


def register(registry: kopf.OperatorRegistry, store: Store, queue: WorkQueue[Ref]) -> None:
    @kopf.on.event(APIKEY.api_version, APIKEY.plural, registry=registry)
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        body = event["object"]
        if event["type"] == "DELETED":
            store.remove(APIKEY, body)
        elif store.put(APIKEY, body):
            queue.wake(Ref.of(APIKEY, body))
