"""Keys that follow one another: what a Secret remembers of them, and when the next one is due."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin_contract import apikeys, wire
from pippin_operator import keychain
from pippin_operator.api.apikey import APIKeySpec
from pippin_operator.keychain import EARLIER, MAX_EARLIER, KeyChain
from pippin_operator.reconcile import rotation

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def chain(key: str = "key-0", rotated_for: str = "") -> KeyChain:
    return KeyChain(key, keychain.stamp(NOW), rotated_for)


def secret(held: KeyChain, **annotations: str) -> dict[str, Any]:
    return {
        "metadata": {"annotations": {**held.annotations, **annotations}},
        "data": {wire.SECRET_API_KEY: "a2V5LTA="},  # key-0
    }


def apikey(rotate: str = "") -> dict[str, Any]:
    return {"metadata": {"annotations": {wire.ROTATE_ANNOTATION: rotate} if rotate else {}}}


def test_what_a_secret_remembers_is_read_again() -> None:
    rotated = chain("old").rotated("key-0", "now", NOW, DAY)
    assert keychain.read(secret(rotated)) == rotated


def test_no_key_before_the_newest_is_in_plain_text() -> None:
    rotated = chain("the-old-key").rotated("key-0", "", NOW, DAY)
    assert "the-old-key" not in json.dumps(rotated.annotations)
    assert apikeys.verify("the-old-key", rotated.earlier[0].digest)


def test_an_earlier_key_is_good_until_its_overlap_is_over() -> None:
    rotated = chain("old").rotated("new", "", NOW, DAY)
    assert rotated.earlier[0].not_after == "2026-01-02T00:00:00Z"
    assert rotated.good(NOW + DAY - timedelta(seconds=1)).earlier
    assert not rotated.good(NOW + DAY).earlier


@given(st.lists(st.integers(0, 48), min_size=1, max_size=30))
def test_however_often_it_is_rotated_the_chain_is_bounded_and_newest_first(
    hours: list[int],
) -> None:
    held, now = chain(), NOW
    for number, pause in enumerate(hours, start=1):
        now += timedelta(hours=pause)
        held = held.rotated(f"key-{number}", str(number), now, DAY)
        ends = [keychain.moment(one.not_after) for one in held.earlier]
        assert len(ends) <= MAX_EARLIER
        assert ends == sorted(ends, reverse=True)
        assert all(now < end <= now + DAY for end in ends)
        assert held.earlier[0].id == apikeys.key_id(f"key-{number - 1}")


@pytest.mark.parametrize(
    "text", ["", "{}", "7", '["x"]', "[[1, 2]]", '[["a", "b", "c", "no time"]]', "[null]"]
)
def test_a_note_that_somebody_broke_counts_for_nothing(text: str) -> None:
    held = keychain.read(secret(chain(), **{EARLIER: text}))
    assert held is not None and held.earlier == ()


def test_a_secret_of_before_there_was_rotation_is_as_old_as_it_is() -> None:
    old = {
        "metadata": {"creationTimestamp": "2025-12-01T00:00:00Z"},
        "data": {wire.SECRET_API_KEY: "a2V5LTA="},
    }
    held = keychain.read(old)
    assert held == KeyChain("key-0", "2025-12-01T00:00:00Z")
    spec = APIKeySpec.model_validate({"rotation": {"interval": "720h"}})
    assert rotation.due(apikey(), spec, held, NOW)


def test_a_key_is_replaced_when_it_is_old_enough() -> None:
    spec = APIKeySpec.model_validate({"rotation": {"interval": "48h"}})
    assert not rotation.due(apikey(), spec, chain(), NOW + 2 * DAY - timedelta(seconds=1))
    assert rotation.due(apikey(), spec, chain(), NOW + 2 * DAY)
    assert rotation.due_at(APIKeySpec(), chain()) is None


def test_a_key_is_replaced_once_for_each_new_value_of_the_annotation() -> None:
    assert rotation.due(apikey("one"), APIKeySpec(), chain(), NOW)
    assert not rotation.due(apikey("one"), APIKeySpec(), chain(rotated_for="one"), NOW)
    assert rotation.due(apikey("two"), APIKeySpec(), chain(rotated_for="one"), NOW)
    assert not rotation.due(apikey(), APIKeySpec(), chain(rotated_for="one"), NOW)


def test_the_overlap_is_a_day_unless_the_spec_says_other() -> None:
    assert rotation.overlap(APIKeySpec()) == DAY
    spec = APIKeySpec.model_validate({"rotation": {"interval": "2h", "overlap": "5m"}})
    assert rotation.overlap(spec) == timedelta(minutes=5)
