"""The gateway's signed token: good for one audience, for a minute, and cheap to make again."""

from __future__ import annotations

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pippin_edge import tokens
from pippin_edge.errors import Unauthenticated
from pippin_edge.tokens import Signer, Verifier, kid, public_pem

KEY = Ed25519PrivateKey.generate()
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PUBLIC = {kid(KEY.public_key()): public_pem(KEY.public_key())}
NOW = 1_800_000_000.0


def signed(audience: str = "team-a/qwen", key: str = "team-a/app", now: float = NOW) -> str:
    return Signer(PEM, lambda: now).token(audience, key)


def test_the_verifier_reads_what_the_signer_wrote() -> None:
    claims = Verifier(PUBLIC, "team-a/qwen").verify(signed(), NOW)
    assert (claims.audience, claims.key, claims.expires) == ("team-a/qwen", "team-a/app", NOW + 60)
    assert not claims.batch


def test_a_batch_keys_token_says_so() -> None:
    signer, verifier = Signer(PEM, lambda: NOW), Verifier(PUBLIC, "a/b")
    assert verifier.verify(signer.token("a/b", "k", batch=True), NOW).batch
    assert not verifier.verify(signer.token("a/b", "k"), NOW).batch


def test_a_token_is_made_again_only_at_half_its_life() -> None:
    now = NOW
    signer = Signer(PEM, lambda: now)
    first = signer.token("a/b", "k")
    now += 29
    assert signer.token("a/b", "k") is first
    assert signer.token("a/c", "k") != first
    now += 2
    assert signer.token("a/b", "k") != first


def test_a_token_ends_also_when_the_verifier_knew_it() -> None:
    verifier, token = Verifier(PUBLIC, "team-a/qwen"), signed()
    assert verifier.verify(token, NOW + 59)
    with pytest.raises(Unauthenticated):
        verifier.verify(token, NOW + 60 + tokens.LEEWAY + 1)


def test_clocks_may_differ_a_little_but_not_much() -> None:
    verifier = Verifier(PUBLIC, "team-a/qwen")
    assert verifier.verify(signed(now=NOW + tokens.LEEWAY - 1), NOW)
    with pytest.raises(Unauthenticated):
        verifier.verify(signed(now=NOW + tokens.LEEWAY + 2), NOW)


def test_both_keys_are_good_while_they_rotate() -> None:
    following = Ed25519PrivateKey.generate()
    both = {**PUBLIC, kid(following.public_key()): public_pem(following.public_key())}
    pem = following.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    verifier = Verifier(both, "team-a/qwen")
    assert verifier.verify(signed(), NOW)
    assert verifier.verify(Signer(pem, lambda: NOW).token("team-a/qwen", "k"), NOW)


def forged(**over: object) -> str:
    claims = {
        "iss": "pippin-gateway",
        "aud": "team-a/qwen",
        "iat": NOW,
        "exp": NOW + 60,
        "key": "team-a/app",
    } | over
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, KEY, algorithm="EdDSA", headers={"kid": next(iter(PUBLIC))})


@pytest.mark.parametrize(
    "token",
    [
        "",
        "not.a.token",
        signed(audience="team-b/qwen"),
        forged(iss="somebody"),
        forged(exp=None),
        forged(key=None),
        forged(aud=None),
        forged()[:-8] + "AAAAAAAA",
        jwt.encode({"aud": "team-a/qwen"}, None, algorithm="none"),
        jwt.encode({"aud": "team-a/qwen"}, "x" * 32, headers={"kid": next(iter(PUBLIC))}),
        jwt.encode({"aud": "team-a/qwen"}, KEY, algorithm="EdDSA", headers={"kid": "other"}),
        jwt.encode({"aud": "team-a/qwen"}, KEY, algorithm="EdDSA"),
    ],
)
def test_whatever_else_is_refused_in_the_same_words(token: str) -> None:
    with pytest.raises(Unauthenticated, match="from the gateway only"):
        Verifier(PUBLIC, "team-a/qwen").verify(token, NOW)


def test_only_ed25519_keys_sign() -> None:
    rsa = generate_private_key(65537, 2048)
    pem = rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for text in (pem, b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(ValueError):
            Signer(text, lambda: NOW)


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_CACHED", 10)
    signer = Signer(PEM, lambda: NOW)
    for n in range(25):
        signer.token(f"a/{n}", "k")
    assert len(signer._cache) <= 10
