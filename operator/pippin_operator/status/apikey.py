"""The status of an APIKey, from its spec and the digest of what its Secret holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pippin_contract import wire

from ..api.apikey import APIKeySpec
from ..keychain import Earlier, moment, stamp
from .conditions import Verdict, laid_over, no, yes
from .pods import Trouble


@dataclass(frozen=True)
class Held:
    """What a Secret holds, without the key itself."""

    key_id: str
    digest: str
    secret: str
    entry: str = wire.SECRET_API_KEY
    #: Empty for a key that the user made: since when it was seen is in the status.
    created_at: str = ""
    earlier: tuple[Earlier, ...] = ()
    #: When it will be replaced.
    due: datetime | None = None


def derive(
    spec: APIKeySpec,
    generation: int,
    held: Held | Trouble,
    old: Mapping[str, Any],
    now: datetime,
) -> dict[str, Any]:
    """The whole status that the operator owns. Usage is the gateway's."""
    at = stamp(now)
    verdicts = _verdicts(spec, held, now)
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "phase": _phase(spec, held, now),
        "conditions": laid_over(old.get("conditions", ()), verdicts, generation, at),
    }
    if isinstance(held, Held):
        status["keyId"] = held.key_id
        status["keys"] = _rows(held, spec, old, at)
        status["secretRef"] = {"name": held.secret, "key": held.entry}
    return status


def expired(spec: APIKeySpec, now: datetime) -> bool:
    ends = ends_at(spec)
    return ends is not None and ends <= now


def ends_at(spec: APIKeySpec) -> datetime | None:
    """The schema has checked that it is a date and time."""
    if spec.expires_at is None:
        return None
    return datetime.fromisoformat(spec.expires_at)


def _rows(held: Held, spec: APIKeySpec, old: Mapping[str, Any], at: str) -> list[dict[str, Any]]:
    """The newest first. No key outlives expiresAt, whatever its own end is."""
    rows: list[dict[str, Any]] = old.get("keys") or []
    known = next((row for row in rows if row["digest"] == held.digest), {})
    newest = {
        "id": held.key_id,
        "digest": held.digest,
        "createdAt": held.created_at or known.get("createdAt", at),
    }
    if spec.expires_at is not None:
        newest["notAfter"] = spec.expires_at
    return [newest, *(_earlier(one, spec) for one in held.earlier)]


def _earlier(one: Earlier, spec: APIKeySpec) -> dict[str, Any]:
    ends = one.not_after
    if spec.expires_at is not None and datetime.fromisoformat(spec.expires_at) < moment(ends):
        ends = spec.expires_at
    return {"id": one.id, "digest": one.digest, "createdAt": one.created_at, "notAfter": ends}


def _verdicts(spec: APIKeySpec, held: Held | Trouble, now: datetime) -> tuple[Verdict, ...]:
    secret = (
        yes("SecretReady", "KeyHeld", f"Secret {held.secret} holds the key")
        if isinstance(held, Held)
        else no("SecretReady", held.reason, held.message)
    )
    return (_ready(spec, held, now), yes("SpecValid", "Valid"), secret)


def _ready(spec: APIKeySpec, held: Held | Trouble, now: datetime) -> Verdict:
    if isinstance(held, Trouble):
        return no("Ready", held.reason, held.message)
    if not spec.enabled:
        return no("Ready", "Disabled", "enabled is false: the key is refused")
    if expired(spec, now):
        return no("Ready", "Expired", f"the key ended at {spec.expires_at}")
    if held.earlier:
        last = max(one.not_after for one in held.earlier)
        words = f"the newest key is {held.key_id}; earlier ones are good until {last} at most"
        return yes("Ready", "Rotating", words)
    return yes("Ready", "Active")


def _phase(spec: APIKeySpec, held: Held | Trouble, now: datetime) -> str:
    if isinstance(held, Trouble):
        return "Error"
    if not spec.enabled:
        return "Disabled"
    if expired(spec, now):
        return "Expired"
    return "Rotating" if held.earlier else "Active"
