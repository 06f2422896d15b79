"""Loopback ports of native Pods."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from pippin_node import ports
from pippin_node.ports import NoPort, PortBook


@pytest.fixture
def busy() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def a_container(*declared: dict[str, Any], name: str = "c") -> dict[str, Any]:
    return {"name": name, "ports": list(declared)}


def test_a_port_in_use_is_not_picked(busy: int) -> None:
    with pytest.raises(NoPort):
        ports.pick("127.0.0.1", busy, busy, ())


def test_a_port_that_another_pod_holds_is_not_picked() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    book = PortBook(port, port)
    book.of("one")["c"] = {"http": book.pick("127.0.0.1")}
    with pytest.raises(NoPort):
        book.pick("127.0.0.1")
    book.release("one")
    assert book.pick("127.0.0.1") == port


def test_a_known_port_is_kept_while_it_is_free(busy: int) -> None:
    http = a_container({"name": "http", "containerPort": 8000})
    kept = ports.assign(http, {"http": 20007}, "127.0.0.1", lambda: 1)
    assert kept == {"http": 20007}
    assert ports.assign(http, {"http": busy}, "127.0.0.1", lambda: 2) == {"http": 2}


def test_a_host_port_is_taken_as_given_on_the_hosts_address() -> None:
    http = a_container({"name": "http", "containerPort": 8000, "hostPort": 8088})
    assert ports.assign(http, {}, "127.0.0.1", lambda: 1) == {"http": 8088}
    assert ports.bind_host(http, "10.0.0.7") == "10.0.0.7"
    assert ports.bind_host(a_container({"name": "http"}), "10.0.0.7") == "127.0.0.1"


def a_pod(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"uid": "u1"}, "spec": {"containers": list(containers)}}


def test_the_endpoint_is_the_port_named_http_else_the_first() -> None:
    first = a_container({"name": "metrics"}, name="a")
    second = a_container({"name": "admin"}, {"name": "http"}, name="b")
    book = PortBook(1, 9)
    assert ports.endpoint(a_pod(first, second), book, "127.0.0.1") is None
    book.of("u1").update({"a": {"metrics": 1}, "b": {"admin": 2, "http": 3}})
    assert ports.endpoint(a_pod(first, second), book, "127.0.0.1") == "http://127.0.0.1:3"
    assert ports.endpoint(a_pod(first), book, "::1") == "http://127.0.0.1:1"


def test_the_endpoint_of_a_node_with_a_door_leads_through_it() -> None:
    book = PortBook(1, 9)
    book.door = ports.Door("fd00::1", 10260, "0" * 64)
    book.of("u1")["c"] = {"http": 3}
    url = f"https://[fd00::1]:10260/pods/u1#{'0' * 64}"
    assert ports.endpoint(a_pod(a_container({"name": "http"})), book, "fd00::1") == url
    # A port of the host is open by itself.
    own = a_pod(a_container({"name": "http", "hostPort": 3}))
    assert ports.endpoint(own, book, "fd00::1") == "http://[fd00::1]:3"
