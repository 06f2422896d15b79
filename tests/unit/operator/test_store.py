"""Newer always wins, whatever order news comes in."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pippin_operator.api.resources import DEPLOYMENT, MODELDEPLOYMENT, POD, Ref
from pippin_operator.store import Store
from support.manifests import model
from support.pods import pod

QWEN = Ref(MODELDEPLOYMENT.plural, "ns", "qwen")


def at(version: int, body: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        **body,
        "metadata": {**body["metadata"], "resourceVersion": str(version), **metadata},
    }


def a_pod(version: int, **status: Any) -> dict[str, Any]:
    return {**at(version, pod("p", "ns", "qwen")), "status": status}


def test_children_are_found_by_their_owner():
    store = Store()
    store.put(POD, a_pod(1))
    assert [child["metadata"]["name"] for child in store.children(QWEN, "pods")] == ["p"]
    assert store.children(QWEN, "services") == []
    store.remove(POD, a_pod(2))
    assert store.children(QWEN, "pods") == []


def test_late_news_is_no_news():
    store = Store()
    assert store.put(POD, a_pod(5, phase="Running"))
    assert not store.put(POD, a_pod(4, phase="Pending"))
    assert store.children(QWEN, "pods")[0]["status"] == {"phase": "Running"}


def test_a_late_answer_does_not_bring_back_what_was_deleted():
    store = Store()
    store.put(POD, a_pod(1))
    store.remove(POD, a_pod(3))
    assert not store.put(POD, a_pod(2))
    assert store.children(QWEN, "pods") == []
    assert store.put(POD, a_pod(4))


def test_a_late_deletion_does_not_take_what_was_made_anew():
    store = Store()
    store.put(POD, a_pod(7))
    store.remove(POD, a_pod(3))
    assert store.children(QWEN, "pods")


def test_a_new_version_of_the_same_is_no_change():
    store = Store()
    store.put(POD, a_pod(1, phase="Running"))
    assert not store.put(POD, a_pod(2, phase="Running"))
    assert store.put(POD, a_pod(3, phase="Failed"))


def test_our_own_status_writes_wake_nobody():
    store = Store()
    body = model("qwen", "ns")
    assert store.put(MODELDEPLOYMENT, at(1, body))
    assert not store.put(MODELDEPLOYMENT, {**at(2, body), "status": {"phase": "Ready"}})
    assert (store.get(QWEN) or {})["status"] == {"phase": "Ready"}
    assert store.put(MODELDEPLOYMENT, at(3, body, generation=2))


def test_a_full_reading_takes_away_what_is_gone_and_keeps_what_is_newer():
    store = Store()
    store.put(DEPLOYMENT, at(1, {**pod("gone", "ns", "qwen")}))
    store.put(DEPLOYMENT, at(9, {**pod("newer", "ns", "qwen")}))
    store.replace(DEPLOYMENT, [at(2, pod("listed", "ns", "qwen"))], 5)
    names = [child["metadata"]["name"] for child in store.children(QWEN, "deployments")]
    assert names == ["listed", "newer"]


def test_memory_holds_only_what_is_looked_at():
    store = Store()
    body = a_pod(1, phase="Running", podIPs=["x"])
    store.put(POD, at(1, body, managedFields=[{"manager": "x"}]))
    (kept,) = store.children(QWEN, "pods")
    assert "managedFields" not in kept["metadata"]
    assert kept["spec"] == {}
    assert kept["status"] == {"phase": "Running"}


def test_others_pods_belong_to_nobody():
    store = Store()
    foreign = a_pod(1)
    foreign["metadata"]["labels"] = {"app.kubernetes.io/instance": "qwen"}
    store.put(POD, foreign)
    assert store.children(QWEN, "pods") == []


def claim(store: Store, name: str, created: str, version: int = 1, /, **spec: Any) -> Ref:
    body = at(version, model(name, "ns", model=spec), creationTimestamp=created)
    store.put(MODELDEPLOYMENT, body)
    return Ref(MODELDEPLOYMENT.plural, "ns", name)


def test_the_oldest_claim_to_a_name_holds():
    store = Store()
    young = claim(store, "a", "2026-02-01T00:00:00Z", aliases=["shared"])
    old = claim(store, "b", "2026-01-01T00:00:00Z", name="shared")
    assert store.taken(young) == ("shared", "b")
    assert store.taken(old) is None
    assert store.rivals(young) == {old}
    claim(store, "b", "2026-01-01T00:00:00Z", 2, name="other")
    assert store.taken(young) is None


def test_a_name_with_an_adapters_is_a_claim_too():
    store = Store()
    adapted: dict[str, Any] = {"aliases": ["gpt"], "adapters": [{"name": "sql", "uri": "hf://a/b"}]}
    plain = claim(store, "plain", "2026-01-01T00:00:00Z", name="gpt:sql")
    qwen = claim(store, "qwen", "2026-02-01T00:00:00Z", **adapted)
    assert store.taken(qwen) == ("gpt:sql", "plain")
    assert store.taken(plain) is None
    assert store.rivals(plain) == {qwen}


def test_a_tie_is_broken_by_name_and_namespaces_are_apart():
    store = Store()
    same = "2026-01-01T00:00:00Z"
    first, second = claim(store, "a", same, name="x"), claim(store, "b", same, name="x")
    assert store.taken(first) is None
    assert store.taken(second) == ("x", "a")
    elsewhere = at(1, model("c", "other", model={"name": "x"}), creationTimestamp=same)
    store.put(MODELDEPLOYMENT, elsewhere)
    assert store.taken(Ref(MODELDEPLOYMENT.plural, "other", "c")) is None


@given(st.permutations([("put", 1), ("put", 2), ("remove", 3), ("put", 5), ("put", 4)]))
def test_any_order_ends_in_the_newest(news):
    store = Store()
    for what, version in news:
        body = a_pod(version, phase=str(version))
        if what == "put":
            store.put(POD, body)
        else:
            store.remove(POD, body)
    (kept,) = store.children(QWEN, "pods")
    assert kept["status"]["phase"] == "5"
