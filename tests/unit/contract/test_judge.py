"""What is found in objects that are right each for itself, before they are applied."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pippin_contract.judge import World, problems

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def model(name: str, namespace: str = "a", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"kind": "ModelDeployment", "metadata": metadata, "spec": spec}


def key(*models: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "app", "namespace": "a"}
    return {"kind": "APIKey", "metadata": metadata, "spec": {"models": list(models), **spec}}


def found(*asked: dict[str, Any], **secrets: frozenset[str] | None) -> list[tuple[bool, str]]:
    looked = {("a", name): keys for name, keys in secrets.items()}
    return [(one.fatal, one.says) for one in problems(asked, World(asked, looked), NOW)]


def only(*asked: dict[str, Any], **secrets: frozenset[str] | None) -> tuple[bool, str]:
    (one,) = found(*asked, **secrets)
    return one


def test_what_fits_together_is_not_complained_of() -> None:
    spare = model("spare", limits={"rpm": 60})
    opened = model("embed", "b", auth={"namespaces": ["a"]})
    mine = model("qwen", fallbacks=["spare"], model={"aliases": ["gpt"]}, limits={"rpm": 50})
    app = key("qwen", "a/gpt", "spare", "b/embed", limits={"rpm": 60, "tpm": 1, "tokensPerDay": 2})
    assert found(spare, opened, mine, app) == []


def test_a_fallback_must_be_there_and_do_the_same() -> None:
    fatal, says = only(model("qwen", fallbacks=["gone"]))
    assert fatal and "gone" in says
    other = model("embed", model={"task": "embedding"})
    fatal, says = only(model("qwen", fallbacks=["embed"]), other)
    assert fatal and "never asked" in says
    assert only(model("qwen", fallbacks=["x"]), model("x", "b"))[0], "of another namespace"


def test_a_circle_is_told_whole_and_once_for_each_in_it() -> None:
    circle = [model(one, fallbacks=[two]) for one, two in ("xy", "yz", "zx")]
    outside = model("w", fallbacks=["x"])
    says = [says for fatal, says in found(*circle, outside) if fatal]
    assert len(says) == 3 and "x -> y -> z -> x" in says[0]


def test_two_models_of_a_namespace_cannot_have_one_name() -> None:
    one, two = model("one", model={"name": "gpt"}), model("two", model={"aliases": ["gpt"]})
    assert [fatal for fatal, _ in found(one, two)] == [True, True]
    assert found(one, model("two", "b", model={"aliases": ["gpt"]})) == []


def test_a_models_adapters_are_names_of_it() -> None:
    adapted = model("qwen", model={"adapters": [{"name": "sql", "uri": "hf://a/b"}]})
    assert found(key("qwen:sql"), adapted) == []
    assert only(key("qwen:other"), adapted) == (False, "qwen:other matches no model")
    other = model("other", model={"name": "qwen:sql"})
    assert [fatal for fatal, _ in found(adapted, other)] == [True, True]


@pytest.mark.parametrize("glob", ["qwen", "b/*", "*/embed", "c/embed"])
def test_a_glob_that_matches_nothing_is_a_warning(glob: str) -> None:
    fatal, says = only(key(glob), model("other"))
    assert not fatal and glob in says


def test_a_model_that_is_named_and_not_opened_is_an_error() -> None:
    fatal, says = only(key("b/embed"), model("embed", "b"))
    assert fatal and "auth.namespaces" in says
    assert only(key("b/embed"), model("embed", "b", auth={"namespaces": ["c"]}))[0]
    some = model("one", "b", auth={"namespaces": ["*"]})
    assert found(key("b/*"), some, model("embed", "b")) == [], "nobody counts on each"


def test_a_key_without_models_or_time_is_told() -> None:
    assert "may use none" in only(key())[1]
    past = key("*", expiresAt="2025-12-31T00:00:00Z")
    assert only(past, model("x")) == (False, "it ended at 2025-12-31T00:00:00Z")


def test_limits_that_never_hold_are_told() -> None:
    small, large = model("small", limits={"rpm": 10}), model("large", limits={"rpm": 20})
    assert "more than any" in only(key("*", limits={"rpm": 21}), small, large)[1]
    assert found(key("*", limits={"rpm": 20}), small, large) == []
    assert found(key("*", limits={"rpm": 999}), small, model("free")) == []
    engine = {"type": "external", "external": {"url": "https://x", "provider": "vllm"}}
    cloud = model("cloud", engine=engine)
    assert "(50)" in only(key("*", limits={"rpm": 51}), cloud)[1]
    assert "tokensPerDay" in only(key("*", limits={"tpm": 2, "tokensPerDay": 1}), small)[1]


def test_secrets_must_be_there_with_their_keys() -> None:
    hub = model("x", model={"credentialsSecretRef": {"name": "hub", "key": "token"}})
    assert only(hub, hub=None) == (True, "the Secret hub is not there")
    assert only(hub, hub=frozenset({"other"})) == (True, "the Secret hub has no key token")
    assert found(hub, hub=frozenset({"token"})) == []
    assert found(hub) == [], "who may not look does not know"
    whole = model("x", model={"credentialsSecretRef": {"name": "hub"}})
    assert found(whole, hub=frozenset({"AWS_REGION"})) == []
    adapter = {"name": "sql", "uri": "hf://a/b", "credentialsSecretRef": {"name": "own"}}
    assert only(model("x", model={"adapters": [adapter]}), own=None)[0]
    mine = key("*", existingSecretRef={"name": "own", "key": "k"})
    assert only(mine, model("y"), own=None)[0]
