"""What the gateway knew, signed: it comes back whole, or not at all."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pippin_contract import reach
from pippin_contract.endpoint import Endpoint
from pippin_edge.keyring import Row
from pippin_edge.limits.claims import Claim
from pippin_edge.limits.claims import Kind as Limited
from pippin_gateway.catalog import snapshot
from pippin_gateway.catalog.kinds import KINDS, Known
from pippin_gateway.catalog.model import (
    ApiKey,
    BreakerPolicy,
    CachePolicy,
    KeySpec,
    Limits,
    ModelSpec,
    PodState,
    Replica,
    RetryPolicy,
    Timeouts,
)
from pippin_gateway.catalog.snapshot import Unusable, decode, encode, require_young
from pippin_gateway.catalog.store import CatalogStore
from support.gateway import key_object, model_object, new_key, pod_object

KEY = b"k" * 32
NOW = 1_800_000_000.0

text = st.text(max_size=5)
times = st.floats(0, 1e10)
maybe = st.none() | times
texts = st.lists(text, max_size=3).map(tuple)
limits = st.builds(
    Limits,
    claims=st.lists(
        st.builds(Claim, st.sampled_from(Limited), text, st.integers(0, 2**53)), max_size=4
    ).map(tuple),
    counts_tokens=st.booleans(),
)
owners = st.builds(
    ApiKey,
    namespace=text,
    name=text,
    models=st.builds(reach.globs, st.lists(st.sampled_from(["*", "a/b*", "q[wx]", "n/*"])), text),
    limits=limits,
    ref=text,
    uid=text,
    key_id=text,
)
rows = st.builds(Row, digest=text, principal=owners, enabled=st.booleans(), not_after=maybe)
keys = st.builds(KeySpec, principal=owners, rows=st.dictionaries(text, rows, max_size=2))
models = st.builds(
    ModelSpec,
    namespace=text,
    name=text,
    served_name=text,
    aliases=texts,
    task=text,
    timeouts=st.builds(Timeouts, *[maybe] * len(fields(Timeouts))),
    retries=st.builds(RetryPolicy, st.integers(1, 9), times),
    breaker=st.builds(BreakerPolicy, st.integers(1, 9), times, st.integers(1, 9)),
    fallbacks=texts,
    opened_to=st.frozensets(text, max_size=3),
    limits=limits,
    cache=st.none() | st.builds(CachePolicy, times, st.integers(1, 9)),
    version=text,
    created=st.integers(0, 2**40),
    family=text,
    tags=texts,
    context_length=st.none() | st.integers(0, 2**40),
    description=text,
    suspended=st.booleans(),
    wanted=st.integers(0, 64),
    reason=text,
)
endpoints = st.builds(Endpoint, text, st.integers(1, 65535), text, text)
pods = st.builds(
    PodState,
    namespace=text,
    model=text,
    replica=st.none() | st.builds(Replica, text, text, endpoints),
    unheard=st.booleans(),
)
names = st.tuples(text, text)


def everything(keys: Any = (), models: Any = (), pods: Any = (), at: float = NOW) -> Known:
    objects = {"apikeys": dict(keys), "modeldeployments": dict(models), "pods": dict(pods)}
    return Known({kind: objects[kind] for kind in KINDS}, dict.fromkeys(KINDS, at))


@pytest.mark.parametrize(("kind", "objects"), [("keys", keys), ("models", models), ("pods", pods)])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_what_was_known_comes_back_as_it_was(kind: str, objects: Any, data: st.DataObject) -> None:
    some = data.draw(st.dictionaries(names, objects, max_size=2))
    known = everything(**{kind: some}, at=data.draw(times))
    assert decode(encode(known, KEY), KEY) == known


def listed(*keys: dict[str, Any]) -> CatalogStore:
    """What a gateway knows of a namespace."""
    store = CatalogStore()
    store.replace("apikeys", keys)
    store.replace("modeldeployments", [model_object()])
    store.replace("pods", [pod_object("qwen-0", 1234)])
    return store


def restored(store: CatalogStore) -> CatalogStore:
    """After a start from its snapshot."""
    other = CatalogStore()
    other.restore(decode(encode(store.known(), KEY), KEY))
    return other


async def test_a_restored_catalog_serves_the_same_to_the_same() -> None:
    key, revoked = new_key(), new_key()
    store = listed(key_object(key), key_object(revoked, "old", enabled=False))
    again = restored(store)
    assert again.ready and again.restored == set(KINDS)
    assert again.catalog.by_ref == store.catalog.by_ref
    assert again.catalog.keyring.verify(key.key, NOW).ref == "team-a/app"
    with pytest.raises(Exception, match="not valid"):
        again.catalog.keyring.verify(revoked.key, NOW)


async def test_a_restored_key_still_ends_when_it_was_to_end() -> None:
    key = new_key()
    keyring = restored(listed(key_object(key, expiresAt="2027-01-01T00:00:00Z"))).catalog.keyring
    assert keyring.verify(key.key, 1798761599)
    with pytest.raises(Exception, match="not valid"):
        keyring.verify(key.key, 1798761600)


async def test_a_key_that_reaches_nowhere_else_still_does_not() -> None:
    key = new_key()
    principal = restored(listed(key_object(key))).catalog.keyring.verify(key.key, NOW)
    assert not principal.models.leave_home


async def test_no_key_is_written_only_what_recognizes_it() -> None:
    key = new_key()
    raw = encode(listed(key_object(key)).known(), KEY)
    assert key.digest.encode() in raw
    secret = key.key.rpartition("_")[2]
    assert secret and secret.encode() not in raw


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_whatever_is_changed_in_it_makes_it_worthless(data: st.DataObject) -> None:
    raw = bytearray(encode(everything(models={("a", "b"): ModelSpec("a", "b", "b")}), KEY))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Unusable):
        decode(bytes(raw), KEY)


@pytest.mark.parametrize("length", [0, 1, 30, 95, 150, -1])
def test_one_that_is_cut_off_is_not_taken(length: int) -> None:
    with pytest.raises(Unusable):
        decode(encode(everything(), KEY)[:length], KEY)


@pytest.mark.parametrize("raw", [b"", b"\n", b"{}", b"\xff" * 99, snapshot.FORMAT + b" \n"])
def test_what_is_no_snapshot_is_not_taken(raw: bytes) -> None:
    with pytest.raises(Unusable, match="writes another one"):
        decode(raw, KEY)


def test_one_of_another_key_is_not_taken() -> None:
    with pytest.raises(Unusable, match="this gateway's key"):
        decode(encode(everything(), b"x" * 32), KEY)


@pytest.mark.parametrize("name", ["version", "shape"])
def test_one_of_another_version_is_not_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(snapshot._MADE_BY, name, "another")
        raw = encode(everything(), KEY)
    with pytest.raises(Unusable, match="another version"):
        decode(raw, KEY)


def test_more_than_it_may_hold_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MAX_BYTES", 100)
    with pytest.raises(snapshot.TooLarge, match="MiB"):
        encode(everything(models={("a", "b"): ModelSpec("a", "b", "b")}), KEY)


def test_an_object_that_cannot_be_read_is_left_out_and_the_others_are_not() -> None:
    odd = ModelSpec("a", "odd", "odd", context_length="long")  # type: ignore[arg-type]
    models = {("a", "odd"): odd, ("a", "b"): ModelSpec("a", "b", "b")}
    found = decode(encode(everything(models=models), KEY), KEY)
    assert list(found.objects["modeldeployments"]) == [("a", "b")]


@pytest.mark.parametrize(
    ("age", "why"), [(86401, "API server back"), (-11, "clock"), (86399, None), (-9, None)]
)
def test_only_what_is_young_and_of_the_past_is_taken(age: float, why: str | None) -> None:
    known = everything(at=NOW - age)
    if why is None:
        return require_young(known, NOW, 86400)
    with pytest.raises(Unusable, match=why):
        require_young(known, NOW, 86400)


def test_the_oldest_kind_decides() -> None:
    known = everything()
    mixed = Known(known.objects, {**known.current_at, "apikeys": NOW - 100})
    with pytest.raises(Unusable, match="older"):
        require_young(mixed, NOW, 99)


def test_the_first_line_says_what_follows() -> None:
    head = orjson.loads(encode(everything(), KEY).split(b"\n")[1])
    assert head["counts"] == dict.fromkeys(KINDS, 0) and head["version"]
