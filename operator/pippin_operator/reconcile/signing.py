"""The gateway's signing keys: two Ed25519 keys in one Secret of Pippin's own namespace.

Made once and never again while the Secret is there; their public halves go into every ServerConfig.
"""

from __future__ import annotations

import base64
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from pippin_contract import wire
from pippin_contract.serverconfig import PublicKey

from ..api.resources import Manifest
from ..cluster import Cluster
from ..errors import InvalidSpec
from . import ownsecrets

_ENTRIES = (wire.SIGNING_CURRENT, wire.SIGNING_NEXT)
_UNREADABLE = (
    f"Secret {wire.SIGNING_SECRET} holds no Ed25519 private key (PKCS8 PEM) under {{}}:"
    " delete the Secret, and it is made anew"
)


async def ensure(cluster: Cluster, namespace: str) -> tuple[PublicKey, ...]:
    """Current and next."""
    secret = await ownsecrets.ensure(cluster, namespace, wire.SIGNING_SECRET, _keys)
    return tuple(_public(secret, entry) for entry in _ENTRIES)


def _public(secret: Manifest, entry: str) -> PublicKey:
    try:
        private = load_pem_private_key(base64.b64decode(secret["data"][entry]), password=None)
    except (KeyError, ValueError) as error:
        raise InvalidSpec(_UNREADABLE.format(entry)) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise InvalidSpec(_UNREADABLE.format(entry))
    public = private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    # The gateway names its keys in the same way (pippin_edge.tokens); a test compares the two.
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PublicKey(kid=sha256(raw).hexdigest()[:16], pem=pem.decode())


def _keys() -> dict[str, str]:
    return {entry: base64.b64encode(_private_pem()).decode() for entry in _ENTRIES}


def _private_pem() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
