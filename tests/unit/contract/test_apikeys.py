"""Keys: their form, their digests and what may be shown of them."""

import secrets

from hypothesis import given
from hypothesis import strategies as st

from pippin_contract import apikeys


def test_a_minted_key_names_its_row_and_verifies_against_its_digest():
    minted = apikeys.mint(secrets.token_bytes)
    assert minted.key.startswith(f"pp_{minted.key_id}_")
    assert apikeys.key_id(minted.key) == minted.key_id
    assert apikeys.verify(minted.key, minted.digest)


@given(st.binary(min_size=32, max_size=32))
def test_every_random_secret_gives_a_key_of_the_same_form(raw):
    minted = apikeys.mint(lambda n: raw[:n])
    assert len(minted.key) == 59
    assert apikeys.key_id(minted.key) == minted.key_id


def test_different_randomness_gives_different_secrets_to_the_last_bit():
    zero = apikeys.mint(lambda n: bytes(n))
    one = apikeys.mint(lambda n: bytes(n - 1) + b"\x01" if n == 32 else bytes(n))
    assert zero.key_id == one.key_id
    assert zero.digest != one.digest
    assert not apikeys.verify(one.key, zero.digest)


def test_one_changed_character_is_another_key():
    minted = apikeys.mint(secrets.token_bytes)
    flipped = minted.key[:-1] + ("a" if minted.key[-1] != "a" else "b")
    assert apikeys.key_id(flipped) == minted.key_id
    assert not apikeys.verify(flipped, minted.digest)


def test_a_users_own_key_has_a_row_taken_from_its_digest():
    own = "correct-horse-battery-staple-and-more"
    assert apikeys.key_id(own) == apikeys.digest(own).removeprefix("sha256:")[:12]


@given(st.text(max_size=600))
def test_any_text_may_be_presented(text):
    assert len(apikeys.key_id(text.encode("utf-8", "replace").decode())) == 12


def test_the_repr_shows_no_secret():
    minted = apikeys.mint(secrets.token_bytes)
    assert minted.key not in repr(minted)
    assert minted.digest not in repr(minted)
