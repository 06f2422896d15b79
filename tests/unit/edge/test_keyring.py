"""Keys are found by id, decided by digest, and refused in one way for every reason."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from pippin_contract import apikeys
from pippin_edge.errors import Unauthenticated
from pippin_edge.keyring import Keyring, Row

OURS = apikeys.mint(secrets.token_bytes)
FOREIGN = "sk-" + "x" * 40
NOW = 100.0


def ring(**row: Any) -> Keyring[str]:
    rows = {
        OURS.key_id: Row(digest=OURS.digest, principal="us", **row),
        apikeys.key_id(FOREIGN): Row(digest=apikeys.digest(FOREIGN), principal="them"),
    }
    return Keyring(rows)


def test_a_minted_and_a_brought_key_are_their_principals() -> None:
    assert ring().verify(OURS.key, NOW) == "us"
    assert ring().verify(FOREIGN, NOW) == "them"


@pytest.mark.parametrize("row", [{"enabled": False}, {"not_after": NOW}, {"not_after": NOW - 1}])
def test_a_row_out_of_force_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        ring(**row).verify(OURS.key, NOW)


def test_a_row_ends_by_the_clock_alone() -> None:
    assert ring(not_after=NOW).verify(OURS.key, NOW - 0.001)


@pytest.mark.parametrize(
    "key",
    ["", "pp_", OURS.key[:-1], OURS.key + "x", OURS.key.swapcase(), "k" * 600, "schlüssel" * 8],
    ids=["empty", "prefix", "shorter", "longer", "other case", "long", "no ASCII"],
)
def test_anything_else_is_refused_in_the_same_words(key: str) -> None:
    with pytest.raises(Unauthenticated, match="this API key is not valid"):
        ring().verify(key, NOW)


def test_an_unknown_id_is_compared_like_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    real = apikeys.verify

    def counting(key: str, digest: str) -> bool:
        compared.append(digest)
        return real(key, digest)

    monkeypatch.setattr(apikeys, "verify", counting)
    for key in (
        apikeys.mint(secrets.token_bytes).key,
        OURS.key[:-1] + ("1" if OURS.key.endswith("0") else "0"),
        "unknown" * 8,
    ):
        with pytest.raises(Unauthenticated):
            ring().verify(key, NOW)
    assert len(compared) == 3 and len(set(map(len, compared))) == 1
