"""The current Catalog, kept up to date by events; the seam between the watch and everything else.

The watch (or a test) says replace/put/remove with raw objects of a kind; readers take `catalog`,
which is always one whole value. Events that come together make one new catalog.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog

from pippin_edge.clock import SYSTEM, Clock

from .freshness import Freshness
from .kinds import KINDS, Kind, Known
from .model import Catalog, KeySpec, ModelSpec, PodState, assemble
from .objects import Malformed, Raw, parse_key, parse_model, parse_pod, ref

#: Seconds between two catalogs while events rain. Far below what revocation may take.
PAUSE = 0.02

_PARSE: dict[Kind, Callable[[Raw], Any]] = {
    "apikeys": parse_key,
    "modeldeployments": parse_model,
    "pods": parse_pod,
}

log = structlog.get_logger("pippin.catalog")


class CatalogStore:
    """Belongs to one event loop."""

    def __init__(
        self,
        on_change: Callable[[Catalog], object] = lambda catalog: None,
        clock: Clock = SYSTEM,
        max_staleness: float = math.inf,
    ) -> None:
        self.catalog = Catalog()
        #: Kinds that were never listed completely.
        self.missing: set[Kind] = set(KINDS)
        #: Kinds that are as a snapshot said, because they were not listed since the start.
        self.restored: set[Kind] = set()
        self.freshness = Freshness(clock, max_staleness)
        #: Counts catalogs.
        self.revision = 0
        self._on_change = on_change
        self._objects: dict[Kind, dict[tuple[str, str], Any]] = {kind: {} for kind in KINDS}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def ready(self) -> bool:
        """Whether every kind was seen whole once; stays so when the API server is away."""
        return not self.missing

    @property
    def stale_since(self) -> Mapping[Kind, float]:
        """Kinds without a running watch, and since when (Unix seconds)."""
        return self.freshness.stale_since

    def replace(self, kind: Kind, objects: Iterable[Raw]) -> None:
        """All objects of a kind, from a list."""
        self._objects[kind] = {}
        for raw in objects:
            self._parse(kind, raw)
        self.restored.discard(kind)
        self.freshness.listed(kind)
        if kind in self.missing:
            self.missing.discard(kind)
            self.refresh()
        else:
            self._soon()

    def restore(self, known: Known) -> None:
        """Take what was never listed from there."""
        for kind in self.missing:
            self._objects[kind] = dict(known.objects[kind])
            self.freshness.since(kind, known.current_at[kind])
            self.restored.add(kind)
        self.missing.clear()
        self.refresh()

    def known(self) -> Known:
        """All of it, for others to restore."""
        objects = {kind: held.copy() for kind, held in self._objects.items()}
        return Known(objects, self.freshness.current_at())

    def put(self, kind: Kind, raw: Raw) -> None:
        """An object that was added or changed."""
        if self._parse(kind, raw):
            self._soon()

    def remove(self, kind: Kind, raw: Raw) -> None:
        """An object that is gone."""
        self._objects[kind].pop(ref(raw), None)
        self._soon()

    def connected(self, kind: Kind) -> None:
        """A watch runs."""
        if self.freshness.followed(kind):
            log.info("catalog.connected", kind=kind)

    def disconnected(self, kind: Kind, why: str) -> None:
        """No watch runs; what is known stays in use."""
        if self.freshness.lost(kind):
            log.warning("catalog.disconnected", kind=kind, why=why)

    def refresh(self) -> None:
        """Make the new catalog now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        keys: dict[Any, KeySpec] = self._objects["apikeys"]
        models: dict[Any, ModelSpec] = self._objects["modeldeployments"]
        pods: dict[Any, PodState] = self._objects["pods"]
        self.revision += 1
        self.catalog = assemble(keys.values(), models.values(), pods.values())
        self._on_change(self.catalog)

    def _parse(self, kind: Kind, raw: Raw) -> bool:
        """Whether anything changed that the gateway looks at."""
        name = ref(raw)
        try:
            parsed = _PARSE[kind](raw)
        except Malformed as error:
            parsed = None
            log.warning("catalog.malformed", kind=kind, object="/".join(name), why=str(error))
        objects = self._objects[kind]
        if parsed == objects.get(name):
            return False
        if parsed is None:
            del objects[name]
        else:
            objects[name] = parsed
        return True

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self.refresh)
