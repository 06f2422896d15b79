"""The keys of one APIKey, as its Secret holds them: the newest in plain, the earlier as digests.

One write of the Secret replaces the key and remembers the one before, so no crash can lose either.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pippin_contract import apikeys, wire

from .api.resources import Manifest

#: What the Secret's annotations say of its key.
CREATED = f"{wire.GROUP}/created-at"
EARLIER = f"{wire.GROUP}/earlier-keys"
#: Earlier keys that are kept: the status has room for eight in all.
MAX_EARLIER = 7


@dataclass(frozen=True)
class Earlier:
    """A key that was replaced and is good for a while yet. Its plaintext is gone."""

    id: str
    digest: str
    created_at: str
    not_after: str


@dataclass(frozen=True)
class KeyChain:
    """`rotated_for` is the value of the APIKey's rotate annotation that was last acted upon."""

    key: str
    created_at: str
    rotated_for: str = ""
    earlier: tuple[Earlier, ...] = ()

    @property
    def annotations(self) -> dict[str, str]:
        rows = [[one.id, one.digest, one.created_at, one.not_after] for one in self.earlier]
        return {
            CREATED: self.created_at,
            EARLIER: json.dumps(rows),
            wire.ROTATE_ANNOTATION: self.rotated_for,
        }

    def good(self, now: datetime) -> KeyChain:
        """Without the earlier keys whose time is over."""
        kept = tuple(one for one in self.earlier if moment(one.not_after) > now)
        return replace(self, earlier=kept)

    def rotated(self, key: str, rotated_for: str, now: datetime, overlap: timedelta) -> KeyChain:
        """A new key first; the one of before ends after the overlap, earlier ones as they would."""
        before = Earlier(
            id=apikeys.key_id(self.key),
            digest=apikeys.digest(self.key),
            created_at=self.created_at,
            not_after=stamp(now + overlap),
        )
        earlier = (before, *self.good(now).earlier)[:MAX_EARLIER]
        return KeyChain(key, stamp(now), rotated_for, earlier)


def read(secret: Manifest) -> KeyChain | None:
    """What the Secret holds; None when there is no key in it."""
    key = entry(secret, wire.SECRET_API_KEY)
    if key is None:
        return None
    metadata = secret["metadata"]
    notes: dict[str, str] = metadata.get("annotations") or {}
    return KeyChain(
        key=key,
        created_at=notes.get(CREATED) or metadata.get("creationTimestamp") or "",
        rotated_for=notes.get(wire.ROTATE_ANNOTATION, ""),
        earlier=_rows(notes.get(EARLIER, "[]")),
    )


def entry(secret: Manifest, key: str) -> str | None:
    """The text without the newline that editors add. None when it is missing or no text."""
    data: dict[str, Any] = secret.get("data") or {}
    try:
        text = base64.b64decode(data[key], validate=True).decode().strip()
    except (KeyError, binascii.Error, UnicodeDecodeError):
        return None
    return text or None


def moment(text: str) -> datetime:
    """Of a stamp. Raises ValueError."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def stamp(at: datetime) -> str:
    """As Kubernetes writes times: whole seconds, UTC."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _rows(text: str) -> tuple[Earlier, ...]:
    """Somebody may have edited it: what is no row of ours counts for nothing."""
    try:
        rows = [Earlier(*map(str, row)) for row in json.loads(text)]
        for row in rows:
            moment(row.not_after)
    except (ValueError, TypeError):
        return ()
    return tuple(rows[:MAX_EARLIER])
