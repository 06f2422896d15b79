"""The keys of providers outside, as the operator handed them over in one Secret.

Not in the Catalog: that is no secret, and may be written down.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

import structlog
from pydantic import ValidationError

from pippin_contract import providers
from pippin_contract.providers import Handed
from pippin_edge.errors import NotReady

from .model import External, ModelSpec
from .objects import Raw

log = structlog.get_logger("pippin.providers")


class ProviderKeys:
    """Told by the watch of that Secret. What is known stays in use while the API server is away."""

    def __init__(self) -> None:
        self._keys: dict[str, Handed] = {}
        self._complained = ""

    def of(self, spec: ModelSpec, external: External) -> str:
        """Empty for a provider that wants none. Raises NotReady while the key is not here."""
        if external.secret is None:
            return ""
        held = self._keys.get(providers.row(spec.namespace, spec.name))
        if held is None or not held.is_for(external.url, *external.secret):
            raise NotReady(
                f"the gateway has no key for the provider of the model '{spec.served_name}':"
                " the conditions of its ModelDeployment tell why; try again in 5 s",
                retry_after=5,
                code="provider_key_missing",
            )
        return held.key

    def replace(self, objects: Iterable[Raw]) -> None:
        """The Secret as it is; or none of it, if it is not there."""
        self._keys = {}
        for raw in objects:
            self.put(raw)

    def put(self, raw: Raw) -> None:
        rows = (raw.get("data") or {}).items()
        self._keys = {row: key for row, text in rows if (key := _read(row, text))}

    def remove(self, raw: Raw) -> None:
        self._keys = {}

    def connected(self) -> None:
        """Changes arrive."""
        self._complained = ""

    def disconnected(self, why: str) -> None:
        """None do, until it is connected again."""
        if not self._complained:
            log.warning("providers.disconnected", why=why)
        self._complained = why


def _read(row: str, text: str) -> Handed | None:
    """None for what is not understood: a newer version's, or somebody's by hand."""
    try:
        return Handed.model_validate_json(base64.b64decode(text))
    except (ValidationError, ValueError):
        # Its words could hold the key.
        log.warning("providers.malformed", entry=row)
        return None
