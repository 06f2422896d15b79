"""What the gateway reads of the cluster's objects, whole, newer than it, or broken."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pippin_contract import wire
from pippin_gateway.catalog.model import assemble
from pippin_gateway.catalog.objects import Malformed, parse_key, parse_model, parse_pod
from pippin_gateway.catalog.store import PAUSE, CatalogStore
from support.eventually import eventually
from support.gateway import NAMESPACE, key_object, model_object, new_key, pod_object


def container_pod(ip: str | None = "10.0.0.7", **container: Any) -> dict[str, Any]:
    raw = pod_object("p", 1)
    raw["status"]["conditions"].pop()  # no native endpoint
    raw["spec"]["containers"] = [container]
    if ip:
        raw["status"]["podIP"] = ip
    return raw


def address(raw: dict[str, Any]) -> tuple[str, int] | None:
    replica = parse_pod(raw).replica
    return (replica.endpoint.host, replica.endpoint.port) if replica else None


def test_a_native_pods_address_is_its_condition() -> None:
    assert address(pod_object("p", 1234)) == ("127.0.0.1", 1234)


def test_another_pods_address_is_its_ip_and_the_port_named_http() -> None:
    ports = [{"name": "metrics", "containerPort": 1}, {"name": "http", "containerPort": 8123}]
    assert address(container_pod(ports=ports)) == ("10.0.0.7", 8123)
    assert address(container_pod()) == ("10.0.0.7", wire.SERVER_PORT)
    assert address(container_pod(ip="fd00::7")) == ("fd00::7", wire.SERVER_PORT)


def test_a_pod_without_readiness_address_or_future_takes_no_requests() -> None:
    assert address(container_pod(ip=None)) is None
    assert address(pod_object("p", 1, ready=False)) is None
    assert address(pod_object("p", 1, deleting=True)) is None
    assert address({"metadata": pod_object("p", 1)["metadata"]}) is None


def marked(name: str, port: int, **ready: str) -> dict[str, Any]:
    """A Pod whose Ready condition is no longer what its node says."""
    raw = pod_object(name, port)
    raw["status"]["conditions"][0] = {"type": "Ready", "status": "False", **ready}
    raw["status"]["conditions"].append({"type": "ContainersReady", "status": "True"})
    return raw


def served_by(*pods: dict[str, Any]) -> list[str]:
    known = parse_model(model_object())
    assert known is not None
    (model,) = assemble([], [known], map(parse_pod, pods)).by_namespace[NAMESPACE]
    return [replica.pod for replica in model.replicas]


def test_pods_on_nodes_that_are_not_heard_of_are_tried_when_there_is_no_other() -> None:
    assert served_by(marked("lost", 1), marked("missing", 2)) == ["lost", "missing"]
    assert served_by(marked("lost", 1), pod_object("heard", 2)) == ["heard"]


def test_a_pod_that_waits_for_its_readiness_gate_is_not_tried() -> None:
    assert served_by(marked("gated", 1, reason="ReadinessGatesNotReady")) == []


@pytest.mark.parametrize(
    "url",
    ["tunnel://node/uid", "https://mac:10260/pods/u", "http://x", "::", "http://x:notaport"],
)
def test_an_endpoint_of_a_kind_that_is_not_spoken_is_left_out(url: str) -> None:
    raw = pod_object("p", 1)
    raw["status"]["conditions"][1]["message"] = url
    with pytest.raises(Malformed):
        parse_pod(raw)


def test_a_model_is_read_with_defaults_for_what_is_not_said() -> None:
    model = parse_model(model_object())
    assert model is not None
    assert (model.served_name, model.task, model.suspended, model.wanted) == (
        "qwen",
        "chat",
        False,
        1,
    )
    timeouts = {"connect": "500ms", "firstToken": "1m30s", "queue": "9s"}
    model = parse_model(model_object(timeouts=timeouts, model={"name": "served"}, suspend=True))
    assert model is not None
    assert (model.served_name, model.timeouts.connect, model.timeouts.first_token) == (
        "served",
        0.5,
        90,
    )
    assert model.timeouts.total is None and model.suspended


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"replicas": 0}, 0),
        ({"replicas": 3}, 3),
        ({"autoscaling": {"minReplicas": 0, "maxReplicas": 4}}, 4),
        ({"autoscaling": {"minReplicas": 0, "maxReplicas": 4, "provider": "keda"}}, 0),
    ],
)
def test_a_model_that_starts_when_asked_for_is_not_off(spec: dict[str, Any], wanted: int) -> None:
    raw = model_object(**{"replicas": None, **spec})
    model = parse_model(raw)
    assert model is not None and model.wanted == wanted


@pytest.mark.parametrize(
    ("spec", "at_once"),
    [
        ({}, 32),
        ({"accelerator": {"type": "apple"}}, 32),
        ({"accelerator": {"type": "amd"}}, 256),
        ({"accelerator": {"type": "nvidia"}, "engine": {"type": "echo"}}, 32),
        ({"accelerator": {"type": "cpu"}, "engine": {"type": "vllm"}}, 256),
        ({"engine": {"type": "vllm"}, "limits": {"concurrency": 5}}, 5),
    ],
)
def test_a_replica_works_on_as_many_at_once_as_the_operator_tells_it(
    spec: dict[str, Any], at_once: int
) -> None:
    model = parse_model(model_object(**spec))
    assert model is not None and model.at_once == at_once


def test_objects_that_are_being_deleted_are_gone() -> None:
    for raw, parse in ((model_object(), parse_model), (key_object(new_key()), parse_key)):
        raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        assert parse(raw) is None


def test_a_key_ends_when_the_first_of_its_ends_comes() -> None:
    raw = key_object(new_key(), expiresAt="2026-01-02T00:00:00Z")
    raw["status"]["keys"][0]["notAfter"] = "2026-01-01T00:00:00Z"
    found = parse_key(raw)
    assert found is not None
    (row,) = found.rows.values()
    assert row.not_after == 1767225600 and row.principal.ref == "team-a/app"


async def test_a_broken_object_is_left_out_and_the_others_stay() -> None:
    store, good = CatalogStore(), new_key()
    bad = key_object(new_key(), "bad", expiresAt="tomorrow")
    store.replace("apikeys", [bad, key_object(good)])
    store.replace("modeldeployments", [model_object("m", timeouts={"total": "soon"})])
    store.replace("pods", [])
    store.refresh()
    assert store.ready
    assert store.catalog.keyring.verify(good.key, 0).name == "app"
    assert not store.catalog.by_name


async def test_an_object_that_breaks_is_no_longer_served_from_what_it_was() -> None:
    store, key = CatalogStore(), new_key()
    store.replace("apikeys", [key_object(key)])
    store.put("apikeys", key_object(key, expiresAt="tomorrow"))
    store.refresh()
    assert len(store.catalog.keyring) == 0


async def test_ready_means_that_every_kind_was_listed_once() -> None:
    store = CatalogStore()
    for kind in ("apikeys", "pods"):
        store.replace(kind, [])
        assert not store.ready
    store.replace("modeldeployments", [])
    assert store.ready
    store.disconnected("pods", "gone")
    assert store.ready and set(store.stale_since) == {"pods"}
    store.connected("pods")
    assert not store.stale_since


async def test_events_that_change_nothing_of_use_make_no_new_catalog() -> None:
    catalogs: list[object] = []
    store, key = CatalogStore(catalogs.append), new_key()
    for kind in ("apikeys", "modeldeployments", "pods"):
        store.replace(kind, [])
    raw = [key_object(key), model_object(), pod_object("p", 1)]
    for one, kind in zip(raw, ("apikeys", "modeldeployments", "pods"), strict=True):
        store.put(kind, one)
    await eventually(lambda: bool(store.catalog.replica_ids), within=2)
    before = store.catalog
    raw[0]["status"]["lastUsedAt"] = "2026-01-01T00:00:00Z"
    raw[1]["status"]["phase"] = "Ready"
    raw[2]["status"]["startTime"] = "2026-01-01T00:00:00Z"
    for one, kind in zip(raw, ("apikeys", "modeldeployments", "pods"), strict=True):
        store.put(kind, one)
    await asyncio.sleep(PAUSE * 3)
    assert store.catalog is before
    store.put("pods", pod_object("p", 1, ready=False))
    await eventually(lambda: not store.catalog.replica_ids, within=2)
