"""What the gateway decides of one request, without sockets: resolve, balance, retry, times."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin_contract import reach
from pippin_contract.endpoint import Endpoint
from pippin_edge.errors import ModelNotFound, NotReady
from pippin_gateway import usage
from pippin_gateway.catalog.model import (
    ApiKey,
    BreakerPolicy,
    Catalog,
    ModelSpec,
    PodState,
    Replica,
    RetryPolicy,
    Timeouts,
    assemble,
)
from pippin_gateway.routing import fallback, retry
from pippin_gateway.routing.balance import SHUN_SECONDS, Balance
from pippin_gateway.routing.breaker import Breakers
from pippin_gateway.routing.resolve import nobody_ready, resolve, visible
from pippin_gateway.routing.retry import Failure
from pippin_gateway.routing.timeouts import Budget, Deadlines, budget

POLICY = BreakerPolicy()


def catalog(*specs: ModelSpec) -> Catalog:
    return assemble((), specs, ())


def spec(name: str, namespace: str = "a", **more: Any) -> ModelSpec:
    return ModelSpec(namespace, name, more.pop("served", name), **more)


def key(*globs: str, namespace: str = "a") -> ApiKey:
    return ApiKey(namespace, "k", reach.globs(globs, namespace))


def replica(n: int) -> Replica:
    return Replica(id=f"r{n}", pod=f"p{n}", endpoint=Endpoint("127.0.0.1", n))


def test_a_served_name_or_an_alias_finds_the_model_in_the_keys_namespace_only() -> None:
    found = catalog(spec("x", served="qwen", aliases=("gpt",)), spec("y", "b", served="llama"))
    for name in ("qwen", "gpt"):
        assert resolve(found, key("*"), name).spec.name == "x"
    for name in ("x", "llama", "b/llama", "", "QWEN"):
        with pytest.raises(ModelNotFound):
            resolve(found, key("*"), name)


def test_a_glob_on_any_name_opens_all_names_of_the_model() -> None:
    found = catalog(spec("x", served="qwen-7b", aliases=("gpt-4o",)))
    for glob in ("qwen-*", "gpt-4?", "a/qwen-7b", "*"):
        assert resolve(found, key(glob), "gpt-4o")
    for globs in ((), ("qwen",), ("QWEN-*",), ("b/qwen-7b",), ("[!qg]*",)):
        with pytest.raises(ModelNotFound):
            resolve(found, key(*globs), "qwen-7b")


@pytest.mark.parametrize("opened", [{"a"}, {"*"}, {"c", "a"}])
@pytest.mark.parametrize("glob", ["b/llama", "b/*", "*/llama", "?/lla*"])
def test_a_model_of_another_namespace_needs_the_keys_glob_and_its_own_word(
    opened: set[str], glob: str
) -> None:
    shared = spec("y", "b", served="llama", aliases=("l",), opened_to=frozenset(opened))
    found = catalog(spec("x", served="llama"), shared, spec("z", "b", served="secret"))
    assert resolve(found, key(glob, "*"), "b/llama").ref == "b/y"
    assert resolve(found, key(glob, "*"), "b/l").ref == "b/y"
    assert resolve(found, key(glob, "*"), "llama").ref == "a/x"
    assert resolve(found, key(glob, "*"), "a/llama").ref == "a/x"
    names = [name for name, _ in visible(found, key(glob, "*"))]
    assert names == ["llama", "b/llama"]
    for refused, name in ((key("*"), "b/llama"), (key(glob), "llama"), (key(glob), "b/secret")):
        with pytest.raises(ModelNotFound):
            resolve(found, refused, name)
    closed = catalog(spec("y", "b", served="llama", opened_to=frozenset({"c"})))
    with pytest.raises(ModelNotFound):
        resolve(closed, key(glob), "b/llama")
    assert visible(closed, key(glob)) == []


def test_two_claims_of_one_name_are_decided_by_age_and_never_by_order() -> None:
    old, new = spec("old", served="m", created=1), spec("new", served="m", created=2)
    alias = spec("alias", aliases=("m",), created=0)
    for specs in ((old, new, alias), (alias, new, old)):
        found = catalog(*specs)
        assert resolve(found, key("*"), "m").spec.name == "old"
        assert [m.spec.name for _, m in visible(found, key("*"))] == ["alias", "old"]


def test_an_adapter_answers_under_each_name_of_its_model() -> None:
    adapted = spec("x", served="qwen", aliases=("gpt",), adapters=("sql", "v:2"))
    found = assemble((), [adapted], [PodState("a", "x", replica(1))])
    for name in ("qwen:sql", "gpt:sql", "a/qwen:sql"):
        model = resolve(found, key("*"), name)
        assert (model.spec.adapter, model.spec.upstream_name) == ("sql", "qwen:sql")
        assert (model.ref, model.replicas) == ("a/x", (replica(1),))
    assert resolve(found, key("*"), "gpt:v:2").spec.adapter == "v:2"
    assert resolve(found, key("*"), "qwen").spec.adapter == ""
    for name in ("sql", "qwen:", "qwen:other", "x:sql", "qwen:sql:sql"):
        with pytest.raises(ModelNotFound):
            resolve(found, key("*"), name)


@pytest.mark.parametrize(
    ("glob", "opened"),
    [
        ("qwen", ["qwen"]),
        ("gpt", ["qwen"]),
        ("qwen*", ["qwen", "qwen:poet", "qwen:sql"]),
        ("qwen:*", ["qwen:poet", "qwen:sql"]),
        ("qwen:sql", ["qwen:sql"]),
        ("gpt:poet", ["qwen:poet"]),
        ("*:sql", ["qwen:sql"]),
        ("a/qwen:sql", ["qwen:sql"]),
        ("*", ["qwen", "qwen:poet", "qwen:sql"]),
    ],
)
def test_a_key_for_a_model_is_none_for_its_adapters(glob: str, opened: list[str]) -> None:
    found = catalog(spec("x", served="qwen", aliases=("gpt",), adapters=("sql", "poet")))
    assert [name for name, _ in visible(found, key(glob))] == opened
    for name in ("qwen", "qwen:poet", "qwen:sql"):
        if name in opened:
            assert resolve(found, key(glob), name)
        else:
            with pytest.raises(ModelNotFound):
                resolve(found, key(glob), name)


def test_a_models_own_name_goes_before_one_with_an_adapters() -> None:
    adapted = spec("old", served="qwen", adapters=("sql",), created=1)
    for plain in (spec("new", served="qwen:sql", created=2), spec("new", aliases=("qwen:sql",))):
        found = catalog(adapted, plain)
        assert resolve(found, key("*"), "qwen:sql").spec.name == "new"
        assert "qwen:sql" not in [n for n, m in visible(found, key("*")) if m.spec.adapter]


def test_adapters_of_another_namespace_are_asked_for_with_its_name() -> None:
    shared = spec("y", "b", served="llama", adapters=("sql",), opened_to=frozenset({"a"}))
    found = catalog(shared)
    assert resolve(found, key("b/llama:*"), "b/llama:sql").spec.adapter == "sql"
    assert [name for name, _ in visible(found, key("b/*"))] == ["b/llama", "b/llama:sql"]
    with pytest.raises(ModelNotFound):
        resolve(found, key("b/llama"), "b/llama:sql")


def test_a_fallback_answers_by_its_adapter_of_the_same_name_if_it_has_one() -> None:
    found = catalog(
        spec("one", adapters=("sql",), fallbacks=("two", "three")),
        spec("two", adapters=("poet", "sql")),
        spec("three"),
    )
    asked = resolve(found, key("*"), "one:sql")
    instead = fallback.chain(asked, found.by_ref)
    assert [model.spec.upstream_name for model in instead] == ["two:sql", "three"]
    plain = fallback.chain(resolve(found, key("*"), "one"), found.by_ref)
    assert [model.spec.upstream_name for model in plain] == ["two", "three"]
    assert fallback.now(instead[0], found.by_ref) is instead[0]
    with pytest.raises(NotReady):
        fallback.now(instead[0], {})


def test_pods_belong_to_the_model_of_their_own_namespace() -> None:
    pods = [
        PodState("a", "m", replica(1)),
        PodState("b", "m", replica(2)),
        PodState("a", "m", None),
    ]
    found = assemble((), [spec("m"), spec("m", "b")], pods)
    assert resolve(found, key("*"), "m").replicas == (replica(1),)
    assert found.replica_ids == {"r1", "r2"}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"suspended": True, "wanted": 0}, "suspended"),
        ({"wanted": 0}, "scaled to zero"),
        ({"wanted": 2, "reason": "ScaledToZero"}, "started now"),
        ({"reason": "Loading"}, "loading"),
        ({"reason": "OutOfMemory"}, "out of memory"),
        ({"reason": "SomethingNew"}, "none has become ready"),
        ({}, "none has become ready"),
    ],
)
def test_the_refusal_says_why_nobody_is_ready(state: dict[str, Any], words: str) -> None:
    model = resolve(catalog(spec("m", **state)), key("*"), "m")
    error = nobody_ready(model)
    assert words in error.message and error.code == "no_ready_replicas"
    assert error.retry_after


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_the_least_busy_replica_is_picked(loads: list[int]) -> None:
    balance, replicas = Balance(Breakers()), [replica(n) for n in range(len(loads))]
    for one, load in zip(replicas, loads, strict=True):
        for _ in range(load):
            balance.began(one)
    picked = balance.pick(replicas, set(), 0, POLICY)
    assert picked is not None and loads[replicas.index(picked)] == min(loads)


def test_ties_go_round_and_what_ended_counts_no_more() -> None:
    balance, replicas = Balance(Breakers()), [replica(n) for n in range(3)]
    assert {balance.pick(replicas, (), 0, POLICY) for _ in range(3)} == set(replicas)
    balance.began(replicas[0])
    balance.ended(replicas[0])
    assert balance.in_flight == 0 and not balance._loads


def test_one_that_failed_is_passed_over_for_a_moment_while_there_is_another() -> None:
    balance, replicas = Balance(Breakers()), [replica(0), replica(1)]
    balance.failed(replicas[0], 10)
    balance.began(replicas[1])
    assert balance.pick(replicas, (), 11, POLICY) == replicas[1]
    assert balance.pick(replicas[:1], (), 11, POLICY) == replicas[0]
    assert balance.pick(replicas, (), 10 + SHUN_SECONDS, POLICY) == replicas[0]


def test_nobody_is_asked_twice() -> None:
    balance, replicas = Balance(Breakers()), [replica(0), replica(1)]
    assert balance.pick(replicas, {"r0"}, 0, POLICY) == replicas[1]
    assert balance.pick(replicas, {"r0", "r1"}, 0, POLICY) is None
    assert balance.pick([], (), 0, POLICY) is None


def test_only_what_computed_nothing_is_tried_again_and_only_as_often_as_the_model_says() -> None:
    once, thrice = RetryPolicy(), RetryPolicy(attempts=4)
    again = {kind for kind in Failure if retry.again(kind, 1, once)}
    assert again == {
        Failure.CONNECT,
        Failure.CONNECT_TIMEOUT,
        Failure.RESET,
        Failure.UNAVAILABLE,
    }
    assert not any(retry.again(kind, 2, once) for kind in Failure)
    assert {kind for kind in Failure if retry.again(kind, 3, thrice)} == again
    assert not any(retry.again(kind, 4, thrice) for kind in Failure)


def test_further_tries_are_a_fifth_of_the_requests_in_the_long_run() -> None:
    purse, tries = retry.Purse(), 0
    for _ in range(10_000):
        purse.earn()
        tries += purse.spend()
    assert tries <= 10_000 * retry.SHARE + retry.FULL


def test_a_gateway_that_was_quiet_has_a_few_tries_at_once_and_never_more() -> None:
    purse = retry.Purse()
    for _ in range(1000):
        purse.earn()
    assert sum(purse.spend() for _ in range(1000)) == retry.FULL


DEFAULT = Budget(connect=5, queue=30, first_token=30, stream_idle=120, total=300)


def test_the_models_times_go_before_the_gateways() -> None:
    assert budget(Timeouts(), DEFAULT) == DEFAULT
    mine = budget(Timeouts(first_token=2, total=9), DEFAULT)
    assert mine == Budget(connect=5, queue=30, first_token=2, stream_idle=120, total=9)


def test_every_phase_ends_with_the_total_at_the_latest() -> None:
    times = Deadlines(DEFAULT, 100, streams=True)
    assert times.connect(100) == (105, Failure.CONNECT_TIMEOUT)
    assert times.answer(101) == (131, Failure.FIRST_TOKEN_TIMEOUT)
    assert times.next_part(140) == (260, Failure.IDLE_TIMEOUT)
    assert times.next_part(399) == (400, Failure.TOTAL_TIMEOUT)
    whole = Deadlines(DEFAULT, 100, streams=False)
    assert whole.answer(101) == (400, Failure.TOTAL_TIMEOUT)
    mine = budget(Timeouts(request=9), DEFAULT)
    assert Deadlines(mine, 100, streams=False).answer(101) == (110, Failure.REQUEST_TIMEOUT)
    assert Deadlines(mine, 100, streams=True).answer(101) == (131, Failure.FIRST_TOKEN_TIMEOUT)


@pytest.mark.parametrize(
    ("part", "found"),
    [
        (b'{"usage":{"prompt_tokens":3,"completion_tokens": 4,"total_tokens":7}}', (3, 4)),
        (b'{"usage": {"prompt_tokens": 3, "total_tokens": 3}}', (3, 0)),
        (b'{"usage":{"completion_tokens":4,"total_tokens":7,"prompt_tokens":3}}', (3, 4)),
        (b'data: {"choices":[],"usage":null}\n\n', None),
        (b'{"content":"\\"prompt_tokens\\": 9"}', None),
        (b'{"content":"x"}', None),
        (b'{"usage":{"prompt_tokens":null}}', None),
    ],
)
def test_usage_is_read_from_the_bytes(part: bytes, found: tuple[int, int] | None) -> None:
    told = usage.find(part)
    assert (told and told[:2]) == found
