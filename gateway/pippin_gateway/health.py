"""Is the gateway alive, ready, and how current is what it knows. No names: no key is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pippin_contract import __version__
from pippin_edge.asgi import Receive, Scope, Send

from .catalog.kinds import KINDS
from .catalog.store import CatalogStore
from .listing import answer_json

#: Who counts the limits, in words.
_COUNTED = {
    None: "counted by this gateway alone",
    True: "counted in Redis",
    False: "Redis is away",
}

#: Of what is known: too old to let anybody in.
EXPIRED = (
    "the gateway has not heard from the Kubernetes API server for longer than it may serve on"
    " without (maxStalenessSeconds): bring the API server back"
)


@dataclass
class Health:
    """Ready once the cluster was seen whole and there is a key to sign with, until it drains.

    Stays ready while the API server is away, until what is known is too old: till then it is still
    right to serve.
    """

    store: CatalogStore
    can_sign: Callable[[], bool]
    in_flight: Callable[[], int]
    #: Whether Redis counts the limits now; None: there is none to do it.
    shared: Callable[[], bool | None]
    draining: bool = False

    def why_not_ready(self) -> str:
        """Empty when ready."""
        if self.draining:
            return "draining"
        if not self.store.ready:
            return "waiting for the first list of: " + ", ".join(sorted(self.store.missing))
        if not self.can_sign():
            return "waiting for the signing key"
        return EXPIRED if self.store.freshness.expired else ""

    def why_not_current(self) -> str:
        """Empty while changes in the cluster arrive, or nothing is known."""
        since = self.store.stale_since
        if not since or not self.store.ready:
            return ""
        source = "a snapshot of" if self.store.restored else "what was known at"
        at = datetime.fromtimestamp(min(since.values()), UTC)
        return f"serving from {source} {at:%Y-%m-%dT%H:%M:%SZ}: the API server does not answer"

    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer_json(send, {"status": "ok"})

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        why = self.why_not_ready()
        content = {"status": "not ready" if why else "ok"}
        reason = why or self.why_not_current()
        if reason:
            content["reason"] = reason
        await answer_json(send, content, 503 if why else 200)

    def summary(self) -> dict[str, Any]:
        """What /status tells everybody: numbers, no names."""
        catalog = self.store.catalog
        why = self.why_not_ready()
        return {
            "status": "not ready" if why else "ok",
            "reason": why or self.why_not_current() or None,
            "version": __version__,
            "synced": {kind: self._synced(kind) for kind in KINDS},
            "keys": len(catalog.keyring),
            "models": sum(map(len, catalog.by_namespace.values())),
            "replicas": len(catalog.replica_ids),
            "in_flight": self.in_flight(),
            "limits": _COUNTED[self.shared()],
        }

    def _synced(self, kind: str) -> dict[str, object]:
        since = next((at for name, at in self.store.stale_since.items() if name == kind), None)
        never = kind in self.store.missing
        return {
            "synced": since is None and not never,
            "ever": not never,
            "false_since": None if since is None else datetime.fromtimestamp(since, UTC),
        }
