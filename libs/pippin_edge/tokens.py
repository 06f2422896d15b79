"""The signed token by which a server Pod knows the gateway: a JWT (EdDSA) for one audience.

Made once and cached on both sides, so it costs nothing per request. Raises
errors.Unauthenticated on anything that is not in order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from jwt.types import Options

from pippin_contract.wire import TOKEN_ISSUER, TOKEN_LIFETIME_SECONDS

from .errors import Unauthenticated

ALGORITHM = "EdDSA"
#: Seconds by which two machines' clocks may differ.
LEEWAY = 10
#: Tokens kept, on either side; all are forgotten when there are more.
MAX_CACHED = 10_000

_REFUSED = "this address takes requests from the gateway only"


def kid(public_key: Ed25519PublicKey) -> str:
    """A key's name: the first 16 hex digits of sha256 over its raw bytes."""
    raw = public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def public_pem(public_key: Ed25519PublicKey) -> str:
    """As it stands in a ServerConfig."""
    return public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def load_private(pem: bytes) -> Ed25519PrivateKey:
    """Raises ValueError when the text is no Ed25519 private key."""
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("the signing key must be an Ed25519 private key in PKCS8 PEM")
    return key


@dataclass(frozen=True, slots=True)
class Claims:
    """What the gateway says of a request. `key` is the APIKey's namespace/name."""

    audience: str
    key: str
    expires: float
    #: Others go before it.
    batch: bool = False


class Signer:
    """Signs for (audience, key); a token is used until half of its life is over."""

    def __init__(self, pem: bytes, now: Callable[[], float]) -> None:
        self._key = load_private(pem)
        self._now = now
        self._headers = {"kid": kid(self._key.public_key())}
        self._cache: dict[tuple[str, str, bool], tuple[str, float]] = {}

    def derived(self, purpose: bytes) -> bytes:
        """A secret for another purpose, which tells nothing of the key."""
        secret = HKDF(SHA256(), length=32, salt=None, info=purpose)
        return secret.derive(self._key.private_bytes_raw())

    def token(self, audience: str, key: str, *, batch: bool = False) -> str:
        now, name = self._now(), (audience, key, batch)
        cached = self._cache.get(name)
        if cached is not None and now < cached[1]:
            return cached[0]
        if len(self._cache) >= MAX_CACHED:
            self._cache.clear()
        issued = int(now)
        claims = {
            "iss": TOKEN_ISSUER,
            "aud": audience,
            "iat": issued,
            "exp": issued + TOKEN_LIFETIME_SECONDS,
            "key": key,
            "batch": batch,
        }
        token = jwt.encode(claims, self._key, algorithm=ALGORITHM, headers=self._headers)
        self._cache[name] = (token, now + TOKEN_LIFETIME_SECONDS / 2)
        return token


class Verifier:
    """Checks tokens for one audience against the public keys (current and next), by `kid`."""

    def __init__(self, public_keys: Mapping[str, str | bytes], audience: str) -> None:
        self._keys: dict[str, Any] = {name: _public(pem) for name, pem in public_keys.items()}
        self._audience = audience
        self._cache: dict[str, Claims] = {}

    def verify(self, token: str, now: float) -> Claims:
        """`now` in Unix seconds."""
        claims = self._cache.get(token)
        if claims is None:
            claims = self._decode(token, now)
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            self._cache[token] = claims
        if now > claims.expires + LEEWAY:
            self._cache.pop(token, None)
            raise Unauthenticated(_REFUSED)
        return claims

    def _decode(self, token: str, now: float) -> Claims:
        try:
            name = jwt.get_unverified_header(token).get("kid", "")
            raw = jwt.decode(
                token,
                self._keys[name],
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=TOKEN_ISSUER,
                # Time is the caller's `now`, checked by verify() and just below.
                options=_OPTIONS,
            )
            claims = Claims(
                audience=self._audience,
                key=str(raw["key"]),
                expires=float(raw["exp"]),
                batch=raw.get("batch") is True,
            )
            if float(raw["iat"]) > now + LEEWAY:
                raise Unauthenticated(_REFUSED)
        except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
            raise Unauthenticated(_REFUSED) from error
        return claims


_OPTIONS: Options = {
    "require": ["exp", "iat", "aud", "iss"],
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}


def _public(pem: str | bytes) -> Ed25519PublicKey:
    key = load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("the gateway's public key must be an Ed25519 key in PEM")
    return key
