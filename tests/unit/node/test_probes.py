"""Probe verdicts: thresholds, the order of the three kinds, the words of failures."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pippin_node.probes import Kind, Probe, Prober, Streak, Target, attempt
from support.eventually import eventually

FAST = {"periodSeconds": 0.02, "timeoutSeconds": 0.5}


@pytest.mark.parametrize(
    ("answers", "verdicts"),
    [
        ("+", [True]),
        ("--", [None, None]),
        ("---", [None, None, False]),
        ("--+--", [None, None, True, True, True]),
        ("+---+", [True, True, True, False, True]),
    ],
)
def test_a_verdict_takes_as_many_answers_in_a_row_as_the_threshold_says(
    answers: str, verdicts: list[bool | None]
) -> None:
    streak, seen = Streak(success=1, failure=3), []
    for answer in answers:
        streak.observe(answer == "+")
        seen.append(streak.verdict)
    assert seen == verdicts


class Server(ThreadingHTTPServer):
    """Answers each path with the status that was set for it; 200 at first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.statuses: dict[str, int] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.port = self.server_address[1]


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("X-Who")))
        self.send_response(self.server.statuses.get(self.path, 200))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as own:
        thread = threading.Thread(target=own.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield own
        own.shutdown()
        thread.join()


async def no_exec(command: list[str]) -> tuple[int, str]:
    return (0, "") if command == ["fine"] else (2, "broken\n")


def target(server: Server) -> Target:
    return Target("127.0.0.1", {"http": server.port, "none": 1}, no_exec)


def a_probe(**action: Any) -> Probe:
    probe = Probe.of({"livenessProbe": {**FAST, **action}}, Kind.LIVENESS)
    assert probe is not None
    return probe


async def test_http_passes_between_200_and_399(server: Server) -> None:
    probe = a_probe(httpGet={"path": "/x", "port": "http"})
    for status, words in (
        (200, None),
        (302, None),
        (404, "HTTP probe failed with statuscode: 404"),
        (503, "HTTP probe failed with statuscode: 503"),
    ):
        server.statuses["/x"] = status
        assert await attempt(probe, target(server)) == words


async def test_http_sends_the_headers_of_the_manifest(server: Server) -> None:
    header = {"name": "X-Who", "value": "probe"}
    await attempt(a_probe(httpGet={"port": "http", "httpHeaders": [header]}), target(server))
    assert server.requests == [("/", "probe")]


async def test_refused_connections_are_told_in_the_kubelets_words(server: Server) -> None:
    words = await attempt(a_probe(httpGet={"path": "/x", "port": "none"}), target(server))
    assert words == 'Get "http://127.0.0.1:1/x": connect: connection refused'
    words = await attempt(a_probe(tcpSocket={"port": "none"}), target(server))
    assert words == "dial tcp 127.0.0.1:1: connect: connection refused"
    assert await attempt(a_probe(tcpSocket={"port": "http"}), target(server)) is None


async def test_exec_passes_with_exit_code_0(server: Server) -> None:
    assert await attempt(a_probe(exec={"command": ["fine"]}), target(server)) is None
    assert await attempt(a_probe(exec={"command": ["other"]}), target(server)) == "broken"


async def test_a_server_that_does_not_answer_in_time_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        probe = a_probe(httpGet={"port": "http"}, timeoutSeconds=0.05)
        where = Target("127.0.0.1", {"http": silent.getsockname()[1]}, no_exec)
        assert await attempt(probe, where) == "probe timed out after 0.05s"


async def test_a_late_agent_asks_again_before_it_blames_the_container(server: Server) -> None:
    probe = a_probe(httpGet={"port": "http"}, timeoutSeconds=0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports: dict[str | int, int] = {"http": silent.getsockname()[1]}
        asking = asyncio.create_task(attempt(probe, Target("127.0.0.1", ports, no_exec)))
        await asyncio.sleep(0)
        ports["http"] = server.port
        time.sleep(0.4)  # noqa: ASYNC251  the loop stands still, as on a machine that slept
        assert await asking is None


@pytest.fixture
async def probers() -> AsyncIterator[list[Prober]]:
    """Every prober of the test, stopped at its end."""
    made: list[Prober] = []
    yield made
    for prober in made:
        prober.stop()


def begin(probers: list[Prober], server: Server, failure: int = 3, **known: bool) -> Prober:
    container = {
        kind.field: {
            **FAST,
            "failureThreshold": failure,
            "httpGet": {"path": f"/{kind.value}", "port": "http"},
        }
        for kind in Kind
    }
    prober = Prober(container, target(server), told=lambda *_: None, changed=lambda: None)
    probers.append(prober)
    prober.begin(**known)
    return prober


async def test_nothing_else_is_probed_before_the_startup_probe_passed(
    server: Server, probers: list[Prober]
) -> None:
    server.statuses["/Startup"] = 503
    prober = begin(probers, server, failure=10_000)
    await eventually(lambda: len(server.requests) >= 2)
    assert not prober.started and not prober.ready
    assert {path for path, _ in server.requests} == {"/Startup"}
    server.statuses["/Startup"] = 200
    await eventually(lambda: prober.started and prober.ready)


async def test_a_startup_probe_that_never_passes_gives_the_container_up(
    server: Server, probers: list[Prober]
) -> None:
    server.statuses["/Startup"] = 503
    prober = begin(probers, server)
    failed = await eventually(lambda: prober.failed)
    assert failed is not None and failed.kind is Kind.STARTUP


async def test_readiness_comes_and_goes_without_giving_up(
    server: Server, probers: list[Prober]
) -> None:
    prober = begin(probers, server)
    await eventually(lambda: prober.ready)
    server.statuses["/Readiness"] = 503
    await eventually(lambda: not prober.ready)
    server.statuses["/Readiness"] = 200
    await eventually(lambda: prober.ready)
    assert prober.failed is None


async def test_an_adopted_container_stays_ready_until_it_fails(
    server: Server, probers: list[Prober]
) -> None:
    server.statuses["/Startup"] = 503  # is not asked again
    prober = begin(probers, server, started=True, ready=True)
    assert prober.started and prober.ready
    server.statuses["/Readiness"] = 503
    await eventually(lambda: not prober.ready)


async def test_a_container_on_its_way_up_is_looked_at_more_often(
    server: Server, probers: list[Prober]
) -> None:
    server.statuses["/r"] = 503
    told: list[str] = []
    container = {"readinessProbe": {"periodSeconds": 60, "httpGet": {"path": "/r", "port": "http"}}}
    prober = Prober(
        container, target(server), told=lambda _, words: told.append(words), changed=lambda: None
    )
    probers.append(prober)
    prober.begin()
    await eventually(lambda: len(server.requests) >= 2)
    assert len(told) == 1
    server.statuses["/r"] = 200
    await eventually(lambda: prober.ready, within=5)
