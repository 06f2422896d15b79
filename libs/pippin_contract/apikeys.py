"""API keys: `pp_<id>_<secret>`. The id finds the row, the digest of the whole key decides.

256 random bits need no slow hash. Keys that a user brought along have no id of ours, so theirs is
taken from their digest; either way `key_id` is what logs, status and metrics may show.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass

PREFIX = "pp"
MIN_FOREIGN_LENGTH = 32
MAX_LENGTH = 512

_ID_BYTES = 8
_SECRET_BYTES = 32
_OURS = re.compile(r"^pp_([a-z2-7]{12})_([A-Za-z0-9]{43})$")
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class MintedKey:
    """A key at its birth: the only moment when plaintext and digest are in one place."""

    key: str
    key_id: str
    digest: str

    def __repr__(self) -> str:
        return f"MintedKey(key_id={self.key_id!r})"


def mint(random_bytes: Callable[[int], bytes]) -> MintedKey:
    """A new key from `random_bytes(n)` (pass `secrets.token_bytes`)."""
    key_id = _encode(random_bytes(_ID_BYTES), _BASE32, 12)
    secret = _encode(random_bytes(_SECRET_BYTES), _BASE62, 43)
    key = f"{PREFIX}_{key_id}_{secret}"
    return MintedKey(key=key, key_id=key_id, digest=digest(key))


def digest(key: str) -> str:
    """`sha256:<hex>` of the whole key: what status, gateways and servers hold."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def key_id(key: str) -> str:
    """The row that a presented key names; for any text, in constant work. Not a secret."""
    ours = _OURS.match(key)
    return ours[1] if ours else hashlib.sha256(key.encode()).hexdigest()[:12]


def verify(key: str, expected_digest: str) -> bool:
    """Whether the digest is this key's, compared in constant time."""
    return hmac.compare_digest(digest(key), expected_digest)


def _encode(raw: bytes, alphabet: str, length: int) -> str:
    number = int.from_bytes(raw, "big")
    digits = []
    for _ in range(length):
        number, index = divmod(number, len(alphabet))
        digits.append(alphabet[index])
    return "".join(digits)
