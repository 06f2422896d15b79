"""When a key is replaced: because somebody asked by annotation, or because it is old enough."""

from __future__ import annotations

from datetime import datetime, timedelta

from pippin_contract import units, wire

from ..api.apikey import APIKeySpec, Rotation
from ..api.resources import Manifest
from ..keychain import KeyChain, moment

#: For who asks by annotation and has no spec.rotation.
DEFAULT_OVERLAP = str(Rotation.model_fields["overlap"].default)


def asked_for(live: Manifest) -> str:
    """The value of the APIKey's rotate annotation; empty when there is none."""
    return str((live["metadata"].get("annotations") or {}).get(wire.ROTATE_ANNOTATION, ""))


def due(live: Manifest, spec: APIKeySpec, chain: KeyChain, now: datetime) -> bool:
    """Whether the key is to be replaced now."""
    wanted = asked_for(live)
    if wanted and wanted != chain.rotated_for:
        return True
    at = due_at(spec, chain)
    return at is not None and at <= now


def due_at(spec: APIKeySpec, chain: KeyChain) -> datetime | None:
    """When the key will be old enough; None when it never is."""
    if spec.rotation is None or not chain.created_at:
        return None
    return moment(chain.created_at) + timedelta(seconds=units.seconds(spec.rotation.interval))


def overlap(spec: APIKeySpec) -> timedelta:
    text = spec.rotation.overlap if spec.rotation else DEFAULT_OVERLAP
    return timedelta(seconds=units.seconds(text))
