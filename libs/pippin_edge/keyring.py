"""API keys as rows of digests: the key's id finds the row, the digest decides.

An unknown id walks the same path over a row that nothing matches, so it takes the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from pippin_contract import apikeys

from .errors import Unauthenticated

P = TypeVar("P")

REFUSED = "this API key is not valid: check it, or ask for a new one"
_NOBODY = apikeys.digest("")


@dataclass(frozen=True, slots=True)
class Row(Generic[P]):
    """One key. Times are Unix seconds; None means never ends."""

    digest: str
    principal: P
    enabled: bool = True
    not_after: float | None = None


class Keyring(Generic[P]):
    """Immutable: a revoked key is a new keyring."""

    def __init__(self, rows: Mapping[str, Row[P]]) -> None:
        self._rows = dict(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def verify(self, key: str, now: float) -> P:
        """The key's principal. Raises Unauthenticated, with the same words in every case."""
        if len(key) > apikeys.MAX_LENGTH:
            raise Unauthenticated(REFUSED)
        row = self._rows.get(apikeys.key_id(key))
        matches = apikeys.verify(key, row.digest if row else _NOBODY)
        if row is None or not matches or not _in_force(row, now):
            raise Unauthenticated(REFUSED)
        return row.principal


def _in_force(row: Row[P], now: float) -> bool:
    return row.enabled and (row.not_after is None or now < row.not_after)
